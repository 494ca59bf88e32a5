"""R40 against hand-worked cases and the rules of matching."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_ros.lidar.detection_ap import Scene, average_precision, counts, grid_row, pooled_r40


def scene(overlap, scores, found_ignored=None, truth_ignored=None) -> Scene:
    overlap = np.asarray(overlap, float).reshape(len(scores), -1)
    return Scene(
        overlap,
        np.asarray(scores, float),
        np.zeros(len(scores), bool) if found_ignored is None else np.asarray(found_ignored, bool),
        np.zeros(overlap.shape[1], bool) if truth_ignored is None else np.asarray(truth_ignored, bool),
    )


def nothing_found(objects: int) -> Scene:
    return Scene(np.zeros((0, objects)), np.zeros(0), np.zeros(0, bool), np.zeros(objects, bool))


@pytest.mark.parametrize("objects", [1, 3, 7, 40, 130])
def test_perfect_detections_score_100_however_few_objects_there_are(objects) -> None:
    scores = np.random.default_rng(objects).uniform(0.2, 1, objects)
    perfect = [scene(np.eye(objects), scores)]
    assert average_precision(perfect, 0.7) == 100
    assert pooled_r40(grid_row(perfect[0], 0.7)) == 100


def test_no_detection_scores_0_and_no_object_has_no_figure() -> None:
    assert average_precision([nothing_found(5)], 0.7) == 0
    assert np.isnan(average_precision([scene(np.zeros((2, 0)), [0.5, 0.6])], 0.7))
    assert np.isnan(pooled_r40(grid_row(scene(np.zeros((2, 0)), [0.5, 0.6]), 0.7)))


def test_hand_worked_curve() -> None:
    """Four objects; by falling score: hit, false alarm, hit, hit; one object is missed.

    Recall 1/4 at precision 1, 2/4 at 2/3, 3/4 at 3/4; interpolated 1 up to 1/4, then 3/4 up to 3/4, then 0:
    10 points of 1 and 20 of 3/4, over 40.
    """
    overlap = np.zeros((4, 4))
    overlap[0, 0] = overlap[2, 1] = overlap[3, 2] = 0.9
    one = scene(overlap, [0.9, 0.8, 0.7, 0.6])
    expected = 100 * (10 * 1 + 20 * 0.75) / 40
    assert average_precision([one], 0.7) == pytest.approx(expected)
    assert pooled_r40(grid_row(one, 0.7)) == pytest.approx(expected)


def test_an_overlap_of_exactly_the_least_is_no_hit() -> None:
    assert average_precision([scene([[0.7]], [0.9])], 0.7) == 0
    assert average_precision([scene([[0.7001]], [0.9])], 0.7) == 100


def test_ignored_objects_and_detections_neither_help_nor_harm() -> None:
    overlap = [[0.9, 0, 0], [0, 0.9, 0], [0, 0, 0]]
    harmed = scene(overlap, [0.5, 0.9, 0.8], truth_ignored=[False, False, False])
    assert average_precision([harmed], 0.5) < 100
    spared = scene(overlap, [0.5, 0.9, 0.8], found_ignored=[False, False, True], truth_ignored=[False, True, True])
    assert average_precision([spared], 0.5) == 100
    taken_by_ignored = scene([[0.9]], [0.9], found_ignored=[True])
    assert counts(taken_by_ignored, np.array([0.5]), 0.5).tolist() == [[0, 0]]  # neither found nor a false alarm


def test_a_second_detection_of_an_object_is_a_false_alarm() -> None:
    double = scene([[0.9], [0.8]], [0.7, 0.9])
    assert counts(double, np.array([0.6]), 0.5).tolist() == [[1, 1]]
    assert average_precision([double], 0.5) == 100  # at the higher threshold the double is not said
    worse = scene([[0.9], [0.8]], [0.9, 0.7])
    assert counts(worse, np.array([0.8]), 0.5).tolist() == [[1, 0]]


def test_equal_scores_are_said_together() -> None:
    tied = scene([[0.9], [0.0]], [0.5, 0.5])
    assert average_precision([tied], 0.5) == 50
    assert average_precision([scene([[0.0], [0.9]], [0.5, 0.5])], 0.5) == 50


def test_sampling_of_the_kit_is_lower_with_few_objects_and_the_same_with_many() -> None:
    few = [scene(np.eye(9), np.linspace(0.3, 0.9, 9))]
    assert average_precision(few, 0.5, "kit") == pytest.approx(100 * 8 / 40)  # nine thresholds, the first not counted
    random = np.random.default_rng(0)
    many = []
    for _ in range(60):
        overlap = np.diag(random.random(8))
        many.append(scene(overlap, random.random(8) * 0.5 + overlap.diagonal() * 0.5))
    ours, kit = (average_precision(many, 0.4, sampling) for sampling in ("exact", "kit"))
    assert 20 < ours < 90 and ours == pytest.approx(kit, abs=2.5)  # one recall point
    pooled = pooled_r40(sum(grid_row(s, 0.4) for s in many))
    assert pooled == pytest.approx(ours, abs=1.0)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_order_of_detections_objects_and_scenes_does_not_matter(seed) -> None:
    random = np.random.default_rng(seed)
    scenes, shuffled = [], []
    for _ in range(3):
        d, g = random.integers(0, 7), random.integers(1, 5)
        overlap = np.where(random.random((d, g)) < 0.4, random.random((d, g)), 0)
        overlap *= overlap == overlap.max(1, keepdims=True, initial=0)  # real objects stand apart
        scores = random.integers(1, 6, d) / 6
        flags = random.random(d) < 0.2, random.random(g) < 0.2
        scenes.append(scene(overlap, scores, *flags) if d else nothing_found(int(g)))
        rows, columns = random.permutation(d), random.permutation(g)
        moved = Scene(overlap[rows][:, columns], scores[rows], flags[0][rows], flags[1][columns])
        shuffled.append(moved if d else nothing_found(int(g)))
    there, back = average_precision(scenes, 0.3), average_precision(shuffled[::-1], 0.3)
    assert there == back or (np.isnan(there) and np.isnan(back))
