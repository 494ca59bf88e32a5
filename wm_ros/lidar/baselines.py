"""What costs nothing and is strong: the last sweep, the mean of five, its blur, and a logistic regression per cell.

The features of the regression are also what the forecast head sees, and its logit is where the head starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.lidar.config import OccupancyConfig
from wm_ros.lidar.grid import Double, Scan, cells, moved, raster, visible

Array = NDArray[np.float32]
NAMES = ("hold", "ego_hold", "ego_mean5", "ego_mean5_blur", "logistic")
SCALES = (0.0, 0.5, 1.0, 2.0, 4.0)  # cells
FEATURES = 2 * len(SCALES) + 6 + 1  # 17, the constant included
BLUR_CELLS = 0.5


@dataclass(frozen=True)
class Past:
    """The last sweeps, newest first, in the frame of the newest.

    Attributes:
        occupied: (S, cells, cells) float32 0 or 1. visible: likewise. newest: the newest sweep itself.
    """

    occupied: Array
    visible: Array
    newest: Scan

    @classmethod
    def of(cls, scans: Sequence[Scan], here_from_there: Sequence[Double], grid: OccupancyConfig) -> Past:
        """Move sweeps (newest first) into the frame of the newest; its own transform is the identity."""
        occupied = [raster(moved(s.band, t), grid) for s, t in zip(scans, here_from_there, strict=True)]
        seen = [visible(s.reach_m, np.linalg.inv(t), grid) for s, t in zip(scans, here_from_there, strict=True)]
        return cls(np.stack(occupied).astype(np.float32), np.stack(seen).astype(np.float32), scans[0])

    @property
    def hold(self) -> Array:
        return self.occupied[0]

    @property
    def mean(self) -> Array:
        return np.asarray(self.occupied.mean(0), np.float32)


def blur(image: Array, sigma_cells: float) -> Array:
    """Gaussian, zeros outside the grid."""
    if not sigma_cells:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_cells, borderType=cv2.BORDER_CONSTANT), np.float32)


def features(past: Past, height_offset_m: float, grid: OccupancyConfig) -> Array:
    """(17, cells, cells): occupancy and mean at five scales, maximum height, density, visibility, and a constant.

    Args:
        height_offset_m: from the sensor down to the bottom of the band (negative z becomes a height above it).
    """
    hold, mean = past.hold, past.mean
    place, on_grid = cells(past.newest.band, grid)
    count = np.bincount(place, minlength=grid.cells**2).astype(np.float32)
    top = np.zeros(grid.cells**2, np.float32)
    np.maximum.at(top, place, past.newest.band[on_grid, 2] + np.float32(height_offset_m))
    density = np.log1p(count).reshape(grid.cells, grid.cells)
    height = top.reshape(grid.cells, grid.cells)
    return np.stack(
        [
            *(blur(hold, scale) for scale in SCALES),
            *(blur(mean, scale) for scale in SCALES),
            height,
            blur(height, 1.0),
            density,
            blur(density, 1.0),
            past.visible[0],
            past.visible.mean(0),
            np.ones_like(hold),
        ]
    ).astype(np.float32)


def fit_logistic(rows: Double, target: Double, ridge: float = 1e-3, steps: int = 12) -> Double:
    """Newton's method for a logistic regression with a small ridge; `rows` (N, F) hold their own constant."""
    weight = np.zeros(rows.shape[1])
    for _ in range(steps):
        probability = 1.0 / (1.0 + np.exp(-np.clip(rows @ weight, -30, 30)))
        curvature = np.maximum(probability * (1 - probability), 1e-6)
        hessian = rows.T @ (rows * curvature[:, None]) / len(rows) + ridge * np.eye(rows.shape[1])
        weight -= np.linalg.solve(hessian, rows.T @ (probability - target) / len(rows) + ridge * weight)
    return weight


def logit(probability: Array, floor: float = 0.01) -> Array:
    """A score in 0..1 on the scale of log-odds, finite at 0 and 1."""
    return np.log((probability + floor) / (1 - probability + floor)).astype(np.float32)


def scores(past: Past, feature: Array, logistic: Array, horizon: int) -> dict[str, Array]:
    """Log-odds (cells, cells) of the baselines that need no future; `logistic`: (K, 17). `hold` needs the ego-motion
    to come to be put into the frame of the forecast, so it is not here."""
    return {
        "ego_hold": logit(past.hold),
        "ego_mean5": logit(past.mean),
        "ego_mean5_blur": logit(blur(past.mean, BLUR_CELLS)),
        "logistic": np.einsum("f,fyx->yx", logistic[horizon], feature),
    }
