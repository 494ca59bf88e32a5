"""Overlap of turned boxes against hand-worked cases, a different algorithm, and what must hold for any boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_ros.lidar import boxes as geometry

number = st.floats(-5, 5, allow_subnormal=False)
size = st.floats(0.1, 6)
box = st.tuples(number, number, number, size, size, size, st.floats(-7, 7)).map(np.array)


def upright(x: float, y: float, length: float, width: float, yaw: float = 0.0) -> np.ndarray:
    return np.array([x, y, 0.0, length, width, 1.0, yaw])


@pytest.mark.parametrize(
    ("a", "b", "area"),
    [
        (upright(0, 0, 4, 2), upright(0, 0, 4, 2), 8.0),  # the same
        (upright(0, 0, 4, 2), upright(0, 0, 4, 2, np.pi), 8.0),  # the same, turned round
        (upright(0, 0, 4, 2), upright(0, 0, 4, 2, np.pi / 2), 4.0),  # a cross
        (upright(0, 0, 4, 2), upright(4, 0, 4, 2), 0.0),  # touching
        (upright(0, 0, 4, 2), upright(3, 0, 4, 2), 2.0),  # a shared end
        (upright(0, 0, 4, 4), upright(0.5, -0.5, 1, 1, 0.3), 1.0),  # one inside the other
        (upright(0, 0, 2, 2), upright(0, 0, 2, 2, np.pi / 4), 8 * (np.sqrt(2) - 1)),  # a regular octagon
        (upright(0, 0, 4, 2), upright(30, 0, 4, 2, 1.0), 0.0),  # far away
    ],
)
def test_shared_area_of_hand_worked_pairs(a, b, area) -> None:
    assert geometry.intersection_area(a[None], b[None])[0] == pytest.approx(area, abs=1e-9)


def test_shared_area_agrees_with_polygon_clipping_of_opencv() -> None:
    random = np.random.default_rng(0)
    a, b = (
        np.concatenate(
            [random.uniform(-2, 2, (400, 3)), random.uniform(0.3, 5, (400, 3)), random.uniform(-4, 4, (400, 1))], 1
        )
        for _ in range(2)
    )
    ours = geometry.intersection_area(a, b)
    theirs = [
        cv2.intersectConvexConvex(p.astype(np.float32), q.astype(np.float32))[0]
        for p, q in zip(geometry.corners(a), geometry.corners(b), strict=True)
    ]
    assert (ours > 0.01).mean() > 0.5
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_shared_area_agrees_with_counted_points() -> None:
    a, b = upright(0.3, -0.2, 4.1, 1.8, 0.4), upright(1.0, 0.5, 3.7, 1.6, -0.9)
    points = np.random.default_rng(1).uniform(-4, 4, (400_000, 3)) * [1, 1, 0]

    def within(row: np.ndarray) -> np.ndarray:
        d = points[:, :2] - row[:2]
        along = d @ [np.cos(row[6]), np.sin(row[6])]
        across = d @ [-np.sin(row[6]), np.cos(row[6])]
        return (np.abs(along) <= row[3] / 2) & (np.abs(across) <= row[4] / 2)

    counted = (within(a) & within(b)).mean() * 64
    assert geometry.intersection_area(a[None], b[None])[0] == pytest.approx(counted, rel=0.02)


@given(box, box, number, number, st.floats(-7, 7))
@settings(max_examples=150, deadline=None)
def test_overlap_is_symmetric_bounded_and_does_not_care_where_the_world_begins(a, b, dx, dy, turn) -> None:
    for iou in (geometry.bev_iou, geometry.iou_3d):
        there, back = iou(a[None], b[None])[0, 0], iou(b[None], a[None])[0, 0]
        assert there == pytest.approx(back, abs=1e-9)
        assert -1e-12 <= there <= 1 + 1e-9
        c, s = np.cos(turn), np.sin(turn)
        move = np.array([[c, -s, 0, dx], [s, c, 0, dy], [0, 0, 1, 1.5], [0, 0, 0, 1]])
        moved = [geometry.transformed(x[None], move).astype(np.float64) for x in (a, b)]
        assert iou(*moved)[0, 0] == pytest.approx(there, abs=1e-4)
        assert iou(a[None], a[None])[0, 0] == pytest.approx(1, abs=1e-9)


def test_volume_overlap_counts_heights() -> None:
    low, high = upright(0, 0, 4, 2), upright(0, 0, 4, 2)
    high[2] = 0.5  # half a metre up, both one metre high
    assert geometry.iou_3d(low[None], high[None])[0, 0] == pytest.approx(0.5 / 1.5)
    high[2] = 2.0
    assert geometry.iou_3d(low[None], high[None])[0, 0] == 0
    assert geometry.bev_iou(low[None], high[None])[0, 0] == pytest.approx(1)


def test_suppression_keeps_the_best_of_each_heap_in_any_order() -> None:
    heaps = np.stack([upright(0, 0, 4, 2), upright(0.3, 0, 4, 2, 0.1), upright(10, 0, 4, 2), upright(10.2, 0.1, 4, 2)])
    scores = np.array([0.6, 0.9, 0.5, 0.5])
    kept = heaps[geometry.suppress(heaps, scores, 0.2)]
    np.testing.assert_array_equal(kept, heaps[[1, 2]])
    for shuffle in ([3, 2, 1, 0], [2, 0, 3, 1]):
        np.testing.assert_array_equal(heaps[shuffle][geometry.suppress(heaps[shuffle], scores[shuffle], 0.2)], kept)
    assert len(geometry.suppress(np.zeros((0, 7)), np.zeros(0), 0.2)) == 0


def test_points_inside_a_turned_box() -> None:
    row = np.array([1.0, 2.0, 0.5, 4.0, 2.0, 1.0, np.pi / 2])  # 4 m along y
    points = np.array([[1, 3.9, 0.5], [1, 4.1, 0.5], [2.1, 2, 0.5], [0.1, 0.1, 0.9], [1, 2, 1.1]])
    assert geometry.points_inside(points, row[None]).tolist() == [2]


def test_mirror_turn_and_scale_move_boxes_with_their_points() -> None:
    random = np.random.default_rng(3)
    rows = np.array([[5.0, 2.0, -0.5, 4.0, 1.8, 1.5, 0.7], [-8.0, 3.0, 0.0, 0.8, 0.6, 1.7, -2.0]])
    points = np.concatenate([row[:3] + random.uniform(-1, 1, (500, 3)) * row[3:6] for row in rows])
    c, s = np.cos(0.6), np.sin(0.6)
    change = np.eye(4)
    change[:2, :2] = np.array([[c, -s], [s, c]]) @ np.diag([1, -1])
    change[:3, :3] *= 1.03
    moved = points @ change[:3, :3].T
    before, after = (
        geometry.points_inside(points, rows),
        geometry.points_inside(moved, geometry.transformed(rows, change)),
    )
    assert before.min() > 10
    np.testing.assert_array_equal(before, after)
