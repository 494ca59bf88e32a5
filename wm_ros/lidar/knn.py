"""The kNN probe's classes and its bank: embeddings of cells whose class is known, gathered on training data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_ros.lidar.boxes import corners
from wm_ros.lidar.config import LidarConfig

CLASSES = ("background", "vehicle", "pedestrian", "cyclist")
_CLASS_OF = {"car": 1, "van": 1, "truck": 1, "pedestrian": 2, "person_sitting": 2, "cyclist": 3}
PER_CLASS = 400


def cell_classes(boxes: NDArray[np.float32], labels: tuple[str, ...], config: LidarConfig) -> NDArray[np.int64]:
    """(cells / 2, cells / 2) index into `CLASSES` of each BEV cell by the box that its centre lies in, else 0.

    A box smaller than a cell has at least the cell of its middle.
    """
    side = config.occupancy.cells // 2
    line = (np.arange(side) - side // 2 + 0.5) * 2 * config.occupancy.cell_m
    x, y = np.meshgrid(line, line)
    classes = np.zeros((side, side), np.int64)
    middles = np.floor(boxes[:, 1::-1] / (2 * config.occupancy.cell_m)).astype(np.int64) + side // 2
    for corner, label, (row, column) in zip(corners(boxes), labels, middles.tolist(), strict=True):
        edges = np.roll(corner, -1, 0) - corner
        sides = [e[0] * (y - c[1]) - e[1] * (x - c[0]) for e, c in zip(edges, corner, strict=True)]
        inside = np.all([away >= 0 for away in sides], 0) | np.all([away <= 0 for away in sides], 0)
        if 0 <= row < side and 0 <= column < side:
            inside[row, column] = True
        classes[inside] = _CLASS_OF.get(label.lower(), 0)
    return classes


class Bank:
    """Gathers up to `PER_CLASS` cells of each class, drawn by a seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._rows: list[list[NDArray[np.float32]]] = [[] for _ in CLASSES]

    def add(self, embedding: NDArray[np.float32], classes: NDArray[np.int64]) -> None:
        """A BEV map (C, rows, columns) and the classes of its cells; at most 40 cells of a class from each map."""
        occupied = np.abs(embedding).sum(0) > 0
        for kind, rows in enumerate(self._rows):
            found = embedding[:, occupied & (classes == kind)].T
            rows += list(found[self._rng.permutation(len(found))[:40]])

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """(M, C) embeddings and (M,) classes; None where no road user was met."""
        if not any(self._rows[1:]):
            return None
        kept = [[rows[i] for i in self._rng.permutation(len(rows))[:PER_CLASS]] for rows in self._rows]
        classes = np.concatenate([np.full(len(rows), kind) for kind, rows in enumerate(kept)])
        return np.stack([row for rows in kept for row in rows]).astype(np.float32), classes.astype(np.int64)
