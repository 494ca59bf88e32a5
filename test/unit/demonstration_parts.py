"""A recording of two joints that count its steps, for the tests of datasets."""

from __future__ import annotations

import numpy as np

from wm_ros.types import Frame, Instruction, JointCommand, Joints, Sample

SECOND = 1_000_000_000
START = 1000 * SECOND
RATE_HZ = 10
SIZE = (32, 48)  # height, width


def at(step: float) -> int:
    """Stamp of a step at RATE_HZ."""
    return START + round(step * SECOND / RATE_HZ)


def grey(step: float) -> np.ndarray:
    """A picture whose brightness says the step, up to 40 of them."""
    return np.full((*SIZE, 3), 20 + 5 * int(step) % 200, np.uint8)


def joints(step: float, value: float | None = None, names=("a", "b")) -> Joints:
    """Measured: `a` counts up, `b` down."""
    value = step if value is None else value
    return Joints(at(step), "", names, np.array([{"a": value, "b": -value, "g": value / 2}[n] for n in names]))


def command(step: float, names=("a", "b")) -> JointCommand:
    """Commanded: a hundred more than measured."""
    measured = joints(step, names=names)
    return JointCommand(measured.stamp_ns, "", names, measured.position_rad + 100)


def frame(step: float, camera: str = "camera", rgb: np.ndarray | None = None) -> Frame:
    """An image of a camera."""
    return Frame(at(step), camera, grey(step) if rgb is None else rgb)


def steps(first: int, last: int, text: str = "go") -> list[Sample]:
    """Joints, commands and images of steps first … last, and what was said at the first."""
    said: list[Sample] = [Instruction(at(first), "", text)] if text else []
    moved = [s for step in range(first, last + 1) for s in (joints(step), command(step), frame(step))]
    return said + moved
