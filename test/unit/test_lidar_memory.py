"""A node that runs for hours must not grow."""

from __future__ import annotations

import gc

import numpy as np
import psutil
import torch

from wm_ros.lidar import Lidar
from wm_ros.lidar.config import EncoderConfig, LidarConfig, OccupancyConfig, VoxelConfig
from wm_ros.lidar.model import LidarModel
from wm_ros.types import EgoPose, Sweep

CONFIG = LidarConfig(
    voxels=VoxelConfig(range_m=(-12.8, -12.8, -3.0, 12.8, 12.8, 1.0)),
    encoder=EncoderConfig(channels=(4, 4, 8, 8), out_channels=4),
    occupancy=OccupancyConfig(cells=64, channels=(8, 8, 8)),
    token_grid=4,
)


def test_memory_does_not_grow_between_the_200th_and_the_1000th_sweep() -> None:
    rng = np.random.default_rng(0)
    sweeps = [rng.uniform([-12, -12, -1.7, 0], [12, 12, 0.8, 1], (2000 + 100 * i, 4)) for i in range(10)]
    torch.manual_seed(0)
    lidar = Lidar(CONFIG, LidarModel(CONFIG))
    resident = {}
    for tick in range(1, 1001):
        stamp_ns, here = tick * 100_000_000, np.eye(4)
        here[0, 3] = 0.5 * tick
        lidar.step(EgoPose(stamp_ns, "odom", "base_link", here))
        said = lidar.step(Sweep(stamp_ns, "lidar", sweeps[tick % len(sweeps)].astype(np.float32)))
        assert said is not None and said.occupancy is not None
        if tick in (200, 1000):
            gc.collect()
            resident[tick] = psutil.Process().memory_info().rss
    grown_mb = (resident[1000] - resident[200]) / 2**20
    assert grown_mb < 5, f"{grown_mb:.1f} MB more after 800 sweeps"  # a leaked sweep each time would be 30 MB
