"""The shipped lidar bundle on real KITTI sweeps: it was trained on simulated ones only."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from wm_ros.lidar import Lidar
from wm_ros.paths import bundle_path
from wm_ros.types import EgoPose, Sweep

DATA = Path(os.environ.get("WM_DATA", "../shared/data"))
DRIVE = DATA / "kitti_raw_seq" / "jyunishi_2011_09_26_1430"
pytestmark = pytest.mark.skipif(not DRIVE.is_dir(), reason=f"no real sweeps at {DRIVE}; set WM_DATA")


@pytest.fixture(scope="module")
def sweeps() -> list[np.ndarray]:
    spec = importlib.util.spec_from_file_location("unpack", DATA / "to_kitti_raw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [module.decode(path.read_bytes()) for path in sorted(DRIVE.rglob("*.kmm.xz"))[:6]]


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
