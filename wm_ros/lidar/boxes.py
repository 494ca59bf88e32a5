"""Geometry of upright boxes seen from above: overlap, suppression of doubles, points inside. Exact and repeatable.

A box is a row of seven: centre x, y, z, length (along its heading), width, height in metres, and yaw in radians from
x towards y, in a frame with z up. All arithmetic is float64, pair by pair: what is said of two boxes does not depend on
which others are there, on their order or on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes7 = NDArray[np.floating]
Double = NDArray[np.float64]
_TINY = 1e-300
_PAIRS = 200_000  # worked on at a time, so that memory stays bounded


def corners(boxes: Boxes7) -> Double:
    """(N, 7) boxes → (N, 4, 2) x, y of their corners, counter-clockwise from the front left one."""
    rows = _rows(boxes)
    half = rows[:, None, 3:5] / 2 * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return _turned(half, rows[:, 6]) + rows[:, None, :2]


def intersection_area(a: Boxes7, b: Boxes7) -> Double:
    """Area that box a[i] shares with box b[i] seen from above; both (P, 7) → (P,) m².

    By the divergence theorem: in the frame of b the field (clamp(x), 0) inside the strip |y| ≤ width / 2 has divergence
    1 inside of b and 0 elsewhere, so the area is the sum over the four edges of a of ∫ clamp(x) dy. Every edge is a
    closed form; equal, nested, touching and distant boxes need no case of their own.
    """
    a, b = _rows(a), _rows(b)
    here = corners(a) - b[:, None, :2]
    x, y = np.moveaxis(_turned(here, -b[:, 6]), -1, 0)
    half_length, half_width = b[:, None, 3] / 2, b[:, None, 4] / 2
    dx, dy = np.roll(x, -1, 1) - x, np.roll(y, -1, 1) - y
    begin, end = _crossings(y, dy, half_width)
    low, high = _crossings(x, dx, half_length)
    # Between `low` and `high` the edge is inside |x| ≤ length / 2; before and after, x is held at one of the two sides.
    low, high = np.clip(low, begin, end), np.clip(high, begin, end)
    entry = np.where(dx >= 0, -half_length, half_length)
    middle = np.clip(x + dx * (low + high) / 2, -half_length, half_length)
    integral = dy * (entry * (low - begin) + middle * (high - low) - entry * (end - high))
    return np.maximum(integral.sum(1), 0.0)


def bev_iou(a: Boxes7, b: Boxes7) -> Double:
    """Intersection over union seen from above of all pairs: (N, 7), (M, 7) → (N, M)."""
    area_a, area_b = (_rows(x)[:, 3] * _rows(x)[:, 4] for x in (a, b))
    shared = _shared_area(a, b)
    return _ratio(shared, area_a[:, None] + area_b[None, :] - shared)


def iou_3d(a: Boxes7, b: Boxes7) -> Double:
    """Intersection over union of volumes of all pairs: (N, 7), (M, 7) → (N, M)."""
    rows_a, rows_b = _rows(a), _rows(b)
    top = np.minimum.outer(rows_a[:, 2] + rows_a[:, 5] / 2, rows_b[:, 2] + rows_b[:, 5] / 2)
    bottom = np.maximum.outer(rows_a[:, 2] - rows_a[:, 5] / 2, rows_b[:, 2] - rows_b[:, 5] / 2)
    shared = _shared_area(a, b) * np.maximum(top - bottom, 0.0)
    volume_a, volume_b = rows_a[:, 3:6].prod(1), rows_b[:, 3:6].prod(1)
    return _ratio(shared, volume_a[:, None] + volume_b[None, :] - shared)


def order(scores: NDArray[np.floating], boxes: Boxes7) -> NDArray[np.int64]:
    """Indices by falling score; equal scores by the boxes' own numbers, so that the order of arrival has no say."""
    rows = _rows(boxes)
    return np.lexsort((*rows.T[::-1], -np.asarray(scores, np.float64)))


def suppress(boxes: Boxes7, scores: NDArray[np.floating], max_iou: float) -> NDArray[np.int64]:
    """Rotated non-maximum suppression: indices of the boxes that stay, by falling score.

    A box stays unless one that stays and has a higher score overlaps it by more than `max_iou`, seen from above.
    """
    ranked = order(scores, boxes)
    overlaps = bev_iou(_rows(boxes)[ranked], _rows(boxes)[ranked]) > max_iou
    stays = np.ones(len(ranked), bool)
    for i in range(len(ranked)):
        if stays[i]:
            stays[i + 1 :] &= ~overlaps[i, i + 1 :]
    return ranked[stays]


def points_inside(points: NDArray[np.floating], boxes: Boxes7) -> NDArray[np.int64]:
    """(P, 3 or more) points, (N, 7) boxes → (N,) number of points in each box, faces included."""
    counts = np.zeros(len(boxes), np.int64)
    for i, (x, y, z, length, width, height, yaw) in enumerate(_rows(boxes).tolist()):
        reach = np.hypot(length, width) / 2
        near = points[(np.abs(points[:, 0] - x) <= reach) & (np.abs(points[:, 1] - y) <= reach)]
        dx, dy = near[:, 0] - x, near[:, 1] - y
        cos, sin = np.cos(yaw), np.sin(yaw)
        inside = np.abs(cos * dx + sin * dy) <= length / 2
        inside &= np.abs(cos * dy - sin * dx) <= width / 2
        counts[i] = np.count_nonzero(inside & (np.abs(near[:, 2] - z) <= height / 2))
    return counts


def transformed(boxes: Boxes7, matrix: Double) -> NDArray[np.float32]:
    """Boxes after a similarity of the frame that keeps z upright: (4, 4) turn about z, mirror, scale, shift."""
    rows = _rows(boxes)
    heading = np.stack([np.cos(rows[:, 6]), np.sin(rows[:, 6])], 1)
    heading = np.einsum("nj,ij->ni", heading, matrix[:2, :2])
    centre = np.einsum("nj,ij->ni", rows[:, :3], matrix[:3, :3]) + matrix[:3, 3]
    scale = np.cbrt(abs(np.linalg.det(matrix[:3, :3])))
    yaw = np.arctan2(heading[:, 1], heading[:, 0])
    return np.concatenate([centre, rows[:, 3:6] * scale, yaw[:, None]], 1).astype(np.float32)


# ----------------------------------------------------------------------------- parts


def _rows(boxes: Boxes7) -> Double:
    return np.asarray(boxes, np.float64).reshape(-1, 7)


def _turned(xy: Double, angle: Double) -> Double:
    """(P, K, 2) points turned by (P,) angles."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([cos * xy[..., 0] - sin * xy[..., 1], sin * xy[..., 0] + cos * xy[..., 1]], -1)


def _crossings(start: Double, change: Double, half: Double) -> tuple[Double, Double]:
    """Shares of the way, within 0 and 1, at which start + t · change enters and leaves |value| ≤ half."""
    step = np.where(np.abs(change) < _TINY, _TINY, change)
    with np.errstate(over="ignore"):
        one, other = (-half - start) / step, (half - start) / step
    enter = np.clip(np.minimum(one, other), 0.0, 1.0)
    return enter, np.maximum(np.clip(np.maximum(one, other), 0.0, 1.0), enter)


def _shared_area(a: Boxes7, b: Boxes7) -> Double:
    """(N, M) shared areas; only pairs whose surrounding circles meet are worked out."""
    rows_a, rows_b = _rows(a), _rows(b)
    out = np.zeros((len(rows_a), len(rows_b)))
    radius_a, radius_b = (np.hypot(r[:, 3], r[:, 4]) / 2 for r in (rows_a, rows_b))
    dx = np.subtract.outer(rows_a[:, 0], rows_b[:, 0])
    dy = np.subtract.outer(rows_a[:, 1], rows_b[:, 1])
    i, j = np.nonzero(np.hypot(dx, dy) <= np.add.outer(radius_a, radius_b))
    for at in range(0, len(i), _PAIRS):
        one, other = i[at : at + _PAIRS], j[at : at + _PAIRS]
        out[one, other] = intersection_area(rows_a[one], rows_b[other])
    return out


def _ratio(shared: Double, union: Double) -> Double:
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
