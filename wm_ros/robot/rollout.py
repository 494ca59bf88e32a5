"""`wm rollout`: does a policy solve tasks? Simulator and policy as processes of their own, over DDS.

Success: at any step within 250, after which the episode ends, so the return is up to there. With lock-step (the
default) the robot waits for the answer to each image, and the result does not depend on how fast the machine is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wm_ros.bundle import load_bundle
from wm_ros.errors import UserError
from wm_ros.evaluation.metrics import tidy, wilson

START_S = 120.0
EPISODE_S = 1800.0

Progress = Callable[[Sequence[int], str], Iterable[int]]


@dataclass(frozen=True)
class RolloutOptions:
    """What to run, and how.

    Attributes:
        tasks: of Meta-World. episodes: of each task, with the seeds `seed`, `seed` + 1, …
        policy: bundle of the policy, started here, with the encoder `state` where it reads state tokens; "" where
            somebody else runs it.
        lock_step: the robot waits for the policy; else both keep real time.
        robot: more arguments for `wm robot metaworld`.
    """

    tasks: tuple[str, ...]
    episodes: int
    seed: int
    policy: str = ""
    state: str = "state-lite"
    lock_step: bool = True
    robot: tuple[str, ...] = ()


def run_rollouts(
    options: RolloutOptions, out: Path, progress: Progress = lambda numbers, _task: numbers
) -> dict[str, Any]:
    """Run all episodes; write rollout.json and rollout.mp4 into the folder `out`.

    Returns:
        what rollout.json holds.

    Raises:
        UserError: a bundle, task or process that does not fit, or a policy that never says anything.
    """
    from wm_ros.data.simulator.metaworld_arm import MetaWorldArm
    from wm_ros.robot.video import write_video
    from wm_ros.up import ros_environment

    for task in options.tasks:
        MetaWorldArm(task)  # refuses what is unknown or missing before anything is started
    out.mkdir(parents=True, exist_ok=True)
    os.environ |= ros_environment()
    if options.policy:  # beside a stack that runs already, neither disturbs the other
        os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    tasks: dict[str, dict[str, Any]] = {}

    def pictures() -> Iterator[Any]:
        with _policy(options) as alive:
            for task in options.tasks:
                tasks[task] = yield from _run_task(task, options, alive, progress)

    write_video(out / "rollout.mp4", pictures())
    report = {
        "schema": 1,
        "policy": options.policy or "run by others",
        "lock_step": options.lock_step,
        "robot": " ".join(options.robot),
        "tasks": tasks,
        "mean_success": tidy(float(np.mean([found["success"]["value"] for found in tasks.values()]))),
    }
    (out / "rollout.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    return report


def summary(episodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one task: success with its 95 % Wilson interval, return, times."""
    hits = sum(episode["success"] for episode in episodes)
    trips = [episode["round_trip_ms"] for episode in episodes if episode["round_trip_ms"]]
    solved = [episode["sim_s"] for episode in episodes if episode["success"]]

    def middle(values: Sequence[float]) -> float | None:
        return tidy(float(np.median(values))) if values else None

    return {
        "success": {
            "value": tidy(hits / len(episodes)),
            "hits": hits,
            "n": len(episodes),
            "ci95": [tidy(edge) for edge in wilson(hits, len(episodes))],
        },
        "return_mean": tidy(float(np.mean([episode["return"] for episode in episodes]))),
        "time_to_success_s": middle(solved),
        "wall_s_median": middle([episode["wall_s"] for episode in episodes]),
        "jerk_rms_mps3_median": middle([episode["jerk_rms_mps3"] for episode in episodes]),
        "round_trip_ms": {
            "median": middle([trip["median"] for trip in trips]),
            "p95": middle([trip["p95"] for trip in trips]),
        },
        "timeouts": sum(episode["timeouts"] for episode in episodes),
        "refused": sum(sum(episode["refused"].values()) for episode in episodes),
        "episodes": list(episodes),
    }


def _run_task(task: str, options: RolloutOptions, alive: Callable[[], None], progress: Progress) -> Any:
    """A generator of the pictures of all episodes; returns their summary."""
    from wm_ros.data.simulator.metaworld_arm import MetaWorldArm
    from wm_ros.data.simulator.metaworld_view import projection
    from wm_ros.nodes.robot_client import RobotClient
    from wm_ros.robot.video import episode_pictures

    matrix = projection(MetaWorldArm(task))
    command = [sys.executable, "-m", "wm_ros.cli", "robot", "metaworld", "--task", task, "--on-reset"]
    command += ["--lock-step" if options.lock_step else "--real-time", *options.robot]
    robot = subprocess.Popen(command, start_new_session=True)  # Ctrl-C reaches us alone

    def both_alive() -> None:
        alive()
        if robot.poll() is not None:
            raise UserError(f"the robot ended with exit code {robot.returncode}; what it printed says why")

    episodes: list[dict[str, Any]] = []
    try:
        with RobotClient(both_alive) as client:
            client.wait_for_robot(START_S)
            client.wait_for_policy(START_S)
            for number in progress(range(options.episodes), task):
                seed = options.seed + number
                result = client.run_episode(seed, EPISODE_S)
                episodes.append(result)
                words = "solved" if result["success"] else "not solved"
                yield from episode_pictures(client.heard, matrix, f"{task}  seed {seed}  {words}")
    finally:
        _end(robot)
    return summary(episodes)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _policy(options: RolloutOptions) -> Iterator[Callable[[], None]]:
    """The policy's nodes up and watched, where they are to be started here; gives what to call meanwhile."""
    if not options.policy:
        yield lambda: None
        return
    from wm_ros.nodes.board import Board
    from wm_ros.nodes.supervisor import Supervisor, node_command
    from wm_ros.paths import CONFIG, bundle_path
    from wm_ros.policy.checkpoint import bare_head, is_checkpoint
    from wm_ros.policy.config import PolicyModelConfig
    from wm_ros.up import check, overriding

    params = CONFIG / "wm.yaml"
    path = bundle_path(options.policy)
    model = bare_head(path)[0] if is_checkpoint(path) else load_bundle(path, "policy", PolicyModelConfig)[0].model
    nodes, bundles = ["policy"], {"policy": options.policy}
    if model.token_history:
        nodes, bundles = ["state_tokenizer", *nodes], bundles | {"state": options.state}
    chosen = check(params, nodes, bundles)
    if options.lock_step:  # the robot stands still while it waits: silence by the wall clock means nothing
        chosen = {name: row | {"input_timeout_s": 60.0} for name, row in chosen.items()}
    folder = TemporaryDirectory(prefix="wm_rollout_")
    arguments = ["--params-file", str(params), *overriding(Path(folder.name), chosen), "-p", "use_sim_time:=true"]
    board = Board()
    supervisor = Supervisor({name: node_command(name, arguments) for name in chosen}, "", board.changed)

    def watch() -> None:
        supervisor.tick(timeout_s=0.0)
        board.health(supervisor.children)

    try:
        supervisor.start()
        end_s = time.monotonic() + START_S
        while not supervisor.all_active():
            supervisor.tick()
            if time.monotonic() > end_s:
                raise UserError(f"the policy did not become active within {START_S:g} s; run `wm doctor`")
        yield watch
    finally:
        supervisor.stop()
        folder.cleanup()
