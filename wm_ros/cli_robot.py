"""`wm robot` and `wm rollout`: a simulated robot on the wire, and whether a policy solves its tasks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from wm_ros.cli_recordings import ForceOpt, TaskOpt
from wm_ros.outputs import fresh_folder

robot_app = typer.Typer(
    help="A simulated robot that publishes what it senses and obeys action_chunk.", no_args_is_help=True
)
console = Console()
DELAYS_MS = (0, 50, 100, 200)


class Sensor(str, Enum):
    """What can be switched off, by its topic."""

    image = "image"
    wrist_image = "wrist_image"
    joint_states = "joint_states"


LockOpt = Annotated[
    bool, typer.Option("--lock-step/--real-time", help="Wait for the answer to each image, or keep real time.")
]
EveryOpt = Annotated[int, typer.Option(min=1, max=250, help="Control ticks (80 Hz) between images: 4 is 20 Hz.")]
CamerasOpt = Annotated[int, typer.Option(min=1, max=2, help="1: image; 2: wrist_image too.")]
BlindOpt = Annotated[bool, typer.Option("--blind", help="The images are black.")]
TimeoutOpt = Annotated[float, typer.Option(min=0.1, help="With --lock-step, seconds to wait for an answer.")]
DelayOpt = Annotated[float, typer.Option(min=0.0, max=2000.0, help="Chunks take effect so late, in simulated ms.")]
OffOpt = Annotated[
    list[Sensor] | None, typer.Option("--off", help="A sensor that fails; may be given again.", case_sensitive=False)
]
OffAfterOpt = Annotated[float, typer.Option(min=0.0, help="Seconds from the beginning until --off.")]


@robot_app.command("metaworld")
def robot_metaworld(
    task: TaskOpt,
    seed: Annotated[int, typer.Option(min=0, help="Where things are in the first episode.")] = 0,
    lock_step: LockOpt = False,
    timeout_s: TimeoutOpt = 5.0,
    rate: Annotated[float, typer.Option(min=0.01, max=100, help="Of real time.")] = 1.0,
    image_every: EveryOpt = 4,
    cameras: CamerasOpt = 2,
    blind: BlindOpt = False,
    delay_ms: DelayOpt = 0.0,
    off: OffOpt = None,
    off_after_s: OffAfterOpt = 0.0,
    on_reset: Annotated[
        bool, typer.Option("--on-reset", help="Begin an episode only when robot/reset is called.")
    ] = False,
    true_state: Annotated[bool, typer.Option("--true-state", help="Publish object and goal on true_state.")] = False,
    namespace: Annotated[str, typer.Option(help="Of the node and its topics, e.g. /robot1.")] = "",
) -> None:
    """A task of Meta-World V3 (extra `sim`) as a robot: image, wrist_image, joint_states, instruction and /clock out,
    action_chunk in. It executes a chunk by its stamp and offsets and stays where it is when none is left.

    Services: robot/reset (the parameter `seed` says which episode) and robot/result, both std_srvs/Trigger.
    """
    from wm_ros.nodes.robot import RobotOptions, run_robot
    from wm_ros.up import ros_environment

    os.environ |= ros_environment()
    options = RobotOptions(
        seed=seed,
        image_every=image_every,
        cameras=cameras,
        blind=blind,
        lock_step=lock_step,
        timeout_s=timeout_s,
        rate=rate,
        delay_s=delay_ms / 1e3,
        off=tuple(sensor.value for sensor in off or ()),
        off_after_s=off_after_s,
        on_reset=on_reset,
        true_state=true_state,
        namespace=namespace,
    )
    run_robot(task, options)


def rollout(
    task: Annotated[list[str], typer.Option(help="Task of Meta-World; may be given again, `all` for all five.")],
    out: Annotated[Path, typer.Option(help="Folder for rollout.json and rollout.mp4.")],
    episodes: Annotated[int, typer.Option(min=1, help="Of each task.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of the first episode; training should not have seen it.")] = 100_000,
    policy: Annotated[str, typer.Option(help="Bundle of the policy; left out: somebody else runs it.")] = "",
    state: Annotated[str, typer.Option(help="Bundle of its image encoder.")] = "state-lite",
    lock_step: LockOpt = True,
    timeout_s: TimeoutOpt = 5.0,
    image_every: EveryOpt = 4,
    cameras: CamerasOpt = 2,
    blind: BlindOpt = False,
    delay_ms: DelayOpt = 0.0,
    off: OffOpt = None,
    off_after_s: OffAfterOpt = 0.0,
    true_state: Annotated[bool, typer.Option("--true-state", help="Publish object and goal on true_state.")] = False,
    force: ForceOpt = False,
) -> None:
    """Simulator and policy as processes over DDS: success with its interval, return, times, a video with the plan."""
    from wm_ros.data.simulator.metaworld_arm import TASKS
    from wm_ros.robot.rollout import RolloutOptions, run_rollouts

    tasks = tuple(TASKS) if task == ["all"] else tuple(task)
    numbers = {"timeout-s": timeout_s, "image-every": image_every, "cameras": cameras, "delay-ms": delay_ms}
    numbers["off-after-s"] = off_after_s
    robot = [part for name, value in numbers.items() for part in (f"--{name}", f"{value:g}")]
    robot += [part for sensor in off or () for part in ("--off", sensor.value)]
    robot += ["--blind"] * blind + ["--true-state"] * true_state

    def progress(numbers: Sequence[int], name: str) -> Iterable[int]:
        return track(numbers, name, console=Console(stderr=True))

    with fresh_folder(out, force) as folder:
        options = RolloutOptions(tasks, episodes, seed, policy, state, lock_step, tuple(robot))
        report = run_rollouts(options, folder, progress)
    _print(report)
    console.print(f"video: {out / 'rollout.mp4'}", highlight=False)


def delays(
    task: Annotated[list[str], typer.Option(help="Task of Meta-World; may be given again, `all` for all five.")],
    policy: Annotated[str, typer.Option(help="Bundle of a policy that sees images itself.")],
    out: Annotated[Path, typer.Option(help="Folder for delays.json.")],
    delay_ms: Annotated[list[int] | None, typer.Option(min=0, max=2000, help="Repeatable: 0, 50, 100, 200.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Of each task, delay and strategy.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the first episode; training should not have seen it.")] = 100_000,
    image_every: EveryOpt = 4,
    force: ForceOpt = False,
) -> None:
    """Success and jerk of a policy that answers late: queue, ensemble and real-time chunking, in simulated time.

    Example: wm delays --task all --policy policy-metaworld --out build/delays
    """
    import torch

    from wm_ros.data.simulator.metaworld_arm import TASKS
    from wm_ros.paths import bundle_path
    from wm_ros.policy.capability import Policy
    from wm_ros.robot.closed_loop import compare

    torch.set_num_threads(1)
    tasks = tuple(TASKS) if task == ["all"] else tuple(task)
    with fresh_folder(out, force) as folder:
        found = compare(
            Policy.from_bundle(bundle_path(policy)),
            tasks,
            range(seed, seed + episodes),
            tuple(sorted(set(delay_ms))) if delay_ms else DELAYS_MS,
            lambda names: track(names, "late", console=Console(stderr=True)),
            image_every,
        )
        report = {"schema": 1, "policy": policy, "tasks": tasks, "seeds": [seed, seed + episodes - 1], "delays": found}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "delays.json").write_text(json.dumps(report, indent=1) + "\n")
    table = Table("delay", "strategy", "success", "95 % interval", "jerk m/s³", "safe commands")
    for delay, row in found.items():
        for strategy, figures in row.items():
            success = figures["success"]
            low, high = success["ci95"]
            table.add_row(
                *(delay, strategy, f"{success['hits']} / {success['n']}", f"{low:.1%} … {high:.1%}"),
                *(f"{figures['jerk_rms_mps3_median']:.4g}", str(figures["dry"])),
            )
    console.print(table)


def _print(report: dict[str, Any]) -> None:
    table = Table("task", "success", "95 % interval", "return", "time to success s", "round trip ms", "timeouts")
    for name, found in report["tasks"].items():
        success = found["success"]
        low, high = success["ci95"]
        figures = [found["return_mean"], found["time_to_success_s"], found["round_trip_ms"]["median"]]
        table.add_row(
            name,
            f"{success['hits']} / {success['n']}",
            f"{low:.1%} … {high:.1%}",
            *("–" if figure is None else f"{figure:.4g}" for figure in figures),
            str(found["timeouts"]),
        )
    console.print(table)
    console.print(f"mean success: {report['mean_success']:.1%}", highlight=False)
