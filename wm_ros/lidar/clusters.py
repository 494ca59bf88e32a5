"""What a detector must beat: heaps of obstacle points, sorted into classes by their size. Nothing is learned.

Obstacle points of the band above the road that touch on a grid of 0.3 m are one heap. A rectangle is laid around it
whose sides its points lie closest to (Zhang et al. 2017, closeness criterion); a heap within the limits of a class is
completed to that class's usual size, away from the sensor, since only the near sides are seen. More points give more
confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CELL_M = 0.3
REACH_M = 51.2
MIN_POINTS = 5
HALF_SURE = 60  # points at which the score is one half
TURNS = np.deg2rad(np.arange(0.0, 90.0, 2.0))
CLOSE_M = 0.1  # nearer to a side than this is no better
MAX_POINTS = 200  # of a heap, evenly picked, that the rectangle is fitted to
Double = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """A class: usual length, width, height, and limits (least, most) of the longer and shorter side and the height."""

    name: str
    size_m: tuple[float, float, float]
    long_m: tuple[float, float]
    short_m: tuple[float, float]
    high_m: tuple[float, float]


KINDS = (
    Kind("pedestrian", (0.8, 0.6, 1.75), (0.15, 1.0), (0.05, 0.9), (0.7, 2.0)),
    Kind("cyclist", (1.75, 0.6, 1.75), (1.0, 2.1), (0.1, 0.9), (0.7, 2.0)),
    Kind("car", (3.9, 1.65, 1.55), (1.2, 5.5), (0.1, 2.4), (0.4, 2.0)),
)


def detect_clusters(
    band: NDArray[np.float32], sensor_height_m: float
) -> tuple[NDArray[np.float32], tuple[str, ...], NDArray[np.float32]]:
    """(N, 7) boxes, their classes and scores from the (P, 3) obstacle points of one sweep, in the sensor frame."""
    side = round(2 * REACH_M / CELL_M)
    place = np.floor((band[:, :2] + np.float32(REACH_M)) / np.float32(CELL_M)).astype(np.int64)
    inside = ((place >= 0) & (place < side)).all(1)
    band, place = band[inside], place[inside]
    grid = np.zeros((side, side), np.uint8)
    grid[place[:, 1], place[:, 0]] = 1
    _, heap = cv2.connectedComponents(grid, connectivity=8)
    number = heap[place[:, 1], place[:, 0]]
    ranked = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[ranked], prepend=-1))
    rows, names, scores = [], [], []
    for points in np.split(band[ranked], starts[1:]) if len(band) else []:
        if len(points) < MIN_POINTS:
            continue
        found = _fitted(points.astype(np.float64), sensor_height_m)
        if found is not None:
            rows.append(found[0])
            names.append(found[1])
            scores.append(len(points) / (len(points) + HALF_SURE))
    return np.array(rows, np.float32).reshape(-1, 7), tuple(names), np.array(scores, np.float32)


def _fitted(points: Double, sensor_height_m: float) -> tuple[Double, str] | None:
    """The box of a heap and its class, or None where it is none of them."""
    middle, (long_m, short_m), yaw = _rectangle(points[:: -(-len(points) // MAX_POINTS), :2])
    if long_m < short_m:
        long_m, short_m, yaw = short_m, long_m, yaw + np.pi / 2
    high_m = float(points[:, 2].max()) + sensor_height_m
    for kind in KINDS:
        limits = ((long_m, kind.long_m), (short_m, kind.short_m), (high_m, kind.high_m))
        if all(low <= value <= high for value, (low, high) in limits):
            break
    else:
        return None
    if kind.name == "car" and long_m < 2.2:  # only its front or back is seen
        long_m, short_m, yaw = short_m, long_m, yaw + np.pi / 2
    length, width, height = kind.size_m
    along, across = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    for axis, seen, whole in ((along, long_m, length), (across, short_m, width)):
        away = 1.0 if float(middle @ axis) >= 0 else -1.0
        middle = middle + axis * away * max(0.0, whole - seen) / 2
    size = [max(length, long_m), max(width, short_m), height]
    return np.array([*middle, height / 2 - sensor_height_m, *size, yaw]), kind.name


def _rectangle(xy: Double) -> tuple[Double, tuple[float, float], float]:
    """Centre, sides along and across, and yaw of the rectangle whose sides the (P, 2) points lie closest to."""
    cos, sin = np.cos(TURNS)[:, None], np.sin(TURNS)[:, None]
    along, across = cos * xy[:, 0] + sin * xy[:, 1], cos * xy[:, 1] - sin * xy[:, 0]
    gaps = [
        np.minimum(value - value.min(1, keepdims=True), value.max(1, keepdims=True) - value)
        for value in (along, across)
    ]
    best = int(np.argmax((1 / np.maximum(np.minimum(*gaps), CLOSE_M)).sum(1)))
    edges = [(float(value[best].min()), float(value[best].max())) for value in (along, across)]
    c, s = float(cos[best, 0]), float(sin[best, 0])
    u, v = ((low + high) / 2 for low, high in edges)
    return (
        np.array([c * u - s * v, s * u + c * v]),
        (edges[0][1] - edges[0][0], edges[1][1] - edges[1][0]),
        float(TURNS[best]),
    )
