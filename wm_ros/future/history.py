"""What the model knows at one time: the past of joints and hands on an even grid, two states, the instruction.

The capability and the training set cut their windows with the same functions, so what was trained is what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.kinematics import arm_for
from wm_ros.nn.instruction import Words
from wm_ros.topics import SIDES
from wm_ros.types import Float


class Known(NamedTuple):
    """Which parts of a window are measured; the rest is zero and replaced by learned tokens."""

    joints: bool
    left: bool
    right: bool
    previous: bool
    asked: bool
    image: bool = False


class Window(NamedTuple):
    """One example, as numpy.

    Attributes:
        body: (H, 6 + J) float32 over the last H grid steps, oldest first: left wrist, right wrist (m), joints (rad).
        states: (2, T, D) float32 previous and current state tokens.
        text: the instruction, "" where there is none.
        asked: (H, J) float32 how far each joint was commanded to go from where it was, rad.
        image: (3, H, W) float32 in 0..1 of the current state, for a model that looks; None where there is none.
    """

    body: Float
    states: Float
    text: str
    known: Known
    asked: Float
    image: Float | None = None


class Batch(NamedTuple):
    """Windows as tensors.

    Body (B, H, V), states (B, 2, T, D), words (B, …) of `Words`, known (B, 6) bool, asked (B, H, J), image (B, 3, H, W)
    or None.
    """

    body: Tensor
    states: Tensor
    words: Tensor
    known: Tensor
    asked: Tensor
    image: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


def collate(windows: Sequence[Window], words: Words) -> Batch:
    """Stack windows into tensors; `words` as the model's `language` has it (`wm_ros.nn.instruction.open_words`)."""
    return Batch(
        torch.from_numpy(np.stack([w.body for w in windows])),
        torch.from_numpy(np.stack([w.states for w in windows])),
        words([w.text for w in windows]),
        torch.tensor([list(w.known) for w in windows]),
        torch.from_numpy(np.stack([w.asked for w in windows])),
        _images(windows),
    )


def _images(windows: Sequence[Window]) -> Tensor | None:
    """Images (B, 3, H, W), zero where one has none; None where none has one."""
    shown = next((window.image for window in windows if window.image is not None), None)
    if shown is None:
        return None
    blank = np.zeros_like(shown)
    return torch.from_numpy(np.stack([blank if w.image is None else w.image for w in windows]))


def resample(
    times_ns: NDArray[np.int64], values: NDArray[np.float64], grid_ns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Values (N, V) measured at ascending `times_ns` (N,), linearly between, at `grid_ns` (G,) → (G, V).

    Before the first and after the last measurement the nearest one is held.
    """
    after = np.clip(np.searchsorted(times_ns, grid_ns), 1, max(1, len(times_ns) - 1))
    if len(times_ns) == 1:
        return np.repeat(values, len(grid_ns), axis=0)
    before = after - 1
    span = (times_ns[after] - times_ns[before]).astype(np.float64)
    share = np.clip((grid_ns - times_ns[before]) / np.maximum(span, 1.0), 0.0, 1.0)[:, None]
    return values[before] * (1 - share) + values[after] * share


def past_grid(stamp_ns: int, steps: int, rate_hz: float) -> NDArray[np.int64]:
    """(steps,) times up to and including `stamp_ns`, ascending, 1 / rate apart."""
    return stamp_ns - np.round(np.arange(steps - 1, -1, -1) * 1e9 / rate_hz).astype(np.int64)


def future_offsets_s(steps: int, rate_hz: float) -> NDArray[np.float64]:
    """(steps,) seconds after now: 1 / rate, 2 / rate, …"""
    return np.arange(1, steps + 1) / rate_hz


def body_of(names: Sequence[str], wanted: Sequence[str], position_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joints (N, J) named `names` → (N, 6 + len(wanted)): both wrists in the torso frame, then `wanted` in order.

    Raises:
        KeyError: the first joint of `wanted` that is missing.
    """
    place = {name: index for index, name in enumerate(names)}
    columns = [place[name] for name in wanted]
    parts = []
    for side in SIDES:
        arm = arm_for(names, side)
        if arm is None:
            raise KeyError(f"an arm on the {side}")
        parts.append(arm.wrist(position_rad[:, [place[name] for name in arm.joint_names]]))
    return np.concatenate([*parts, position_rad[:, columns]], axis=1)
