"""Road users found in the BEV map, after CenterPoint (Yin et al. 2021, arXiv 2006.11275): centres are peaks of a heat
map per class, and size, height and heading are read off at the peak.

Differences to the paper: one stage; one regression for all classes; a small U-Net instead of the paper's 2D backbone;
the bell around a centre has half the object's width as its radius; the box is also learned at the eight cells around a
centre, so that a peak one cell off still gives the right box. Which end of a car is its front is often not to be seen,
and the best guess at a sine and cosine that may have either sign is no direction at all; so the axis is learned too, as
sine and cosine of twice the yaw, and the plain ones only choose between its two ends.

Vans count as cars (KITTI ignores both a missed and a found van). Trucks and whatever else has a box are ignored: no
centre, and no cost for a peak on them. The same holds for objects with too few points to be seen.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wm_ros.lidar import boxes as geometry
from wm_ros.lidar.config import DetectionConfig

BOX_VALUES = 10
"""Offset x, y (cells from the cell's centre), z (m), log of length, width, height (m), sin and cos of the yaw, and of
twice the yaw."""
SAME_AS = {"van": "car", "person_sitting": "pedestrian"}
START_BOX = (0.0, 0.0, -0.9, 1.0, 0.2, 0.5, 0.0, 0.0, 0.0, 0.0)  # before training: between a car and a pedestrian
BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2, 1.0, 1.0)  # the front of many objects cannot be known
START_SCORE = 0.02  # of every cell before training, so that the many empty cells do not drown the first steps
IGNORED = -1
MAX_LOG_SIZE = 3.5  # about 33 m: a wild value stays a number


@dataclass(frozen=True)
class Found:
    """Detections of one sweep by falling score. `boxes`: (N, 7) float32; `scores`: (N,) float32; `classes`: (N,)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


class DetectionHead(nn.Module):
    """BEV map (B, C, rows, columns) → heat-map logits (B, K, 2 rows, 2 columns) and box values (B, 10, 2 rows, …).

    Args:
        bev_channels: of the map. bev_cell_m: edge of its cells; the outputs' cells are half of it.
    """

    def __init__(self, config: DetectionConfig, bev_channels: int, bev_cell_m: float) -> None:
        super().__init__()
        self.config, self.cell_m = config, bev_cell_m / 2
        fine, coarse = config.channels
        self.stem = _layer(bev_channels, fine, kernel=1)
        self.down = nn.Sequential(_layer(fine, coarse, 2), _layer(coarse, coarse), _layer(coarse, coarse))
        self.up = nn.Conv2d(coarse, fine, 1)
        self.shared = _layer(fine, fine)
        # The four cells under a cell of the map are channels of a 1 × 1 convolution.
        self.heat = nn.Conv2d(fine, 4 * len(config.classes), 1)
        self.box = nn.Conv2d(fine, 4 * BOX_VALUES, 1)
        assert self.heat.bias is not None
        nn.init.constant_(self.heat.bias, float(np.log(START_SCORE / (1 - START_SCORE))))
        self.box.bias = nn.Parameter(torch.tensor(START_BOX).repeat_interleave(4))

    def forward(self, bev: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.stem(bev)
        coarse = F.interpolate(self.up(self.down(fine)), fine.shape[2:], mode="nearest")
        shared = self.shared(fine + coarse)
        return F.pixel_shuffle(self.heat(shared), 2), F.pixel_shuffle(self.box(shared), 2)

    def fused(self) -> DetectionHead:
        """A copy for inference whose normalisation is part of its convolutions: the same, in less time."""
        copy = deepcopy(self).eval()
        for layer in (copy.stem, *copy.down, copy.shared):
            convolution, normalisation, _ = layer
            layer[0] = fuse_conv_bn_eval(convolution, normalisation)
            layer[1], layer[2] = nn.Identity(), nn.ReLU(inplace=True)
        return copy

    @torch.inference_mode()
    def detect(self, bev: Tensor) -> Found:
        """The detections in one BEV map (1, C, rows, columns)."""
        heat, values = self(bev)
        return decode(heat[0], values[0], self.config, self.cell_m)


def _layer(channels_in: int, channels_out: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def class_of(label: str, config: DetectionConfig) -> int:
    """Index in `config.classes` of a label as sources write it; -1 for what has a box but no class here."""
    name = SAME_AS.get(label.lower(), label.lower())
    return config.classes.index(name) if name in config.classes else IGNORED


# ----------------------------------------------------------------------------- out


def decode(heat: Tensor, values: Tensor, config: DetectionConfig, cell_m: float) -> Found:
    """Peaks of the heat maps as boxes, without doubles.

    Args:
        heat: (K, H, W) logits. values: (10, H, W). cell_m: edge of their cells; the sensor is in the middle of the map.
    """
    floor = float(np.log(config.min_score / (1 - config.min_score)))
    classes, rows, columns = _peaks(heat.float().cpu().numpy(), floor)
    logits = heat[classes, rows, columns].double().cpu().numpy()
    said = values[:, rows, columns].T.double().cpu().numpy()
    place = np.stack([columns, rows], 1)
    kinds, shape = classes, np.array([heat.shape[2], heat.shape[1]])
    best = np.lexsort((*place.T, kinds, -logits))[: 4 * config.max_boxes]
    best = best[np.isfinite(said[best]).all(1) & np.isfinite(logits[best])]
    logits, said, place, kinds = logits[best], said[best], place[best], kinds[best]
    centre = (place + 0.5 + said[:, :2] - shape / 2) * cell_m
    size = np.exp(np.clip(said[:, 3:6], -MAX_LOG_SIZE, MAX_LOG_SIZE))
    axis = np.arctan2(said[:, 8], said[:, 9]) / 2
    forward = np.cos(axis) * said[:, 7] + np.sin(axis) * said[:, 6] >= 0
    yaw = np.where(forward, axis, np.where(axis > 0, axis - np.pi, axis + np.pi))
    found = np.concatenate([centre, said[:, 2:3], size, yaw[:, None]], 1).astype(np.float32)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    stay = [np.flatnonzero(kinds == k) for k in range(len(config.classes))]
    kept = np.concatenate([own[geometry.suppress(found[own], scores[own], config.max_iou)] for own in stay])
    kept = kept[geometry.order(scores[kept], found[kept])][: config.max_boxes]
    return Found(found[kept], scores[kept], kinds[kept].astype(np.int64))


def _peaks(heat: NDArray[np.float32], floor: float) -> tuple[NDArray[np.int64], ...]:
    """Class, row and column of cells that are at least `floor` and no smaller than any of their eight neighbours."""
    classes, rows, columns = np.nonzero(heat >= floor)
    around = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    best = np.max([around[classes, rows + r, columns + c] for r, c in np.ndindex(3, 3)], 0)
    peak = heat[classes, rows, columns] == best
    return classes[peak], rows[peak], columns[peak]


# ----------------------------------------------------------------------------- in


@dataclass(frozen=True)
class Targets:
    """What the head should say of one sweep, on its grid of H × W cells.

    Attributes:
        heat: (K, H, W) float32, 1 at centres, a bell around them. weight: (H, W) float32, 0 over ignored objects.
        cells: (M,) int64 flat cells at which a box is learned. values: (M, 10) float32 of these boxes.
        centres: (K,) int64 how many objects of each class there are.
    """

    heat: NDArray[np.float32]
    weight: NDArray[np.float32]
    cells: NDArray[np.int64]
    values: NDArray[np.float32]
    centres: NDArray[np.int64]


def make_targets(
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    shape: tuple[int, int],
    cell_m: float,
    config: DetectionConfig,
) -> Targets:
    """Targets of one sweep.

    Args:
        boxes: (N, 7). classes: (N,), -1 to ignore. shape: cells along y, x; the sensor is in the middle.
    """
    height, width = shape
    heat = np.zeros((len(config.classes), height, width), np.float32)
    weight = np.ones(shape, np.float32)
    y, x = np.mgrid[:height, :width]
    cells: dict[int, NDArray[np.float32]] = {}
    centres = np.zeros(len(config.classes), np.int64)
    # Far ones first: where two objects ask for the same cell, the nearer one has it.
    for i in np.argsort(-np.hypot(boxes[:, 0], boxes[:, 1]), kind="stable"):
        box = boxes[i].astype(np.float64)
        place = box[:2] / cell_m + np.array([width, height]) / 2
        column, row = (int(np.floor(p)) for p in place)
        if classes[i] == IGNORED:
            weight[_footprint(box, x, y, shape, cell_m)] = 0.0
            continue
        if not (0 <= column < width and 0 <= row < height):
            continue
        centres[classes[i]] += 1
        radius = max(config.min_radius_cells, int(min(box[3:5]) / 2 / cell_m))
        sigma = (2 * radius + 1) / 6
        part = np.s_[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
        bell = np.exp(-((y[part] - row) ** 2 + (x[part] - column) ** 2) / (2 * sigma**2)).astype(np.float32)
        map_ = heat[classes[i]]
        map_[part] = np.maximum(map_[part], bell)
        rest = [box[2], *np.log(box[3:6].clip(1e-2)), *_waves(box[6]), *_waves(2 * box[6])]
        for r, c in np.ndindex(3, 3):
            r, c = row + r - 1, column + c - 1
            if 0 <= r < height and 0 <= c < width:
                offset = place - (c + 0.5, r + 0.5)
                cells[r * width + c] = np.array([*offset, *rest], np.float32)
    weight[(heat > 0).any(0)] = 1.0
    values = np.stack(list(cells.values())) if cells else np.zeros((0, BOX_VALUES), np.float32)
    return Targets(heat, weight, np.array(list(cells), np.int64), values, centres)


def _waves(angle: float) -> tuple[float, float]:
    return float(np.sin(angle)), float(np.cos(angle))


def _footprint(
    box: NDArray[np.float64], x: NDArray[np.int64], y: NDArray[np.int64], shape: tuple[int, int], cell_m: float
) -> NDArray[np.bool_]:
    """(H, W): cells whose centre lies under the box or within a cell of it."""
    dx = (x + 0.5 - shape[1] / 2) * cell_m - box[0]
    dy = (y + 0.5 - shape[0] / 2) * cell_m - box[1]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    along, across = np.abs(cos * dx + sin * dy), np.abs(cos * dy - sin * dx)
    inside: NDArray[np.bool_] = (along <= box[3] / 2 + cell_m) & (across <= box[4] / 2 + cell_m)
    return inside


def detection_loss(heat: Tensor, values: Tensor, targets: list[Targets], config: DetectionConfig) -> dict[str, Tensor]:
    """Penalty-reduced focal loss of each heat map per object of its class, plus L1 of the boxes at their cells.

    Each class counts the same however rare it is: pedestrians are not lost among cars.

    Args:
        heat: (B, K, H, W) logits. values: (B, 10, H, W). targets: B of them.

    Returns:
        `loss`, and its parts `heat_loss` and `box_loss`.
    """
    device = heat.device
    wanted = torch.from_numpy(np.stack([t.heat for t in targets])).to(device)
    weight = torch.from_numpy(np.stack([t.weight for t in targets])).to(device)[:, None]
    heat = heat.float()
    probability, centre = torch.sigmoid(heat), wanted == 1
    hit = F.logsigmoid(heat) * (1 - probability) ** 2
    miss = F.logsigmoid(-heat) * probability**2 * (1 - wanted) ** 4
    objects = torch.from_numpy(np.maximum(sum(t.centres for t in targets), 1)).to(device)
    heat_loss = -((torch.where(centre, hit, miss) * weight).sum((0, 2, 3)) / objects).mean()
    flat = values.float().flatten(2)
    said = torch.cat([flat[b][:, torch.from_numpy(t.cells).to(device)].T for b, t in enumerate(targets)])
    true = torch.from_numpy(np.concatenate([t.values for t in targets])).to(device)
    box_loss = ((said - true).abs() * torch.tensor(BOX_WEIGHTS, device=device)).sum() / max(len(true), 1)
    return {"loss": heat_loss + config.box_weight * box_loss, "heat_loss": heat_loss, "box_loss": box_loss}
