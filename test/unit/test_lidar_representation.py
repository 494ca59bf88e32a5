"""Figures of an embedding: right on data whose answer is known, and there in what `wm eval` says."""

from __future__ import annotations

import numpy as np
import torch

from wm_ros.lidar import representation
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.knn import Bank, cell_classes


def test_effective_rank_counts_the_directions_that_matter() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(20_000, 3)) @ rng.normal(size=(3, 12))
    whole = rng.normal(size=(20_000, 12))
    assert representation.rank_of(representation.moments(flat)) < 3.01
    assert representation.rank_of(representation.moments(whole)) > 11.9
    one = representation.moments(np.outer(rng.normal(size=500), np.ones(12)))
    assert abs(representation.rank_of(one) - 1) < 1e-3


def test_moments_of_parts_add_up_and_agree_with_the_torch_version() -> None:
    rows = np.random.default_rng(1).normal(size=(900, 6)) * [1, 2, 3, 4, 5, 6] + 7
    together = representation.moments(rows[:300]) + representation.moments(rows[300:])
    np.testing.assert_allclose(representation.covariance(together), np.cov(rows.T, bias=True), rtol=1e-9)
    assert abs(representation.rank_of(together) - float(representation.effective_rank(torch.from_numpy(rows)))) < 0.01
    assert abs(representation.spread_of(together) - rows.std(0).mean()) < 1e-9


def test_neighbours_of_clear_classes_are_right_and_of_none_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(3, 8) * 4
    classes = torch.arange(300) % 3
    bank = centres[classes] + torch.randn(300, 8, generator=generator)
    rows = centres[classes] + torch.randn(300, 8, generator=generator)
    assert (representation.nearest_classes(rows, bank, classes) == classes).float().mean() > 0.9
    shuffled = classes[torch.randperm(300, generator=generator)]
    assert (representation.nearest_classes(rows, bank, shuffled) == classes).float().mean() < 0.5


def test_cells_take_the_class_of_the_box_that_holds_their_centre() -> None:
    boxes = np.array([[10.0, 5.0, 0, 4.0, 2.0, 1.5, np.pi / 2], [-8.0, 0.0, 0, 1.0, 1.0, 1.7, 0.3]], np.float32)
    classes = cell_classes(boxes, ("van", "Pedestrian"), LidarConfig())
    side, cell_m = len(classes), 0.8
    row, column = int(5.0 / cell_m + side / 2), int(10.0 / cell_m + side / 2)
    assert classes[row, column] == 1
    assert 0.7 * 8 / cell_m**2 < (classes == 1).sum() < 1.4 * 8 / cell_m**2
    assert (classes == 2).sum() >= 1
    turned = cell_classes(boxes[:1] * [1, 1, 1, 1, 1, 1, 0], ("car",), LidarConfig())
    assert (turned == 1).any(1).sum() < (classes == 1).any(1).sum(), "turned by 90° it is longer along y"


def test_a_bank_holds_every_class_that_was_met_and_is_none_without_road_users() -> None:
    rng = np.random.default_rng(0)
    embedding = rng.random((4, 16, 16)).astype(np.float32) + 0.1
    classes = np.zeros((16, 16), np.int64)
    empty = Bank(0)
    empty.add(embedding, classes)
    assert empty.arrays() is None
    classes[3:5, 3:6] = 1
    bank = Bank(0)
    bank.add(embedding, classes)
    found = bank.arrays()
    assert found is not None
    assert np.bincount(found[1]).tolist() == [40, 6]
