"""Sweeps and poses of many episodes as compact arrays in files, so that a data set may be larger than memory.

points   (N, 4) int16   x, y, z in 1/400 m and intensity in 1/10000, of points within the encoder's range
band     (M, 3) int16   x, y, z in 1/400 m, points in the obstacle band (80 m fit in ±81.9 m)
reach    (S, bins) float32, poses (S, 4, 4) float64 (sensor in odom), stamps (S,) int64, episode (S,) int64,
point_starts, band_starts (S + 1,) int64
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.sources import Episode, episodes
from wm_ros.errors import UserError
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.grid import Double, Scan
from wm_ros.lidar.poses import PoseTrack
from wm_ros.types import EgoPose, Sweep

STEP_M = 1 / 400
_LAYOUT = 1
_ARRAYS = {"points": (np.int16, (4,)), "band": (np.int16, (3,))}


@dataclass(frozen=True)
class Sweeps:
    """One source, opened; the arrays are described at the top of this file."""

    points: NDArray[np.int16]
    band: NDArray[np.int16]
    table: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.table["stamps"])

    def cloud(self, row: int) -> NDArray[np.float32]:
        """(N, 4) points of a sweep."""
        begin, end = self.table["point_starts"][row : row + 2]
        whole = self.points[begin:end].astype(np.float32)
        return whole * np.array([STEP_M, STEP_M, STEP_M, 1e-4], np.float32)

    def scan(self, row: int) -> Scan:
        begin, end = self.table["band_starts"][row : row + 2]
        return Scan(self.band[begin:end].astype(np.float32) * np.float32(STEP_M), self.table["reach"][row])

    def pose(self, row: int) -> Double:
        pose: Double = self.table["poses"][row]
        return pose


def open_sweeps(source: str, config: LidarConfig, cache: Path) -> Sweeps:
    """Read `source` into the cache, or open it where that was done. Raises UserError if nothing in it can be used."""
    key = json.dumps([_LAYOUT, source, config.voxels.model_dump(), config.occupancy.model_dump(), _code_of(source)])
    folder = cache / f"sweeps-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not (folder / "table.npz").is_file():
        part = folder.with_suffix(f".{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(part, episodes(source), config, source)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    with np.load(folder / "table.npz") as file:
        table = dict(file)
    arrays = {
        name: np.memmap(folder / name, dtype, "r").reshape(-1, *shape) for name, (dtype, shape) in _ARRAYS.items()
    }
    return Sweeps(arrays["points"], arrays["band"], table)


def _code_of(source: str) -> str:
    """Size and time of a recording: the cache of a file that was replaced is not used."""
    path = Path(source.partition("?")[0])
    return (
        str([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(path.iterdir())]) if path.is_dir() else ""
    )


def placed_sweeps(episode: Episode, config: LidarConfig) -> Iterator[tuple[Sweep, Double]]:
    """Sweeps with the sensor's pose in odom; those whose pose is unknown are left out."""
    track = PoseTrack(config.extrapolate_s)
    mounting = np.eye(4)
    mounting[2, 3] = config.sensor_height_m
    for sample in episode.samples():
        if isinstance(sample, EgoPose):
            track.add(sample)
        elif isinstance(sample, Sweep):
            pose, _ = track.at(sample.stamp_ns)
            if pose is not None:
                yield sample, pose if track.body == sample.frame_id else pose @ mounting


def _write(folder: Path, listed: list[Episode], config: LidarConfig, source: str) -> None:
    rows: dict[str, list[Any]] = {name: [] for name in ("reach", "poses", "stamps", "episode")}
    starts = {name: [0] for name in _ARRAYS}
    low, high = np.asarray(config.voxels.range_m[:3]), np.asarray(config.voxels.range_m[3:])
    with (folder / "points").open("wb") as points_file, (folder / "band").open("wb") as band_file:
        for number, episode in enumerate(listed):
            for sweep, pose in placed_sweeps(episode, config):
                points = sweep.points[np.isfinite(sweep.points).all(1)]
                near = points[((points[:, :3] >= low) & (points[:, :3] < high)).all(1)]
                scan = Scan.of(points, config)
                scale = np.array([1 / STEP_M] * 3 + [1e4])
                for name, file, values in (
                    ("points", points_file, near * scale),
                    ("band", band_file, scan.band * scale[:3]),
                ):
                    file.write(np.round(values).clip(-32767, 32767).astype(np.int16).tobytes())
                    starts[name].append(starts[name][-1] + len(values))
                for name, value in zip(rows, (scan.reach_m, pose, sweep.stamp_ns, number), strict=True):
                    rows[name].append(value)
    if not rows["stamps"]:
        raise UserError(f"source '{source}' has no sweep with odometry; give recordings with points and odom")
    table: dict[str, Any] = {name: np.asarray(values) for name, values in rows.items()}
    table |= {"point_starts": np.asarray(starts["points"]), "band_starts": np.asarray(starts["band"])}
    np.savez(folder / "table.npz", **table)
