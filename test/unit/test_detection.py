"""The detection head: targets and decoding are inverse, what is ignored costs nothing, and it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm_ros.lidar import boxes as geometry
from wm_ros.lidar.config import DetectionConfig, LidarConfig
from wm_ros.lidar.detection import DetectionHead, class_of, decode, detection_loss, make_targets
from wm_ros.lidar.encoder import BevEncoder

CONFIG = DetectionConfig()
CELL_M = 0.4
SHAPE = (64, 80)  # 25.6 m along y, 32 m along x
BOXES = np.array(
    [
        [6.3, -4.1, -0.9, 4.2, 1.8, 1.5, 0.4],
        [-9.0, 5.0, -0.8, 3.9, 1.7, 1.6, -2.9],
        [3.1, 9.7, -0.7, 0.6, 0.7, 1.8, 1.5],
        [-2.2, -8.8, -0.8, 1.8, 0.6, 1.7, 3.0],
    ],
    np.float32,
)
CLASSES = np.array([0, 0, 1, 2])


def maps(boxes=BOXES, classes=CLASSES):
    """Heat-map logits and box values that say exactly what the targets ask for."""
    targets = make_targets(boxes, classes, SHAPE, CELL_M, CONFIG)
    chance = torch.from_numpy(targets.heat).clamp(1e-4, 1 - 1e-4)
    values = torch.zeros(10, SHAPE[0] * SHAPE[1])
    values[:, targets.cells] = torch.from_numpy(targets.values).T
    return targets, torch.logit(chance), values.reshape(10, *SHAPE)


def test_decoding_the_targets_gives_the_boxes_back() -> None:
    _, heat, values = maps()
    found = decode(heat, values, CONFIG, CELL_M)
    assert len(found.boxes) == len(BOXES)
    for box, kind in zip(BOXES, CLASSES, strict=True):
        overlap = geometry.iou_3d(box[None], found.boxes)[0]
        assert overlap.max() > 0.999 and found.classes[overlap.argmax()] == kind
        assert np.cos(found.boxes[overlap.argmax(), 6] - box[6]) > 0.999  # and it looks the same way


def test_an_unclear_front_does_not_turn_the_box() -> None:
    _, heat, values = maps()
    unclear = values.clone()
    unclear[6:8] *= 0.01
    unclear[6:8] -= 0.02  # the sign is lost: some boxes now look backwards, none is turned
    found = decode(heat, unclear, CONFIG, CELL_M)
    assert (geometry.bev_iou(BOXES, found.boxes).max(1) > 0.999).all()
    assert (found.boxes[:, 6] != decode(heat, values, CONFIG, CELL_M).boxes[:, 6]).any()


def test_equal_maps_give_equal_boxes_and_values_that_are_not_finite_are_left_out() -> None:
    _, heat, values = maps()
    first, second = (decode(heat, values, CONFIG, CELL_M) for _ in range(2))
    np.testing.assert_array_equal(first.boxes, second.boxes)
    place = torch.nonzero(heat[1] == heat[1].max())[0]
    values[2, place[0], place[1]] = float("nan")
    found = decode(heat, values, CONFIG, CELL_M)
    assert np.isfinite(found.boxes).all() and not (found.classes == 1).any()


def test_detections_fall_by_score_and_keep_to_their_number() -> None:
    torch.manual_seed(0)
    config = DetectionConfig(max_boxes=7)
    found = decode(torch.randn(3, *SHAPE), torch.zeros(10, *SHAPE), config, CELL_M)
    assert len(found.scores) == 7 and (np.diff(found.scores) <= 0).all() and found.scores.min() >= config.min_score


def test_the_right_maps_cost_less_than_any_change_of_them() -> None:
    targets, heat, values = maps()

    def loss(h: torch.Tensor, v: torch.Tensor) -> float:
        return float(detection_loss(h[None], v[None], [targets], CONFIG)["loss"])

    best = loss(heat, values)
    assert best < 0.1
    missed, alarm = heat.clone(), heat.clone()
    missed[0, targets.heat[0] == 1] = -5
    alarm[2, 5, 5] = 5
    assert loss(missed, values) > best + 1 and loss(alarm, values) > best + 1 and loss(heat, values + 0.1) > best + 0.5


def test_ignored_objects_are_neither_wanted_nor_forbidden() -> None:
    classes = np.array([0, -1, 1, 2])
    targets = make_targets(BOXES, classes, SHAPE, CELL_M, CONFIG)
    assert targets.centres.tolist() == [1, 1, 1]
    row, column = int(BOXES[1, 1] / CELL_M + SHAPE[0] / 2), int(BOXES[1, 0] / CELL_M + SHAPE[1] / 2)
    assert targets.weight[row, column] == 0 and targets.weight.mean() > 0.95
    heat = torch.full((1, 3, *SHAPE), -4.0)
    shown = heat.clone()
    shown[0, 0, row, column] = 6.0
    values = torch.zeros(1, 10, *SHAPE)
    quiet, loud = (float(detection_loss(h, values, [targets], CONFIG)["heat_loss"]) for h in (heat, shown))
    assert quiet == pytest.approx(loud)


def test_a_sweep_without_objects_has_a_finite_loss() -> None:
    none = make_targets(np.zeros((0, 7), np.float32), np.zeros(0, np.int64), SHAPE, CELL_M, CONFIG)
    loss = detection_loss(torch.zeros(1, 3, *SHAPE), torch.zeros(1, 10, *SHAPE), [none], CONFIG)
    assert torch.isfinite(loss["loss"]) and loss["box_loss"] == 0


def test_labels_of_sources_have_a_class_or_are_ignored() -> None:
    names = ("car", "Car", "van", "Pedestrian", "Person_sitting", "cyclist", "truck", "Tram", "Misc")
    assert [class_of(name, CONFIG) for name in names] == [0, 0, 0, 1, 1, 2, -1, -1, -1]


def test_head_lies_over_the_bev_map_of_the_encoder_and_is_small() -> None:
    encoder = BevEncoder(LidarConfig())
    head = DetectionHead(CONFIG, encoder.bev_channels, encoder.cell_m).eval()
    heat, values = head(torch.zeros(1, encoder.bev_channels, *encoder.bev_shape))
    rows, columns = encoder.bev_shape
    assert heat.shape == (1, 3, 2 * rows, 2 * columns) and values.shape == (1, 10, 2 * rows, 2 * columns)
    assert head.cell_m == pytest.approx(0.4)
    assert sum(p.numel() for p in head.parameters()) < 250_000
    assert torch.sigmoid(heat).max() < 0.1  # before training nothing is said


def test_a_few_steps_teach_it_one_scene() -> None:
    torch.manual_seed(0)
    head = DetectionHead(CONFIG, 8, 2 * CELL_M)
    bev = torch.randn(1, 8, SHAPE[0] // 2, SHAPE[1] // 2)
    targets = make_targets(BOXES, CLASSES, SHAPE, CELL_M, CONFIG)
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        detection_loss(*head(bev), [targets], CONFIG)["loss"].backward()
        optimiser.step()
    found = head.eval().detect(bev)
    overlap = geometry.bev_iou(BOXES, found.boxes)
    assert (overlap.max(1) > 0.7).all()
    assert (found.classes[overlap.argmax(1)] == CLASSES).all() and len(found.boxes) <= 6


def test_the_fused_copy_says_the_same() -> None:
    torch.manual_seed(1)
    head = DetectionHead(CONFIG, 8, 2 * CELL_M)
    for _ in range(3):
        head(torch.randn(2, 8, 32, 40))  # statistics that are not those of the start
    bev = torch.randn(1, 8, 32, 40)
    for ours, theirs in zip(head.eval()(bev), head.fused()(bev), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in head.modules())  # the head itself is as it was
