"""Images in, boxes of hands out as `HandTrajectory`; their files; their past and future on the grid of `future`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wm_ros.errors import UserError
from wm_ros.future.history import resample
from wm_ros.hands.detector import Detector, Found
from wm_ros.hands.sides import SideTracker
from wm_ros.training.grid import TOLERANCE_NS
from wm_ros.types import Frame, HandTrajectory

MAX_GAP_S = 0.25  # between images; a hand may have been anywhere in a longer gap


class Seen(NamedTuple):
    """One image and the hands in it: of each side a trajectory of one step (offset 0), and the detector's score."""

    frame: Frame
    hands: dict[str, HandTrajectory]
    scores: dict[str, float | None]
    took_ms: float


def watch(frames: Iterable[Frame], detector: Detector) -> Iterator[Seen]:
    """Hands of each image, whose stamps ascend. A side that is not seen is there, not valid, its box NaN."""
    detector.reset()
    tracker = SideTracker()
    for frame in frames:
        start = time.perf_counter()
        sides = tracker.step(frame.stamp_ns, detector.find(frame.rgb))
        took_ms = (time.perf_counter() - start) * 1e3
        hands = {side: _trajectory(frame, side, found) for side, found in sides.items()}
        yield Seen(frame, hands, {side: found.score if found else None for side, found in sides.items()}, took_ms)


def _trajectory(frame: Frame, side: str, found: Found | None) -> HandTrajectory:
    box = np.full(4, np.nan, np.float32) if found is None else found.box
    valid = np.array([found is not None])
    return HandTrajectory(frame.stamp_ns, frame.frame_id, side, np.zeros(1), box[None], valid, "box")


def line_of(recording: str, hand: HandTrajectory, score: float | None) -> str:
    """One JSON line: recording, stamp_ns, frame_id, side, valid, box ([u, v, width, height] or null), score."""
    seen = bool(hand.valid[0])
    fields = {
        "recording": recording,
        "stamp_ns": hand.stamp_ns,
        "frame_id": hand.frame_id,
        "side": hand.side,
        "valid": seen,
        "box": [round(float(v), 5) for v in hand.values[0]] if seen else None,
        "score": None if score is None else round(score, 4),
    }
    return json.dumps(fields)


def read_boxes(path: Path) -> Iterator[tuple[str, HandTrajectory]]:
    """Recording and hand of each line that `line_of` wrote. Raises UserError naming the line that is none of those."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            box = np.array([row["box"] if row["valid"] else [np.nan] * 4], np.float32)
            place = (int(row["stamp_ns"]), str(row["frame_id"]), str(row["side"]))
            hand = HandTrajectory(*place, np.zeros(1), box, np.array([bool(row["valid"])]), "box")
            recording = str(row["recording"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"'{path}' line {number} is no box of a hand; write it with `wm hands`") from None
        yield recording, hand


class Track:
    """All that was said of one side in one recording.

    Attributes:
        stamps_ns: (N,) ascending. boxes: (N, 4) float64. valid: (N,) bool.
    """

    def __init__(self, hands: Iterable[HandTrajectory]) -> None:
        said = list(hands)
        self.frame_id, self.side = (said[0].frame_id, said[0].side) if said else ("", "")
        self.stamps_ns: NDArray[np.int64] = np.array([hand.stamp_ns for hand in said], np.int64)
        self.boxes = np.array([hand.values[0] for hand in said], np.float64).reshape(-1, 4)
        self.valid = np.array([hand.valid[0] for hand in said], bool)

    def at(self, grid_ns: NDArray[np.int64], stamp_ns: int) -> HandTrajectory:
        """Boxes at the times (G,) of a grid, offsets from `stamp_ns`: linear between images, as in windows of `future`.

        A step is valid where the images before and after it (or the one at it) both show the hand and lie no further
        apart than MAX_GAP_S: no hand is made up where an image says there was none.
        """
        offsets_s = (grid_ns - stamp_ns).astype(np.float64) * 1e-9
        values, valid = np.full((len(grid_ns), 4), np.nan, np.float32), np.zeros(len(grid_ns), bool)
        if self.valid.any():
            before = np.searchsorted(self.stamps_ns, grid_ns + TOLERANCE_NS, side="right") - 1
            after = np.searchsorted(self.stamps_ns, grid_ns - TOLERANCE_NS, side="left")
            inside = (before >= 0) & (after < len(self.stamps_ns))
            before, after = before.clip(0), after.clip(max=len(self.stamps_ns) - 1)
            near = self.stamps_ns[after] - self.stamps_ns[before] <= MAX_GAP_S * 1e9
            valid = inside & near & self.valid[before] & self.valid[after]
            boxes = resample(self.stamps_ns[self.valid], self.boxes[self.valid], grid_ns)
            values = np.where(valid[:, None], boxes, np.nan).astype(np.float32)
        return HandTrajectory(stamp_ns, self.frame_id, self.side, offsets_s, values, valid, "box")
