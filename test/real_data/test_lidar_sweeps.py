"""The shipped lidar bundle on real KITTI sweeps: it was trained on simulated ones only."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

from wm_ros.evaluation.replay import evaluate
from wm_ros.lidar import Lidar
from wm_ros.paths import bundle_path
from wm_ros.types import EgoPose, Sweep

DATA = Path(os.environ.get("WM_DATA", "../shared/data"))
DRIVE = DATA / "kitti_raw_seq" / "jyunishi_2011_09_26_1430"
MOVING = DATA / "kitti_raw_seq" / "sfnd3d_2011_09_26"
pytestmark = pytest.mark.skipif(not DRIVE.is_dir(), reason=f"no real sweeps at {DRIVE}; set WM_DATA")


def decoded(folder: Path, count: int) -> list[np.ndarray]:
    spec = importlib.util.spec_from_file_location("unpack", DATA / "to_kitti_raw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [module.decode(path.read_bytes()) for path in sorted(folder.rglob("*.kmm.xz"))[:count]]


@pytest.fixture(scope="module")
def sweeps() -> list[np.ndarray]:
    return decoded(DRIVE, 6)


def test_forecast_of_a_standing_car_finds_the_obstacles_that_stay(sweeps) -> None:
    """The car hardly moves: with poses that stand, what is forecast at 0.1 s must be there 0.1 s later."""
    from wm_ros.lidar.grid import Scan, truth
    from wm_ros.lidar.scoring import average_precision, histograms

    lidar = Lidar.from_bundle(bundle_path("lidar-lite"))
    total, chance = np.zeros(1024), np.zeros(0)
    for tick, points in enumerate(sweeps):
        stamp = tick * 100_000_000
        if tick:
            occupied, scored = truth(Scan.of(points, lidar.config), np.eye(4), lidar.config.occupancy)
            total += histograms(np.log(chance / (1 - chance)), occupied, scored)
        lidar.step(EgoPose(stamp, "odom", "base_link", np.eye(4)))
        said = lidar.step(Sweep(stamp, "velodyne", points))
        assert said is not None and said.occupancy is not None
        assert np.isfinite(said.tokens.tokens).all() and said.tokens.tokens.std() > 0
        chance = said.occupancy.probability[0].clip(1e-6, 1 - 1e-6)
    assert average_precision(total) > 0.6


def test_trained_on_simulation_it_forecasts_a_real_drive_better_than_what_costs_nothing(tmp_path: Path) -> None:
    """The first 45 sweeps of an expressway, the car rolling at about 2 m/s among traffic; ego-motion by kiss-icp."""
    folder = tmp_path / "drive" / "velodyne_points" / "data"
    folder.mkdir(parents=True)
    for number, points in enumerate(decoded(MOVING, 45)):
        points.astype(np.float32).tofile(folder / f"{number:010d}.bin")
    found = evaluate([str(tmp_path / "drive")], tmp_path / "out", names=["lidar"])
    metrics = found.report["capabilities"]["lidar"]["metrics"]
    gain, low, _ = metrics["occupancy_ap@1.0s"]["gains"]["ego_mean5_blur"]
    assert gain > 0.05 and low > 0
    assert metrics["occupancy_ap@1.0s"]["gains"]["logistic"][2] > 0, "not below the logistic regression"
    bce = metrics["occupancy_bce@1.0s"]
    assert bce["value"] < 0.95 * bce["baselines"]["ego_mean5_blur"]
    assert metrics["embedding_rank"]["value"] > 16, "a quarter of the channels"
    assert metrics["masked_cosine_occupied"]["value"] > 0.4 and metrics["masked_cosine_empty"]["value"] > 0.4
    assert metrics["occupied_iou_label_free"]["value"] > 0.3


def test_the_refined_bundle_says_whose_data_it_has_seen() -> None:
    config = json.loads((bundle_path("lidar_kitti") / "config.json").read_text())
    assert "CC BY-NC-SA 3.0" in config["training"]["data_licence"]
    assert "CC BY-NC-SA 3.0" in (bundle_path("lidar_kitti") / "CARD.md").read_text()
    Lidar.from_bundle(bundle_path("lidar_kitti")).warm_up()
