"""What a delay of the policy does to the motion: strategies of execution on a robot that follows its commands.

Open loop: the policy sees a recording, whatever the robot does, so that each strategy is given the same chunks. Its
inference is given a delay: the newest image that is there when it is free is worked on, and the chunk is known so much
later. The executor of the policy node turns the chunks into commands, and a kinematic robot follows them with a lag of
the first order. It is compared with the same robot that follows the recorded commands:

    tracking_error@<delay>  mean distance of its joints from those of that robot, rad
    jerk@<delay>            root of the mean square of the third derivative of its joints, rad/s³
    dry@<delay>             share of control periods without a command
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.data.sources import Episode, episodes
from wm_ros.errors import UserError
from wm_ros.evaluation.metrics import summarise
from wm_ros.evaluation.replay import Pipeline
from wm_ros.evaluation.scorer import Metric
from wm_ros.policy.execution import ExecutionConfig, StrategyName
from wm_ros.policy.executor import Executor
from wm_ros.types import ActionChunk, JointCommand, Joints, PolicyPrediction

Double = NDArray[np.float64]
PolicyFunction = Callable[[int], ActionChunk | None]
"""Stamp of an image → the chunk that is asked for then, None where there is none."""

DELAYS_MS = (0, 50, 100, 200)
STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)
OURS: StrategyName = "real_time"  # whose gain over the others is reported
LAG_S = 0.08


@dataclass(frozen=True)
class Recording:
    """One episode as the policy saw it.

    Attributes:
        names: the joints. chunks: stamp of an image → chunk. stamps_ns: of commands (n,); commands: (n, J) rad.
    """

    names: tuple[str, ...]
    chunks: dict[int, ActionChunk]
    stamps_ns: NDArray[np.int64]
    commands: Double


@dataclass(frozen=True)
class Motion:
    """What a robot did, one row for each control period: joints (n, J) rad, and whether it was sent a command (n,)."""

    joints: Double
    commanded: NDArray[np.bool_]


class KinematicRobot:
    """Joints that follow their command with a first-order lag. `position`: (J,) rad."""

    def __init__(self, position: Double, lag_s: float, period_s: float) -> None:
        self.position = position.astype(np.float64)
        self._share = 1.0 - np.exp(-period_s / lag_s)

    def follow(self, command: Double) -> Double:
        """One control period on the way to `command`."""
        self.position = self.position + self._share * (command - self.position)
        return self.position


def record(episode: Episode, pipeline: Pipeline) -> Recording | None:
    """Run state and policy over an episode; None where it has no commands or too short a stretch of chunks."""
    pipeline.reset()
    chunks: dict[int, ActionChunk] = {}
    commands: list[JointCommand] = []
    for original in episode.samples():
        for sample, _, prediction in pipeline.step(original):
            if isinstance(prediction, PolicyPrediction):
                chunks[prediction.stamp_ns] = prediction.chunk
            elif isinstance(sample, JointCommand) and prediction is None:
                commands.append(sample)
    if len(chunks) < 2 or not commands:
        return None
    names = next(iter(chunks.values())).names
    if not set(names) <= set(commands[0].names):
        return None
    rows = [[command.names.index(name) for name in names] for command in commands]
    positions = np.stack([c.position_rad[row] for c, row in zip(commands, rows, strict=True)]).astype(np.float64)
    return Recording(names, chunks, np.asarray([c.stamp_ns for c in commands]), positions)


def arrivals(policy: PolicyFunction, asked_ns: Sequence[int], delay_ns: int) -> list[tuple[int, ActionChunk]]:
    """When each chunk is known (ns), and the chunk: one inference at a time, of the newest image once it is free.

    Args:
        asked_ns: stamps of the images, ascending. delay_ns: of an inference.
    """
    known: list[tuple[int, ActionChunk]] = []
    worked_on, free_ns = -1, 0
    while True:
        worked_on = max(worked_on + 1, bisect_right(asked_ns, free_ns) - 1)
        if worked_on >= len(asked_ns):
            return known
        free_ns = max(free_ns, asked_ns[worked_on]) + delay_ns
        chunk = policy(asked_ns[worked_on])
        if chunk is not None:
            known.append((free_ns, chunk))


def simulate(
    known: Sequence[tuple[int, ActionChunk]], ticks_ns: Sequence[int], executor: Executor, start: Double
) -> Motion:
    """Let the executor move a robot from `start` (J,), one control period for each of `ticks_ns`.

    Args:
        known: of `arrivals`.
    """
    robot = KinematicRobot(start, LAG_S, executor.period_s)
    waiting, command = deque(known), start
    joints, commanded = [], []
    for now_ns in ticks_ns:
        now_s = now_ns / 1e9
        while waiting and waiting[0][0] <= now_ns:
            ready_ns, chunk = waiting.popleft()
            executor.add(chunk, ready_ns, now_s)
        executor.observe(Joints(now_ns, "", executor.names, robot.position), now_ns, now_s)
        said = executor.tick(now_ns, now_s)
        if said is not None:
            command = said.chunk.position_rad[-1].astype(np.float64)
        joints.append(robot.follow(command))
        commanded.append(said is not None and not said.why)
    return Motion(np.stack(joints), np.asarray(commanded))


def compare(recording: Recording, config: ExecutionConfig, delays_ms: Sequence[int]) -> list[Metric]:
    """The figures of each strategy at each delay, on one episode."""
    asked_ns = sorted(recording.chunks)
    period_ns = round(1e9 / config.control_rate_hz)
    # All strategies move from when the slowest of them has its first chunk.
    begin_ns = asked_ns[0] + round(max(delays_ms) * 1e6)
    ticks_ns = range(begin_ns, min(asked_ns[-1], int(recording.stamps_ns[-1])), period_ns)
    due_s = (np.asarray(ticks_ns) + period_ns - recording.stamps_ns[0]) / 1e9
    stamps_s = (recording.stamps_ns - recording.stamps_ns[0]) / 1e9
    told = np.stack([np.interp(due_s, stamps_s, column) for column in recording.commands.T], 1)
    robot = KinematicRobot(told[0], LAG_S, period_ns / 1e9)
    recorded = np.stack([robot.follow(command) for command in told])
    first = recording.chunks[asked_ns[0]]
    steps, rate_hz = len(first.offsets_s), len(first.offsets_s) / float(first.offsets_s[-1])
    metrics = []
    for delay_ms in delays_ms:
        known = arrivals(recording.chunks.get, asked_ns, round(delay_ms * 1e6))
        errors: dict[str, Double] = {}
        dry: dict[str, Double] = {}
        jerks: dict[str, Double] = {"recorded": _jerk(recorded, period_ns)}
        for strategy in STRATEGIES:
            executor = Executor(config.model_copy(update={"strategy": strategy}), recording.names, steps, rate_hz)
            motion = simulate(known, ticks_ns, executor, told[0])
            method: str = "model" if strategy == OURS else strategy
            errors[method] = np.abs(motion.joints - recorded).mean(1)
            jerks[method] = _jerk(motion.joints, period_ns)
            dry[method] = (~motion.commanded).astype(np.float64)
        metrics += [
            Metric(f"tracking_error@{delay_ms}ms", "rad", "lower", errors),
            Metric(f"jerk@{delay_ms}ms", "rad/s³", "lower", jerks, _root_mean),
            Metric(f"dry@{delay_ms}ms", "1", "lower", dry),
        ]
    return metrics


def _jerk(joints: Double, period_ns: int) -> Double:
    """Rows of the mean square over joints of the third derivative, and a one for each: pooled by `_root_mean`."""
    third = np.diff(joints, n=3, axis=0) / (period_ns / 1e9) ** 3
    return np.stack([np.square(third).mean(1), np.ones(len(third))], 1)


def _root_mean(total: Double) -> float:
    return float(np.sqrt(total[0] / total[1]))


def run(
    sources: list[str],
    bundles: dict[str, Path],
    out: Path,
    config: ExecutionConfig,
    *,
    delays_ms: Sequence[int] = DELAYS_MS,
    progress: Callable[[list[Episode]], Iterable[Episode]] = lambda found: found,
) -> dict[str, Any]:
    """Compare the strategies on every episode of `sources`; write metrics.json to `out` and return it.

    Args:
        bundles: folders of "state" and "policy". config: `strategy` is not read.

    Raises:
        UserError: a source cannot be read, or no episode has images, joints and commands for long enough.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pipeline = Pipeline(["state", "policy"], bundles)
    found = {}
    for episode in progress([episode for source in sources for episode in episodes(source)]):
        recording = record(episode, pipeline)
        if recording is not None:
            found[episode.name] = compare(recording, config, delays_ms)
    if not found:
        raise UserError(f"'{sources[0]}': no episode with images, joints and commands is long enough; give others")
    report = {
        "schema": 1,
        "inputs": list(found),
        "lag_s": LAG_S,
        "execution": config.model_dump(exclude={"strategy"}),
        "metrics": summarise(list(found.values())),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    return report


def figure(report: dict[str, Any], name: str, delay_ms: int, strategy: str) -> float:
    """One figure of a strategy, or of "recorded", from what `run` returns."""
    entry = report["metrics"][f"{name}@{delay_ms}ms"]
    value = entry["value"] if strategy == OURS else entry["baselines"][strategy]
    return float(value)
