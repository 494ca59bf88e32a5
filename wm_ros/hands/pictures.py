"""A strip of images with boxes of hands and the way that their centres came."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.hands.source import Seen
from wm_ros.messages.pictures import side_by_side
from wm_ros.nn.preprocessing import resize_area
from wm_ros.types import HandTrajectory

PICTURES = 8
HEIGHT = 270
TRAIL_S = 1.0
COLOURS = {"left": (40, 120, 255), "right": (255, 140, 30)}


class Strip:
    """Images spread evenly over a recording of any length, at most PICTURES of them in the end, 2 · PICTURES held."""

    def __init__(self) -> None:
        self._every, self._count = 1, 0
        self._kept: list[NDArray[np.uint8]] = []
        self._trail: deque[dict[str, HandTrajectory]] = deque()

    def add(self, seen: Seen) -> None:
        """The next image."""
        self._trail.append(seen.hands)
        while seen.frame.stamp_ns - self._trail[0]["left"].stamp_ns > TRAIL_S * 1e9:
            self._trail.popleft()
        if self._count % self._every == 0:
            self._kept.append(self._drawn(seen))
        self._count += 1
        if len(self._kept) == 2 * PICTURES:
            self._kept, self._every = self._kept[::2], 2 * self._every

    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, two rows in order of time."""
        chosen = np.linspace(0, len(self._kept) - 1, min(PICTURES, len(self._kept))).round().astype(int)
        shown = [self._kept[index] for index in chosen]
        shown += [np.zeros_like(shown[0])] * (len(shown) % 2)
        half = len(shown) // 2
        return np.concatenate([side_by_side(np.stack(row)) for row in (shown[:half], shown[half:])])

    def _drawn(self, seen: Seen) -> NDArray[np.uint8]:
        height, width = seen.frame.rgb.shape[:2]
        image = resize_area(seen.frame.rgb, HEIGHT, round(width * HEIGHT / height)).copy()
        size = np.array(image.shape[1::-1])
        for side, colour in COLOURS.items():
            boxes = [past[side].values[0] for past in self._trail]
            for earlier, later in pairwise(boxes):
                if np.isfinite([earlier, later]).all():  # a gap stays a gap
                    start, end = (np.rint(box[:2] * size).astype(int).tolist() for box in (earlier, later))
                    cv2.line(image, start, end, colour, 2, cv2.LINE_AA)
            if seen.hands[side].valid[0]:
                u, v, *extent = boxes[-1]
                low, high = (np.rint((np.array([u, v]) + s * np.array(extent) / 2) * size).astype(int) for s in (-1, 1))
                cv2.rectangle(image, tuple(low.tolist()), tuple(high.tolist()), colour, 2)
                at = (int(low[0]), max(14, int(low[1]) - 5))
                cv2.putText(image, side, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
        return image
