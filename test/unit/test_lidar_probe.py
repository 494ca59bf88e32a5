"""`wm probe`: every start, share and mode is there, and gains are right where the answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wm_ros.lidar import scoring
from wm_ros.lidar.config import EncoderConfig, LidarConfig, OccupancyConfig, VoxelConfig
from wm_ros.training.lidar_probe import ProbeConfig
from wm_ros.training.lidar_probe_run import _gain, run

SMALL = LidarConfig(
    voxels=VoxelConfig(range_m=(-25.6, -25.6, -3, 25.6, 25.6, 1), size_m=(0.4, 0.4, 0.1)),
    encoder=EncoderConfig(channels=(4, 8, 8, 8), out_channels=8),
    occupancy=OccupancyConfig(cells=64, cell_m=0.8, channels=(8, 8)),
)


def counts(better: float, seed: int) -> np.ndarray:
    """(seeds, episodes, 2 · bins) histograms of scores that tell occupied from empty by `better`."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(2 * 6):
        truth = rng.random(400) < 0.2
        score = (rng.normal(size=400) + better * truth).astype(np.float32)
        out.append(scoring.histograms(score, truth, np.ones(400, bool)))
    return np.stack(out).reshape(2, 6, -1)


def test_a_gain_is_nothing_over_itself_and_clear_over_chance() -> None:
    good, chance = counts(2.5, 0), counts(0.0, 1)
    assert _gain(good, good) == (0.0, 0.0, 0.0)
    gain, low, high = _gain(good, chance)
    assert 0.3 < low < gain < high
    worse, worse_low, worse_high = _gain(chance, good)
    assert abs(worse + gain) < 1e-9 and worse_low < worse < worse_high < 0


def test_the_experiment_says_something_of_every_start_share_and_mode(tmp_path: Path) -> None:
    config = ProbeConfig(
        model=SMALL, shares=(0.5, 1.0), seeds=(0,), pretrain_steps=2, probe_steps=2, calibrate=1, every=2, channels=4
    )
    drives = "sim:drive?seeds={}&seconds=1.4&beams=12&azimuths=180"
    for _ in run([drives.format("3-4")], drives.format("5-6"), drives.format("7-8"), None, config, tmp_path):
        pass
    report = json.loads((tmp_path / "probe.json").read_text())
    found = {(row["task"], row["mode"], row["share"]) for row in report["rows"]}
    assert found == {(t, m, s) for t in ("road_user", "occupied_1s") for m in ("frozen", "finetuned") for s in (0.5, 1)}
    for row in report["rows"]:
        for start in ("jepa", "random", "reconstruction"):
            assert 0 < row[start]["ap"] <= 1 and len(row[start]["by_seed"]) == 1
        assert abs(row["gain_over_random"][0] - (row["jepa"]["ap"] - row["random"]["ap"])) < 1e-4
    assert (tmp_path / "probe.md").read_text().count("\n| ") == len(report["rows"])
    assert (tmp_path / "probe.png").stat().st_size > 5000
