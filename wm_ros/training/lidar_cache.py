"""Sweeps and poses of many episodes as compact arrays in files, so that a data set may be larger than memory.

points   (N, 4) int16   x, y, z in 1/400 m and intensity in 1/10000, of points within the encoder's range
band     (M, 3) int16   x, y, z in 1/400 m, points in the obstacle band (80 m fit in ±81.9 m)
reach    (S, bins) float32, poses (S, 4, 4) float64 (sensor in odom), stamps (S,) int64, episode (S,) int64,
point_starts, band_starts, box_starts (S + 1,) int64, labelled (S,) bool: whether anybody said which boxes there are,
boxes    (K, 7) float32, box_labels (K,) str, box_points (K,) int64: points of the sweep inside
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

from wm_ros.data import simulator
from wm_ros.data.sources import Episode, episodes
from wm_ros.errors import UserError
from wm_ros.lidar.boxes import points_inside
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.grid import Double, Scan
from wm_ros.lidar.poses import PoseTrack
from wm_ros.types import Boxes, EgoPose, PictureBoxes, Sweep

STEP_M = 1 / 400
_LAYOUT = 3
_ARRAYS = {"points": (np.int16, (4,)), "band": (np.int16, (3,))}


@dataclass(frozen=True)
class Labels:
    """True boxes of one sweep: (K, 7) in the sensor frame, their labels, and how many of its points each holds."""

    boxes: NDArray[np.float32]
    names: tuple[str, ...]
    points: NDArray[np.int64]


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

    def labels(self, row: int) -> Labels | None:
        """The boxes of a sweep, None where nobody said which there are."""
        if not self.table["labelled"][row]:
            return None
        part = slice(*self.table["box_starts"][row : row + 2])
        names = tuple(str(name) for name in self.table["box_labels"][part])
        return Labels(self.table["boxes"][part], names, self.table["box_points"][part])

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
    """Size and time of a recording, or the simulator's text: the cache of what was replaced is not used."""
    if source.startswith("sim:"):
        files = sorted(Path(simulator.__file__).parent.glob("*.py"))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    path = Path(source.partition("?")[0])
    return (
        str([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(path.iterdir())]) if path.is_dir() else ""
    )


def placed_sweeps(episode: Episode, config: LidarConfig) -> Iterator[tuple[Sweep, Double, Boxes | None]]:
    """Sweeps with the sensor's pose in odom and the true boxes of the same stamp, if any; without a pose left out."""
    boxes: Boxes | None = None
    track = PoseTrack(config.extrapolate_s)
    mounting = np.eye(4)
    mounting[2, 3] = config.sensor_height_m
    for sample in episode.samples():
        if isinstance(sample, EgoPose):
            track.add(sample)
        elif isinstance(sample, Boxes):
            boxes = sample
        elif isinstance(sample, Sweep):
            pose, _ = track.at(sample.stamp_ns)
            if pose is not None:
                of_now = boxes if boxes is not None and boxes.stamp_ns == sample.stamp_ns else None
                yield sample, pose if track.body == sample.frame_id else pose @ mounting, of_now


def _in_picture(points: NDArray[np.float32], boxes: PictureBoxes) -> NDArray[np.bool_]:
    """(N,) which points the labelled picture shows; objects beyond it have no box and would be learned as nothing."""
    u, v, depth = np.einsum("nj,ij->in", points[:, :3], boxes.projection[:, :3]) + boxes.projection[:, 3:]
    width, height = boxes.image_size
    inside: NDArray[np.bool_] = (depth > 0) & (u >= 0) & (u < width * depth) & (v >= 0) & (v < height * depth)
    return inside


def _write(folder: Path, listed: list[Episode], config: LidarConfig, source: str) -> None:
    rows: dict[str, list[Any]] = {name: [] for name in ("reach", "poses", "stamps", "episode")}
    starts = {name: [0] for name in (*_ARRAYS, "boxes")}
    labelled, found = [], [Labels(np.zeros((0, 7), np.float32), (), np.zeros(0, np.int64))]
    low, high = np.asarray(config.voxels.range_m[:3]), np.asarray(config.voxels.range_m[3:])
    with (folder / "points").open("wb") as points_file, (folder / "band").open("wb") as band_file:
        for number, episode in enumerate(listed):
            for sweep, pose, boxes in placed_sweeps(episode, config):
                points = sweep.points[np.isfinite(sweep.points).all(1)]
                if isinstance(boxes, PictureBoxes):
                    points = points[_in_picture(points, boxes)]
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
                labelled.append(boxes is not None)
                if boxes is not None:
                    found.append(Labels(boxes.boxes, boxes.labels, points_inside(points, boxes.boxes)))
                starts["boxes"].append(starts["boxes"][-1] + (0 if boxes is None else len(boxes.labels)))
    if not rows["stamps"]:
        raise UserError(f"source '{source}' has no sweep with odometry; give recordings with points and odom")
    table: dict[str, Any] = {name: np.asarray(values) for name, values in rows.items()}
    table |= {"point_starts": np.asarray(starts["points"]), "band_starts": np.asarray(starts["band"])}
    table |= {
        "box_starts": np.asarray(starts["boxes"]),
        "labelled": np.asarray(labelled),
        "boxes": np.concatenate([labels.boxes for labels in found]),
        "box_labels": np.array([name for labels in found for name in labels.names], str),
        "box_points": np.concatenate([labels.points for labels in found]),
    }
    np.savez(folder / "table.npz", **table)
