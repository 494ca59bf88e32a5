"""Samples of any rates, put on a grid of one rate.

The grid starts when a first image and first joints are known and ends with the last image. At each step every stream
holds its newest sample by header stamp: what a robot would know then. Nothing is interpolated, nothing looks ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from wm_ros.types import BevTokens, Frame, HandTrajectory, Instruction, JointCommand, Joints, Sample, WristFrame

RATE_HZ = 15.0
SIDES = ("left", "right")
# A sample this little after a grid step still counts as there: the stamps of a steady sensor are rounded.
TOLERANCE_NS = 2_000_000


@dataclass
class Step:
    """What is known at one step of the grid. Hands are wrists in metres; boxes and poses are not held."""

    stamp_ns: int = 0
    frame: Frame | None = None
    wrist_frame: WristFrame | None = None
    joints: Joints | None = None
    command: JointCommand | None = None
    instruction: Instruction | None = None
    bev: BevTokens | None = None
    left: HandTrajectory | None = None
    right: HandTrajectory | None = None

    def take(self, sample: Sample) -> None:
        """Hold `sample` as the newest of its kind."""
        if isinstance(sample, JointCommand):
            self.command = sample
        elif isinstance(sample, Joints):
            self.joints = sample
        elif isinstance(sample, Frame):
            self.frame = sample
        elif isinstance(sample, WristFrame):
            self.wrist_frame = sample
        elif isinstance(sample, Instruction):
            self.instruction = sample
        elif isinstance(sample, BevTokens):
            self.bev = sample
        elif isinstance(sample, HandTrajectory) and sample.side in SIDES and sample.kind == "wrist_m":
            setattr(self, sample.side, sample)


def on_grid(samples: Iterable[Sample], rate_hz: float = RATE_HZ) -> Iterator[Step]:
    """What was known at each step of the grid.

    Steps wait until the next image has come, so that those after the last one are never given; what waits are
    references, so memory is bounded by the longest gap between images.
    """
    held = Step()
    start_ns, count = -1, 0
    waiting: list[Step] = []

    def upto(stamp_ns: int) -> None:
        """Let the steps that ended before `stamp_ns` wait."""
        nonlocal count
        while start_ns >= 0 and (now_ns := start_ns + round(count * 1e9 / rate_hz)) + TOLERANCE_NS < stamp_ns:
            waiting.append(replace(held, stamp_ns=now_ns))
            count += 1

    for sample in samples:
        upto(sample.stamp_ns)
        held.take(sample)
        if isinstance(sample, Frame):
            yield from waiting
            waiting.clear()
        if start_ns < 0 and held.frame is not None and held.joints is not None:
            start_ns = max(held.frame.stamp_ns, held.joints.stamp_ns)
    if held.frame is not None:
        upto(held.frame.stamp_ns + 2 * TOLERANCE_NS + 1)
        yield from (step for step in waiting if step.stamp_ns <= held.frame.stamp_ns + TOLERANCE_NS)
