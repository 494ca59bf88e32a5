"""Labelled sweeps become training batches, and the trained head travels in the bundle of its encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from wm_ros.bundle import BundleConfig, TrainingRecord, save_bundle
from wm_ros.lidar import Lidar
from wm_ros.lidar.boxes import points_inside, transformed
from wm_ros.lidar.config import DetectionConfig, EncoderConfig, LidarConfig, OccupancyConfig, VoxelConfig
from wm_ros.lidar.detection import IGNORED
from wm_ros.lidar.model import LidarModel
from wm_ros.training.lidar import LidarTrainConfig
from wm_ros.training.lidar_cache import Sweeps, open_sweeps
from wm_ros.training.lidar_detection import LabelledSweeps, grid_of, report, step_loss
from wm_ros.training.lidar_windows import Augmentation
from wm_ros.types import Detections, Sweep

CONFIG = LidarConfig(
    voxels=VoxelConfig(range_m=(-12.8, -12.8, -3.0, 12.8, 12.8, 1.0)),
    encoder=EncoderConfig(channels=(4, 4, 8, 8), out_channels=4),
    occupancy=OccupancyConfig(cells=64, channels=(8, 8, 8)),
    detection=DetectionConfig(channels=(8, 8)),
    token_grid=4,
)
CONFIGS = Path(__file__).parents[2] / "config" / "train"
SOURCE = "sim:drive?seeds=2-4&seconds=0.4&beams=32&azimuths=600&rate_hz=5"


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    return open_sweeps(SOURCE, CONFIG, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def data(sweeps: Sweeps) -> LabelledSweeps:
    return LabelledSweeps([sweeps], [{0, 1, 2}], CONFIG, augment=True)


@pytest.fixture
def model() -> LidarModel:
    torch.manual_seed(0)
    return LidarModel(CONFIG)


def test_labelled_sweeps_know_their_boxes_and_how_many_points_each_holds(data: LabelledSweeps) -> None:
    assert len(data) == 6
    found = 0
    for index, (number, row) in enumerate(data.rows):
        labels = data.labels(index)
        # The cache keeps points within the encoder's range only: not those of a truck above 1 m.
        near = (np.abs(labels.boxes[:, :2]).max(1) < 9) & (labels.boxes[:, 2] + labels.boxes[:, 5] / 2 < 0.95)
        counted = points_inside(data.sources[number].cloud(row), labels.boxes[near])
        np.testing.assert_allclose(counted, labels.points[near], atol=3, rtol=0.05)  # points are kept to 1/400 m
        found += int(counted.sum())
    assert found > 100


def test_boxes_are_changed_as_their_points_are(data: LabelledSweeps) -> None:
    for seed in range(5):
        change = Augmentation.draw(seed, CONFIG.occupancy.azimuth_bins)
        number, row = data.rows[seed]
        points, boxes = data.sources[number].cloud(row), data.labels(seed).boxes
        before = points_inside(points, boxes)
        after = points_inside(change.points(points), transformed(boxes, change.matrix))
        np.testing.assert_allclose(after, before, atol=2)


def test_objects_with_few_points_are_ignored_in_the_targets(data: LabelledSweeps, model: LidarModel) -> None:
    assert model.detector is not None
    shape, cell_m = grid_of(model.config, model.detector)
    assert shape == (64, 64) and cell_m == pytest.approx(0.4)
    wanted = 0
    for index in range(len(data)):
        labels = data.labels(index)
        inside = np.abs(labels.boxes[:, :2]).max(1) < 12.8
        known = np.array([name != "truck" for name in labels.names], bool)
        _, targets = data.example(index, -1, shape, cell_m)
        assert int(targets.centres.sum()) == int((inside & known & (labels.points >= 5)).sum())
        wanted += int(targets.centres.sum())
    assert wanted > 3 and IGNORED < 0


def test_gradient_reaches_the_encoder_only_where_asked_for(data: LabelledSweeps, model: LidarModel) -> None:
    batch = {"row": torch.tensor([0, 3]), "seed": torch.tensor([5, -1])}
    for finetune in (False, True):
        model.zero_grad()
        loss = step_loss(model, data, batch, finetune)["loss"]
        loss.backward()
        assert torch.isfinite(loss)
        assert all(p.grad is not None for p in model.detector.parameters())
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters()) is finetune


def test_report_names_what_there_is_to_be_found(data: LabelledSweeps, model: LidarModel) -> None:
    figures = report(model.eval(), data, [0, 1, 2])
    assert figures and all(name.startswith("detection_ap_") and 0 <= value <= 100 for name, value in figures.items())


def sweep() -> Sweep:
    random = np.random.default_rng(0)
    points = np.concatenate([random.uniform(-12, 12, (4000, 2)), random.uniform(-2, 0.5, (4000, 1))], 1)
    return Sweep(7, "velodyne", np.concatenate([points, np.zeros((4000, 1))], 1).astype(np.float32))


def test_detections_are_said_only_where_wanted_and_travel_in_the_bundle(model: LidarModel, tmp_path: Path) -> None:
    assert model.detector is not None
    torch.nn.init.constant_(model.detector.heat.bias, 1.0)  # says something without training
    lidar = Lidar(CONFIG, model)
    said = lidar.step(sweep())
    assert said is not None and isinstance(said.detections, Detections) and len(said.detections.labels) > 0
    assert (said.detections.stamp_ns, said.detections.frame_id) == (7, "velodyne")
    assert set(said.detections.labels) <= {"car", "pedestrian", "cyclist"} and "detections" in lidar.timings_ms
    lidar.reset()
    lidar.wanted = {"embedding"}
    quiet = lidar.step(sweep())
    assert quiet is not None and quiet.detections is None and "detections" not in lidar.timings_ms

    record = TrainingRecord(command="", data=[], data_licence="", seed=0, steps=0)
    config = BundleConfig[LidarConfig](capability="lidar", name="test", model=CONFIG, training=record)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    save_bundle(tmp_path / "bundle", config, tensors, "card")
    again = Lidar.from_bundle(tmp_path / "bundle").step(sweep())
    assert again is not None and again.detections is not None
    np.testing.assert_array_equal(again.detections.boxes, said.detections.boxes)


def test_a_bundle_without_the_head_has_no_detections() -> None:
    config = CONFIG.model_copy(update={"detection": None})
    model = LidarModel(config)
    assert model.detector is None and not any(name.startswith("detector") for name in model.state_dict())
    said = Lidar(config, model).step(sweep())
    assert said is not None and said.detections is None


def test_the_head_alone_is_trained_on_the_model_that_ships() -> None:
    whole, alone = (
        LidarTrainConfig.model_validate(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))
        for name in ("lidar", "lidar_detection")
    )
    assert alone.model.detection is not None
    assert alone.model.model_copy(update={"detection": None}) == whole.model  # or --start-from would refuse it
    assert alone.pretrain_share == 0 and alone.detection_share == 1
