"""How `lidar` is scored: its occupancy forecasts against the sweeps that came, beside baselines that see what it sees.

`occupancy_ap`, `occupancy_iou` and `occupancy_bce` at every horizon, over visible cells of the grid around the sensor.
A forecast is scored as soon as the sweep of its time has come, so memory does not grow with the recording. Thresholds
and calibrations are those of the bundle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.bundle import load_bundle, select
from wm_ros.evaluation.detection import DetectionScorer
from wm_ros.evaluation.lidar_pictures import bev_picture, forecast_picture
from wm_ros.evaluation.lidar_representation import RepresentationScorer
from wm_ros.evaluation.scorer import Metric, Scorer, Scores
from wm_ros.lidar import baselines, grid, scoring
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.grid import Double, Scan
from wm_ros.lidar.poses import PoseTrack, is_pose
from wm_ros.types import EgoPose, LidarPrediction, Prediction, Sample, Sweep

TOLERANCE_S = 0.05
PICTURE_EVERY = 10  # forecasts between the ones that may be drawn


@dataclass
class Seen:
    """A sweep and where it was taken; `pose`: sensor in odom, None where unknown."""

    stamp_ns: int
    scan: Scan
    pose: Double | None


@dataclass
class Waiting:
    """A forecast whose time is still to come.

    Attributes:
        scores: (log-odds of) each method, by horizon. due: horizons that are not settled. row: for `results.jsonl`.
        truth: by horizon, 0 where not visible, 1 free, 2 occupied.
    """

    stamp_ns: int
    seen: Seen
    scores: list[dict[str, NDArray[np.float32]]]
    due: set[int] = field(default_factory=set)
    truth: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)


class LidarScorer(Scorer):
    """Follows one episode."""

    name = "lidar"

    def __init__(self, bundle: Path) -> None:
        config, tensors = load_bundle(bundle, self.name, LidarConfig)
        self.config: LidarConfig = config.model
        fitted = {name: value.double().numpy() for name, value in select(tensors, "baseline").items()}
        self._logistic = fitted["logistic"].astype(np.float32)
        self._lines, self._thresholds = fitted["calibration"], fitted["threshold"]
        self._track = PoseTrack(self.config.extrapolate_s)
        self._mounting = np.eye(4)
        self._mounting[2, 3] = self.config.sensor_height_m
        self._recent: deque[Seen] = deque(maxlen=self.config.occupancy.sweeps)
        self._waiting: deque[Waiting] = deque()
        self._sums: dict[str, dict[str, list[NDArray[Any]]]] = {}
        self._rows: list[dict[str, Any]] = []
        self._pictures: dict[str, NDArray[np.uint8]] = {}
        self._drawn = -1.0
        self._detection = DetectionScorer(self.config)
        self._representation = RepresentationScorer(self.config, tensors)

    def observe(self, sample: Sample) -> None:
        """Odometry says where sweeps were taken; a sweep is history for some forecasts and truth for others."""
        self._detection.observe(sample)
        self._representation.observe(sample)
        if isinstance(sample, EgoPose) and is_pose(sample.matrix):
            if not self._track.add(sample):
                self._forget()
        elif isinstance(sample, Sweep) and sample.points.ndim == 2 and sample.points.shape[1] >= 4:
            if self._recent and sample.stamp_ns <= self._recent[-1].stamp_ns:
                self._forget()
            pose, _ = self._track.at(sample.stamp_ns)
            if pose is not None and self._track.body != sample.frame_id:
                pose = pose @ self._mounting
            points = sample.points[np.isfinite(sample.points[:, :4]).all(1)]
            self._recent.append(Seen(sample.stamp_ns, Scan.of(points, self.config), pose))
            self._settle()

    def predict(self, prediction: Prediction) -> None:
        """Keep what every method says now."""
        if not isinstance(prediction, LidarPrediction) or not self._recent:
            return
        self._detection.predict(prediction)
        self._representation.predict(prediction)
        now = self._recent[-1]
        if "embedding" not in self._pictures and prediction.embedding.size:
            picture = bev_picture(prediction.embedding, now.scan, self.config.occupancy)
            self._pictures["embedding (principal components) and the obstacle points of its sweep"] = picture
        if prediction.occupancy is None or now.pose is None or now.stamp_ns != prediction.stamp_ns:
            return
        occupancy = self.config.occupancy
        scans, moves = [], []
        for past in list(self._recent)[::-1]:
            if past.pose is None:
                break
            scans.append(past.scan)
            moves.append(np.linalg.inv(now.pose) @ past.pose)
        past_rasters = baselines.Past.of(scans, moves, occupancy)
        height_m = self.config.sensor_height_m - occupancy.band_m[0]
        feature = baselines.features(past_rasters, height_m, occupancy)
        scores = []
        for k in range(len(occupancy.horizons_s)):
            chance = prediction.occupancy.probability[k].astype(np.float64).clip(1e-7, 1 - 1e-7)
            model = np.log(chance / (1 - chance)).astype(np.float32)
            scores.append({"model": model} | baselines.scores(past_rasters, feature, self._logistic, k))
        waiting = Waiting(prediction.stamp_ns, now, scores, set(range(len(occupancy.horizons_s))))
        waiting.row["stamp_ns"] = prediction.stamp_ns
        self._waiting.append(waiting)

    def finish(self) -> Scores:
        """Figures of all forecasts whose sweep came."""
        while self._waiting:
            self._close(self._waiting.popleft())
        metrics = []
        figures: tuple[tuple[str, str, str, Callable[[NDArray[Any]], float]], ...] = (
            ("occupancy_ap", "", "higher", scoring.average_precision),
            ("occupancy_iou", "", "higher", scoring.ratio),
            ("occupancy_bce", "nat", "lower", scoring.ratio),
        )
        for figure, unit, better, pooled in figures:
            for horizon in self.config.occupancy.horizons_s:
                sums = self._sums.get(f"{figure}@{horizon:.1f}s")
                if sums:
                    statistics = {method: np.stack(rows) for method, rows in sums.items()}
                    metrics.append(Metric(f"{figure}@{horizon:.1f}s", unit, better, statistics, pooled))
        metrics += self._detection.metrics() + self._representation.metrics()
        return Scores(metrics, self._rows, self._pictures | self._detection.pictures())

    # ------------------------------------------------------------------------- parts

    def _forget(self) -> None:
        self._recent.clear()
        while self._waiting:
            self._close(self._waiting.popleft())

    def _settle(self) -> None:
        """Score every forecast for which the newest sweep is the truth; close those for which nothing more comes."""
        newest, tolerance_ns = self._recent[-1], TOLERANCE_S * 1e9
        horizons = self.config.occupancy.horizons_s
        for waiting in self._waiting:
            for k in sorted(waiting.due):
                late_ns = newest.stamp_ns - waiting.stamp_ns - round(horizons[k] * 1e9)
                if abs(late_ns) <= tolerance_ns:
                    self._score(waiting, k, newest)
                if late_ns >= -tolerance_ns:
                    waiting.due.discard(k)
        while self._waiting and not self._waiting[0].due:
            self._close(self._waiting.popleft())

    def _score(self, waiting: Waiting, k: int, there: Seen) -> None:
        if there.pose is None or waiting.seen.pose is None:
            return
        occupancy, horizon = self.config.occupancy, f"{self.config.occupancy.horizons_s[k]:.1f}s"
        move = np.linalg.inv(waiting.seen.pose) @ there.pose
        truth, scored = grid.truth(there.scan, move, occupancy)
        held = grid.raster(grid.moved(waiting.seen.scan.band, move), occupancy)
        said = waiting.scores[k] | {"hold": baselines.logit(held.astype(np.float32))}
        for index, method in enumerate(scoring.METHODS):
            log_odds = scoring.calibrated(said[method], self._lines[index, k])
            statistics: dict[str, NDArray[Any]] = {
                # counts of cells are exact in float32, and a long recording has many rows
                "occupancy_ap": scoring.histograms(said[method], truth, scored).astype(np.float32),
                "occupancy_iou": scoring.overlap(log_odds, self._thresholds[index, k], truth, scored),
                "occupancy_bce": scoring.cross_entropy(log_odds, truth, scored),
            }
            for figure, value in statistics.items():
                self._sums.setdefault(f"{figure}@{horizon}", {}).setdefault(method, []).append(value)
                if method == "model":
                    pooled = scoring.average_precision if figure == "occupancy_ap" else scoring.ratio
                    waiting.row[f"{figure}@{horizon}"] = pooled(value)
        waiting.truth[k] = np.where(scored, np.where(truth, 2, 1), 0).astype(np.uint8)

    def _close(self, waiting: Waiting) -> None:
        """Write the row; draw the forecast during which the car moved farthest of those looked at."""
        if len(waiting.row) == 1:
            return
        if len(self._rows) % PICTURE_EVERY == 0 and waiting.seen.pose is not None and self._recent:
            last = self._recent[-1].pose
            moved_m = 0.0 if last is None else float(np.linalg.norm(last[:2, 3] - waiting.seen.pose[:2, 3]))
            rank = len(waiting.truth) * 1e3 + moved_m
            if rank > self._drawn:
                self._drawn = rank
                picture = forecast_picture([s["model"] for s in waiting.scores], waiting.truth, self.config.occupancy)
                self._pictures["forecast (above) and what came (below)"] = picture
        self._rows.append(waiting.row)


SCORER = LidarScorer
