"""`lidar` as one object with one `step`: sweeps and odometry in; BEV tokens, embedding and occupancy to come out."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.bundle import load_bundle, load_weights
from wm_ros.capability import Capability
from wm_ros.lidar import baselines
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.encoder import to_sparse
from wm_ros.lidar.grid import Double, Scan
from wm_ros.lidar.model import LidarModel
from wm_ros.lidar.occupancy import rasters, warp
from wm_ros.lidar.poses import PoseTrack, is_pose
from wm_ros.lidar.voxels import voxelise
from wm_ros.types import BevTokens, Detections, EgoPose, LidarPrediction, OccupancyForecast, Sample, Sweep

MAX_GAP_S = 1.0  # a longer silence between sweeps begins a new history


@dataclass(frozen=True)
class Seen:
    """One sweep of the history."""

    stamp_ns: int
    scan: Scan
    bev: Tensor


class Lidar(Capability):
    """Tokens and embedding for every sweep; occupancy only where odometry says how the sensor moved.

    Attributes:
        mounting: (4, 4), the sensor in the body frame of the odometry; by default straight above it. Not used where
            odometry is of the sensor's own frame.
    """

    name = "lidar"
    inputs = (Sweep, EgoPose)
    trigger = Sweep
    optional_outputs = frozenset({"embedding", "detections"})

    def __init__(self, config: LidarConfig, model: LidarModel, device: str = "cpu") -> None:
        super().__init__()
        self.config, self.device = config, torch.device(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self._detector = None if self.model.detector is None else self.model.detector.fused()
        self.mounting = np.eye(4)
        self.mounting[2, 3] = config.sensor_height_m
        self._track = PoseTrack(config.extrapolate_s)
        self._history: deque[Seen] = deque(maxlen=config.occupancy.history)
        self._odometry_refused = ""

    @classmethod
    def from_bundle(cls, path: Path, device: str = "cpu") -> Lidar:
        """Load a bundle that `wm train lidar` wrote. Raises BundleError."""
        config, tensors = load_bundle(path, cls.name, LidarConfig)
        model = LidarModel(config.model)
        load_weights(model, tensors, "model", path)
        return cls(config.model, model, device)

    def reset(self) -> None:
        """Forget sweeps and odometry."""
        self._history.clear()
        self._track.clear()
        self._odometry_refused = self.withheld = ""

    def warm_up(self) -> None:
        """One inference on a made-up ring of points."""
        angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
        radius = 10 + 5 * np.sin(7 * angle)
        height = np.linspace(-1.5, 0.5, len(angle))
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height, 0 * angle], 1).astype(np.float32)
        self.step(EgoPose(0, "odom", "base_link", np.eye(4)))
        self.step(Sweep(0, "lidar", points))
        self.reset()

    def step(self, sample: Sample) -> LidarPrediction | None:
        """Take odometry or a sweep; a prediction for a sweep that can be used."""
        if isinstance(sample, EgoPose):
            self._take_pose(sample)
        elif isinstance(sample, Sweep):
            return self._take_sweep(sample)
        return None

    # ------------------------------------------------------------------------- inputs

    def _take_pose(self, sample: EgoPose) -> None:
        twist = np.concatenate([sample.linear_mps, sample.angular_radps])
        if not is_pose(sample.matrix) or not np.isfinite(twist).all():
            self._odometry_refused = "odometry was refused: its pose is not a finite rotation and translation"
            return
        self._odometry_refused = ""
        if not self._track.add(sample):
            self._history.clear()

    def _take_sweep(self, sample: Sweep) -> LidarPrediction | None:
        begin = time.perf_counter()
        points = _usable(sample.points)
        if points is None:
            self.withheld = f"points of shape {sample.points.shape}, expected (N, 4): x, y, z, intensity"
            return None
        if self._history:
            since_ns = sample.stamp_ns - self._history[-1].stamp_ns
            if since_ns <= 0 or since_ns > MAX_GAP_S * 1e9:
                self._history.clear()
            if since_ns < 0 and (self._track.newest_ns or 0) > sample.stamp_ns + 1e9:
                self._track.clear()
        voxels = voxelise(points, self.config.voxels)
        if not len(voxels.features):
            self.withheld = "no point of the sweep lies within the model's range"
            return None
        voxelised = time.perf_counter()
        with torch.inference_mode():
            bev = self.model.encode(to_sparse([voxels], self.config.voxels, self.device))
            tokens = self.model.tokens(bev)[0].cpu().numpy()
        encoded = time.perf_counter()
        if not np.isfinite(tokens).all():
            self.withheld = "the embedding is not finite"
            return None
        self.timings_ms = {"voxels": (voxelised - begin) * 1e3, "encoder": (encoded - voxelised) * 1e3}
        self._history.append(Seen(sample.stamp_ns, Scan.of(points, self.config), bev))
        occupancy, self.withheld = self._forecast(sample)
        detections = self._detect(sample, bev) if "detections" in self.wanted else None
        embedding = bev[0].cpu().numpy() if "embedding" in self.wanted else np.zeros((0, 0, 0), np.float32)
        said = BevTokens(sample.stamp_ns, sample.frame_id, tokens)
        cell_m = self.model.cell_m
        return LidarPrediction(
            sample.stamp_ns,
            sample.frame_id,
            said,
            embedding,
            cell_m,
            occupancy,
            withheld=self.withheld,
            detections=detections,
        )

    def _detect(self, sweep: Sweep, bev: Tensor) -> Detections | None:
        """Road users, or None where the bundle has no head for them."""
        detector = self._detector
        if detector is None:
            return None
        begin = time.perf_counter()
        found = detector.detect(bev)
        labels = tuple(detector.config.classes[kind] for kind in found.classes)
        self.timings_ms["detections"] = (time.perf_counter() - begin) * 1e3
        numbers = tuple(range(len(labels)))
        return Detections(sweep.stamp_ns, sweep.frame_id, found.boxes, labels, numbers, scores=found.scores)

    # ------------------------------------------------------------------------- forecast

    def _sensor_at(self, stamp_ns: int, frame_id: str) -> tuple[Double | None, str]:
        pose, why = self._track.at(stamp_ns)
        if pose is None:
            return None, self._odometry_refused or why
        return (pose if self._track.body == frame_id else pose @ self.mounting), ""

    def _forecast(self, sweep: Sweep) -> tuple[OccupancyForecast | None, str]:
        """The forecast, or why there is none."""
        begin = time.perf_counter()
        here, why = self._sensor_at(sweep.stamp_ns, sweep.frame_id)
        if here is None:
            return None, why
        grid = self.config.occupancy
        scans, moves, seen = [], [], []
        for past in list(self._history)[::-1]:
            pose, _ = self._sensor_at(past.stamp_ns, sweep.frame_id)
            if pose is None:
                break  # odometry began later: what lies before cannot be placed
            scans.append(past.scan)
            moves.append(np.linalg.inv(here) @ pose)
            seen.append(past)
        recent = baselines.Past.of(scans[: grid.sweeps], moves[: grid.sweeps], grid)
        back_to = [k for k in grid.older if k < len(seen)]
        older = baselines.Past.of([scans[k] for k in back_to], [moves[k] for k in back_to], grid) if back_to else None
        feature = baselines.features(recent, self.config.sensor_height_m - grid.band_m[0], grid)
        back = min(grid.past_embedding, len(seen) - 1)
        rasterised = time.perf_counter()
        with torch.inference_mode():
            there_from_here = torch.from_numpy(np.linalg.inv(moves[back]))[None].to(self.device)
            old = warp(seen[back].bev, there_from_here, self.model.cell_m)
            logits = self.model.head(
                torch.from_numpy(feature)[None].to(self.device),
                torch.from_numpy(rasters(recent, older, grid))[None].to(self.device),
                seen[0].bev,
                old,
            )
            probability = torch.sigmoid(logits)[0].cpu().numpy()
        self.timings_ms |= {
            "rasters": (rasterised - begin) * 1e3,
            "forecast": (time.perf_counter() - rasterised) * 1e3,
        }
        if not np.isfinite(probability).all():
            return None, "the forecast is not finite"
        corner = -grid.cells * grid.cell_m / 2
        return OccupancyForecast(
            sweep.stamp_ns, sweep.frame_id, grid.horizons_s, probability, grid.cell_m, (corner, corner)
        ), ""


def _usable(points: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The finite points of a sweep, or None where it is no list of points."""
    if points.ndim != 2 or points.shape[1] < 4:
        return None
    points = np.asarray(points[:, :4], np.float32)
    finite = np.isfinite(points)
    return points if finite.all() else points[finite.all(1)]
