"""How good the embedding itself is, beside the figures of the heads (`wm_ros.lidar.representation`).

`embedding_rank` and `embedding_std` over occupied cells of all predictions; `knn_accuracy`, the mean over classes,
where a recording says which boxes there are; and where the bundle brings its JEPA predictor, `masked_cosine_occupied`,
`masked_cosine_empty` and `occupied_iou_label_free` of every tenth sweep with half of its cells hidden. BatchNorm then
takes the statistics of that sweep, as in training: half a sweep has others than a whole one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.bundle import select
from wm_ros.evaluation.scorer import Metric
from wm_ros.lidar import representation
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.encoder import to_sparse
from wm_ros.lidar.jepa import Jepa
from wm_ros.lidar.knn import cell_classes
from wm_ros.lidar.model import LidarModel
from wm_ros.lidar.voxels import voxelise
from wm_ros.types import Boxes, Detections, LidarPrediction, Sample, Sweep

EVERY = 10
CELLS = 400  # of a sweep, for the kNN probe
MASKED = ("masked_cosine_occupied", "masked_cosine_empty", "occupied_iou_label_free")


class RepresentationScorer:
    """Follows one episode."""

    def __init__(self, config: LidarConfig, tensors: dict[str, Tensor]) -> None:
        self.config = config
        self._jepa: Jepa | None = None
        state = select(tensors, "jepa")
        if state:
            self._model = LidarModel(config)
            self._model.load_state_dict(select(tensors, "model"))
            self._jepa = Jepa(self._model.encoder)
            self._jepa.load_state_dict(state)
        self._bank, self._classes = tensors.get("baseline.knn_bank"), tensors.get("baseline.knn_classes")
        self._sweep: Sweep | None = None
        self._boxes: Boxes | None = None
        self._moments: list[NDArray[np.float64]] = []
        self._masked: list[NDArray[np.float64]] = []
        self._neighbours: list[NDArray[np.float64]] = []

    def observe(self, sample: Sample) -> None:
        """Take a sweep or true boxes."""
        if isinstance(sample, Sweep) and sample.points.ndim == 2 and sample.points.shape[1] >= 4:
            self._sweep = sample
        elif isinstance(sample, Boxes) and not isinstance(sample, Detections):
            self._boxes = sample

    @torch.no_grad()
    def predict(self, prediction: LidarPrediction) -> None:
        """Take the embedding of the sweep that came last."""
        sweep = self._sweep
        if not prediction.embedding.size or sweep is None or sweep.stamp_ns != prediction.stamp_ns:
            return
        occupied = np.abs(prediction.embedding).sum(0) > 0
        rows = prediction.embedding[:, occupied].T
        turn = len(self._moments)
        self._moments.append(representation.moments(rows))
        if turn % EVERY:
            return
        if self._jepa is not None:
            points = np.asarray(sweep.points[np.isfinite(sweep.points[:, :4]).all(1), :4], np.float32)
            x = to_sparse([voxelise(points, self.config.voxels)], self.config.voxels)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(turn)  # the same masks every time
                found = self._jepa(self._model.encoder, x)
            self._masked.append(np.array([float(found[name]) for name in MASKED]))
        boxes = self._boxes
        if self._bank is not None and self._classes is not None and boxes and boxes.stamp_ns == sweep.stamp_ns:
            classes = cell_classes(boxes.boxes, boxes.labels, self.config)[occupied]
            self._neighbours.append(self._count(rows, classes, turn))

    def _count(self, rows: NDArray[np.float32], classes: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        """(2 · K,) right ones, then all, by class; road users count whole, the background by a sample."""
        assert self._bank is not None and self._classes is not None
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(rows))[:CELLS]
        chosen = np.union1d(chosen, np.flatnonzero(classes))
        said = representation.nearest_classes(
            torch.from_numpy(np.ascontiguousarray(rows[chosen])), self._bank.float(), self._classes.long()
        ).numpy()
        kinds = int(self._classes.max()) + 1
        right = np.bincount(classes[chosen][said == classes[chosen]], minlength=kinds)
        return np.concatenate([right, np.bincount(classes[chosen], minlength=kinds)]).astype(np.float64)

    def metrics(self) -> list[Metric]:
        """Figures of the episode; those that nothing could be said of are absent."""
        found: list[Metric] = []
        if self._moments:
            rows = np.stack(self._moments)
            found.append(Metric("embedding_rank", "", "higher", {"model": rows}, representation.rank_of))
            found.append(Metric("embedding_std", "", "higher", {"model": rows}, representation.spread_of))
        for index, name in enumerate(MASKED if self._masked else ()):
            found.append(Metric(name, "", "higher", {"model": np.stack(self._masked)[:, index : index + 1]}))
        if self._neighbours:
            found.append(Metric("knn_accuracy", "", "higher", {"model": np.stack(self._neighbours)}, _class_mean))
        return found


def _class_mean(total: NDArray[Any]) -> float:
    """Mean accuracy over the classes that there were."""
    right, every = np.split(total, 2)
    return float((right[every > 0] / every[every > 0]).mean())
