"""How detections are scored where a recording says which boxes there are: R40 average precision beside heaps of points.

Keys are `detection_ap_<bev|3d>_<class>_<level>`, in per cent; `wm_ros.lidar.detection_rules` says what counts and
`wm_ros.lidar.clusters` what the baseline does. Rows hold counts at a hundred thresholds, so that sweeps add up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_ros.evaluation.detection_pictures import detection_picture
from wm_ros.evaluation.scorer import Metric
from wm_ros.lidar.boxes import points_inside
from wm_ros.lidar.clusters import detect_clusters
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.detection_ap import grid_row, pooled_r40
from wm_ros.lidar.detection_rules import LEVELS, MIN_OVERLAP, Key, scenes
from wm_ros.lidar.grid import Scan
from wm_ros.types import Boxes, Detections, LidarPrediction, Sample, Sweep


class DetectionScorer:
    """Follows one episode; sweeps, boxes and detections of one stamp belong together, in whatever order they come."""

    def __init__(self, config: LidarConfig) -> None:
        self.config = config
        self._sweep: Sweep | None = None
        self._truth: Boxes | None = None
        self._found: Detections | None = None
        self._rows: dict[Key, dict[str, list[NDArray[np.float32]]]] = {}
        self._picture: NDArray[np.uint8] | None = None
        self._drawn = -1

    def observe(self, sample: Sample) -> None:
        """Take a sweep or true boxes."""
        if isinstance(sample, Sweep) and sample.points.ndim == 2 and sample.points.shape[1] >= 4:
            self._sweep = sample
        elif isinstance(sample, Boxes) and not isinstance(sample, Detections):
            self._truth = sample
        else:
            return
        self._score()

    def predict(self, prediction: LidarPrediction) -> None:
        """Take what the model found."""
        if prediction.detections is not None:
            self._found = prediction.detections
            self._score()

    def metrics(self) -> list[Metric]:
        """A figure for each class, view and level; none where nobody said which boxes there are."""
        return [
            Metric(key.title, "%", "higher", {name: np.stack(rows) for name, rows in methods.items()}, pooled_r40)
            for key, methods in self._rows.items()
        ]

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """The sweep with the most true boxes."""
        return (
            {}
            if self._picture is None
            else {"detections over the sweep, in white what there is to be found": self._picture}
        )

    def _score(self) -> None:
        sweep, truth, found = self._sweep, self._truth, self._found
        if sweep is None or truth is None or found is None:
            return
        if not sweep.stamp_ns == truth.stamp_ns == found.stamp_ns or truth.frame_id != sweep.frame_id:
            return
        self._found = None  # scored once
        points = sweep.points[np.isfinite(sweep.points[:, :4]).all(1)]
        inside = points_inside(points, truth.boxes)
        heaps, names, scores = detect_clusters(Scan.of(points, self.config).band, self.config.sensor_height_m)
        for method, said in (
            ("model", (found.boxes, found.labels, found.scores)),
            ("clusters", (heaps, names, scores)),
        ):
            for key, scene in scenes(truth, inside, *said):
                row = grid_row(scene, MIN_OVERLAP[key.name]).astype(np.float32)
                self._rows.setdefault(key, {}).setdefault(method, []).append(row)
        if len(truth.labels) > self._drawn:
            self._drawn = len(truth.labels)
            self._picture = detection_picture(points, truth.boxes[inside >= LEVELS[-1].min_points], found)
