"""Pictures of a lidar forecast, seen from above: forward is up, left is left."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.lidar.config import OccupancyConfig
from wm_ros.lidar.grid import Scan, raster
from wm_ros.messages.pictures import components_rgb

Image = NDArray[np.uint8]
UNSEEN, FREE, OCCUPIED = (40, 44, 52), (96, 100, 108), (255, 255, 255)
MARGIN = 4


def from_above(grid: NDArray[np.uint8]) -> Image:
    """(rows = y, columns = x, 3) ascending → x up, y to the left."""
    return np.ascontiguousarray(grid.transpose(1, 0, 2)[::-1, ::-1])


def forecast_picture(
    log_odds: list[NDArray[np.float32]], came: dict[int, NDArray[np.uint8]], occupancy: OccupancyConfig
) -> Image:
    """Above the probability at each horizon, below what came: unseen dark, free grey, occupied white."""
    columns = []
    for k, horizon in enumerate(occupancy.horizons_s):
        chance = np.rint(255 / (1 + np.exp(-log_odds[k].astype(np.float64)))).astype(np.uint8)
        above = from_above(np.asarray(cv2.applyColorMap(chance, cv2.COLORMAP_INFERNO)[..., ::-1], np.uint8))
        colours = np.array([UNSEEN, FREE, OCCUPIED], np.uint8)
        below = from_above(colours[came.get(k, np.zeros_like(chance))])
        columns.append(np.concatenate([_titled(above, f"forecast {horizon:g} s"), _titled(below, "came")], 0))
    gap = np.full((len(columns[0]), MARGIN, 3), 255, np.uint8)
    return np.concatenate([part for column in columns for part in (column, gap)][:-1], 1)


def bev_picture(embedding: NDArray[np.float32], scan: Scan, occupancy: OccupancyConfig) -> Image:
    """Three principal components of the embedding as colours, beside the obstacle points of its sweep."""
    colours = components_rgb(embedding)
    side = occupancy.cells
    colours = cv2.resize(colours, (side, side), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    shades = np.where(raster(scan.band, occupancy)[..., None], np.uint8(255), np.uint8(40)).repeat(3, 2)
    gap = np.full((side, MARGIN, 3), 255, np.uint8)
    return np.concatenate([colours, gap, from_above(shades)], 1)


def _titled(image: Image, title: str) -> Image:
    canvas = np.ascontiguousarray(image)
    cv2.putText(canvas, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas
