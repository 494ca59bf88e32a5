"""Training of the detection head: labelled sweeps, their targets, and how good the head is on held-out ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wm_ros.errors import UserError
from wm_ros.lidar import boxes as geometry
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.detection import IGNORED, DetectionHead, Targets, class_of, detection_loss, make_targets
from wm_ros.lidar.detection_ap import Scene, average_precision
from wm_ros.lidar.detection_rules import MIN_OVERLAP, Key, scenes
from wm_ros.lidar.encoder import to_sparse
from wm_ros.lidar.model import LidarModel
from wm_ros.lidar.sparse import Sparse
from wm_ros.lidar.voxels import voxelise
from wm_ros.training.lidar_cache import Labels, Sweeps
from wm_ros.training.lidar_windows import Augmentation
from wm_ros.types import Boxes


class LabelledSweeps(Dataset[dict[str, int]]):
    """The sweeps of which somebody said which boxes there are; those without are passed over.

    Args:
        chosen: episodes by number within each source.
    """

    def __init__(self, sources: list[Sweeps], chosen: list[set[int]], config: LidarConfig, augment: bool) -> None:
        self.sources, self.config, self.augment = sources, config, augment
        self.rows = [
            (number, row)
            for number, (sweeps, wanted) in enumerate(zip(sources, chosen, strict=True))
            for row in np.flatnonzero(sweeps.table["labelled"]).tolist()
            if int(sweeps.table["episode"][row]) in wanted
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, int]:
        seed = int(torch.randint(0, 2**31 - 1, ())) if self.augment else -1
        return {"row": index, "seed": seed}

    def labels(self, index: int) -> Labels:
        number, row = self.rows[index]
        labels = self.sources[number].labels(row)
        assert labels is not None
        return labels

    def batch(self, batch: dict[str, Tensor], shape: tuple[int, int], cell_m: float) -> tuple[Sparse, list[Targets]]:
        """Voxels and targets of a batch; boxes are changed as their sweep is.

        Args:
            shape, cell_m: of the head's grid.
        """
        parts = [
            self.example(row, seed, shape, cell_m)
            for row, seed in zip(batch["row"].tolist(), batch["seed"].tolist(), strict=True)
        ]
        return to_sparse([voxels for voxels, _ in parts], self.config.voxels), [targets for _, targets in parts]

    def example(self, index: int, seed: int, shape: tuple[int, int], cell_m: float) -> tuple[Any, Targets]:
        """One of them; a negative seed for no augmentation."""
        detection = self.config.detection
        assert detection is not None
        number, row = self.rows[index]
        change = Augmentation.draw(seed, self.config.occupancy.azimuth_bins)
        labels = self.labels(index)
        classes = np.array([class_of(name, detection) for name in labels.names], np.int64)
        classes[labels.points < detection.min_points] = IGNORED
        boxes = geometry.transformed(labels.boxes, change.matrix)
        voxels = voxelise(change.points(self.sources[number].cloud(row)), self.config.voxels)
        return voxels, make_targets(boxes, classes, shape, cell_m, detection)


def grid_of(config: LidarConfig, detector: DetectionHead) -> tuple[tuple[int, int], float]:
    """(rows, columns) and edge in metres of the head's cells."""
    return (config.occupancy.cells, config.occupancy.cells), detector.cell_m


def step_loss(model: LidarModel, data: LabelledSweeps, batch: dict[str, Tensor], finetune: bool) -> dict[str, Tensor]:
    """The head's loss on a batch; its gradient reaches the encoder only where asked for."""
    detector = model.detector
    assert detector is not None
    sparse, targets = data.batch(batch, *grid_of(model.config, detector))
    device = next(detector.parameters()).device
    with torch.set_grad_enabled(finetune and torch.is_grad_enabled()):
        bev = model.encode(Sparse(sparse.features.to(device), sparse.sites.to(device), sparse.shape, sparse.batch))
    heat, values = detector(bev)
    return detection_loss(heat, values, targets, detector.config)


@torch.no_grad()
def evaluate(model: LidarModel, data: LabelledSweeps, indices: list[int]) -> dict[Key, list[Scene]]:
    """Every chosen sweep as a scene of every figure, which `average_precision` makes of them; the model is in eval."""
    detector = model.detector
    assert detector is not None
    out: dict[Key, list[Scene]] = {}
    for index in indices:
        number, row = data.rows[index]
        labels = data.labels(index)
        voxels = voxelise(data.sources[number].cloud(row), data.config.voxels)
        found = detector.detect(model.encode(to_sparse([voxels], data.config.voxels)))
        names = tuple(detector.config.classes[kind] for kind in found.classes)
        truth = Boxes(0, "", labels.boxes, labels.names, tuple(range(len(labels.names))))
        for key, scene in scenes(truth, labels.points, found.boxes, names, found.scores):
            out.setdefault(key, []).append(scene)
    return out


def report(model: LidarModel, data: LabelledSweeps, indices: list[int]) -> dict[str, float]:
    """R40 average precision in per cent of every class, view and level of which there is something to be found."""
    figures = {
        key.title: average_precision(found, MIN_OVERLAP[key.name])
        for key, found in evaluate(model, data, indices).items()
    }
    return {name: round(value, 2) for name, value in figures.items() if np.isfinite(value)}


class DetectionStage:
    """Detection steps, spread evenly among the forecast's so that both see the whole course of the learning rate.

    Args:
        train, held_out: episodes by number within each source. share: of the steps. examples: for validation.

    Raises:
        UserError: no source says which boxes there are.
    """

    def __init__(
        self,
        sources: list[Sweeps],
        train: list[set[int]],
        held_out: list[set[int]],
        config: LidarConfig,
        share: float,
        examples: int,
    ) -> None:
        self.share = share
        self.train = LabelledSweeps(sources, train, config, augment=True)
        self.held_out = LabelledSweeps(sources, held_out, config, augment=False)
        if not len(self.train) or not len(self.held_out):
            raise UserError(
                f"detection_share is {share:g}, but no source says which boxes there are in both its training and its "
                "validation episodes; add sim:drive or labelled frames, or set it to 0"
            )
        count = min(examples, len(self.held_out))
        self.examples = np.unique(np.linspace(0, len(self.held_out) - 1, count).round().astype(int)).tolist()

    def due(self, step: int) -> bool:
        """Whether step number `step` (from 0) of this part of the training is one of them."""
        return int((step + 1) * self.share) > int(step * self.share)

    def loss(self, model: LidarModel, batch: dict[str, Tensor], finetune: bool) -> dict[str, Tensor]:
        """The head's loss; the seeds of `batch` say which labelled sweeps are drawn."""
        drawn = {"row": batch["seed"] % len(self.train), "seed": batch["seed"]}
        loss = step_loss(model, self.train, drawn, finetune)
        return {"loss": loss["loss"], "detection_heat": loss["heat_loss"], "detection_box": loss["box_loss"]}

    @torch.no_grad()
    def validate(self, model: LidarModel) -> dict[str, float]:
        """Mean losses over held-out sweeps."""
        rows = [
            step_loss(model, self.held_out, {"row": torch.tensor([i]), "seed": torch.tensor([-1])}, False)
            for i in self.examples
        ]
        return {
            f"detection_{part}": float(np.mean([float(r[f"{part}_loss"]) for r in rows])) for part in ("heat", "box")
        }

    def report(self, model: LidarModel) -> dict[str, float]:
        """R40 average precision on all held-out sweeps; see `report`."""
        return report(model, self.held_out, list(range(len(self.held_out))))
