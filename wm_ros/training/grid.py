"""Samples of any rates, put on a grid of one rate.

The grid starts when a first image and first joints are known and ends with the last image. At each step every stream
holds its newest sample by header stamp (`wm_ros.data.fixed_rate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from wm_ros.data.fixed_rate import TOLERANCE_NS, at_rate
from wm_ros.types import BevTokens, Frame, HandTrajectory, Instruction, JointCommand, Joints, Sample, WristFrame

__all__ = ["RATE_HZ", "SIDES", "TOLERANCE_NS", "Step", "on_grid"]

RATE_HZ = 15.0
SIDES = ("left", "right")


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


def on_grid(samples: Iterable[Sample], rate_hz: float = RATE_HZ) -> Iterator[Step]:
    """What was known at each step of the grid; memory is bounded by the longest gap between images."""
    streams = ((_stream(sample), sample) for sample in samples)
    for stamp_ns, known in at_rate(streams, rate_hz, needed=("frame", "joints"), until=("frame",)):
        held: dict[str, Any] = {name: sample for name, sample in known.items() if name}
        yield Step(stamp_ns, **held)


def _stream(sample: Sample) -> str:
    """The field of `Step` that holds it, "" for one that is not held."""
    if isinstance(sample, HandTrajectory):
        return sample.side if sample.side in SIDES and sample.kind == "wrist_m" else ""
    kinds = {
        JointCommand: "command",
        Joints: "joints",
        Frame: "frame",
        WristFrame: "wrist_frame",
        Instruction: "instruction",
        BevTokens: "bev",
    }
    return kinds.get(type(sample), "")
