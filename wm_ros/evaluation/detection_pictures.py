"""Detections seen from above over the sweep: forward is up, left is left; truth white, detections in colours."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.lidar.boxes import corners
from wm_ros.types import Detections

REACH_M = 51.2
SIDE_PX = 768
MIN_SCORE = 0.3
BACKGROUND, POINT, TRUTH = (28, 32, 40), (120, 126, 138), (255, 255, 255)
COLOURS = {"car": (255, 150, 40), "pedestrian": (90, 220, 120), "cyclist": (90, 170, 255)}


def detection_picture(points: NDArray[np.float32], truth: NDArray[np.float32], found: Detections) -> NDArray[np.uint8]:
    """(768, 768, 3): a sweep, its (B, 7) true boxes, and the detections that score at least 0.3, brighter the surer."""
    image = np.full((SIDE_PX, SIDE_PX, 3), BACKGROUND, np.uint8)
    pixel = np.floor(_pixels(points[:, :2])).astype(np.int64)
    pixel = pixel[((pixel >= 0) & (pixel < SIDE_PX)).all(1)]
    image[pixel[:, 1], pixel[:, 0]] = POINT
    for box in truth:
        _draw(image, box, TRUTH, 3)
    for box, label, score in zip(found.boxes, found.labels, found.scores.tolist(), strict=True):
        if score >= MIN_SCORE:
            colour = np.array(COLOURS.get(label, (230, 80, 80))) * (0.55 + 0.45 * score)
            _draw(image, box, (int(colour[0]), int(colour[1]), int(colour[2])), 1)
    shown = [("truth", TRUTH), *COLOURS.items()]
    for row, (name, colour) in enumerate(shown):
        cv2.putText(image, name, (8, 20 + 18 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
    return image


def _pixels(xy: NDArray[np.floating]) -> NDArray[np.float64]:
    """x ahead is up, y to the left is left."""
    return (REACH_M - np.asarray(xy, np.float64)[..., ::-1]) * SIDE_PX / (2 * REACH_M)


def _draw(image: NDArray[np.uint8], box: NDArray[np.float32], colour: tuple[int, int, int], thickness: int) -> None:
    outline = corners(box[None])[0]
    ends = np.round(_pixels(outline)).astype(np.int32)
    cv2.polylines(image, [ends.reshape(-1, 1, 2)], True, colour, thickness, cv2.LINE_AA)
    front = np.round(_pixels(np.stack([box[:2], (outline[0] + outline[3]) / 2]))).astype(np.int32)
    cv2.line(image, tuple(front[0].tolist()), tuple(front[1].tolist()), colour, thickness, cv2.LINE_AA)
