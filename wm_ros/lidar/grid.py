"""The geometry in which occupancy is forecast and measured: obstacle band, square grid, visibility, ego-motion.

Grids have row = y and column = x, both ascending, around the sensor at the stamp of the forecast. A point belongs to
the band by its height above the road in the frame of its own sweep; then it is moved by odometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.lidar.config import LidarConfig, OccupancyConfig

Double = NDArray[np.float64]


@dataclass(frozen=True)
class Scan:
    """What occupancy needs of one sweep, in its sensor frame.

    Attributes:
        band: (N, 3) float32, x, y, z of the points in the obstacle band.
        reach_m: (azimuth_bins,) float32, how far each direction is seen within the band; bin 0 starts at azimuth 0.
    """

    band: NDArray[np.float32]
    reach_m: NDArray[np.float32]

    @classmethod
    def of(cls, points: NDArray[np.float32], config: LidarConfig) -> Scan:
        """From the (N, 3 or more) points of a sweep, all finite."""
        grid = config.occupancy
        x, y, z = points[:, 0], points[:, 1], points[:, 2]
        ground_m = np.sqrt(x * x + y * y)
        range_m = np.sqrt(ground_m * ground_m + z * z)
        near = (range_m > grid.range_m[0]) & (range_m < grid.range_m[1])
        bottom, top = grid.band_m[0] - config.sensor_height_m, grid.band_m[1] - config.sensor_height_m
        inside = (z >= bottom) & (z <= top)
        # A ray that ends below or above the band is inside up to where it crosses the band's edge.
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(inside, 1.0, np.where(z < bottom, bottom / z, top / z))
        seen_m = ground_m * np.clip(share, 0.0, 1.0)
        bins = azimuth_bin(x[near], y[near], grid.azimuth_bins)
        reach_m = np.zeros(grid.azimuth_bins, np.float32)
        np.maximum.at(reach_m, bins, seen_m[near].astype(np.float32))
        return cls(np.ascontiguousarray(points[near & inside, :3], np.float32), reach_m)


def azimuth_bin(x: NDArray[Any], y: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """Bin of a direction, counter-clockwise from +x."""
    turn = np.arctan2(y, x) * (bins / (2 * np.pi))
    return np.where(turn < 0, turn + bins, turn).astype(np.int64).clip(0, bins - 1)


def moved(xyz: NDArray[np.float32], to_here: Double) -> NDArray[np.float32]:
    """(N, 3) points of another frame in this one; `to_here`: (4, 4)."""
    turn, shift = to_here[:3, :3].astype(np.float32), to_here[:3, 3].astype(np.float32)
    x, y, z = np.ascontiguousarray(xyz.T)
    out = np.empty_like(xyz)
    for axis in range(3):  # by hand: no BLAS, the same bytes at any thread count, and quicker than einsum
        out[:, axis] = x * turn[axis, 0] + y * turn[axis, 1] + z * turn[axis, 2] + shift[axis]
    return out


def cells(xyz: NDArray[np.float32], grid: OccupancyConfig) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Flat cell of each point (row-major), and which points lie on the grid."""
    column, row = (np.floor(xyz[:, i] / np.float32(grid.cell_m)).astype(np.int64) + grid.cells // 2 for i in (0, 1))
    on_grid = (column >= 0) & (column < grid.cells) & (row >= 0) & (row < grid.cells)
    return row[on_grid] * grid.cells + column[on_grid], on_grid


def raster(xyz: NDArray[np.float32], grid: OccupancyConfig) -> NDArray[np.bool_]:
    """(cells, cells): where at least one point falls in."""
    occupied = np.zeros(grid.cells * grid.cells, bool)
    occupied[cells(xyz, grid)[0]] = True
    return occupied.reshape(grid.cells, grid.cells)


@lru_cache(maxsize=8)
def centres(grid: OccupancyConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x and y, each (cells, cells), of the cells' centres, in metres."""
    line = ((np.arange(grid.cells) - grid.cells // 2 + 0.5) * grid.cell_m).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def visible(reach_m: NDArray[np.float32], there_from_here: NDArray[Any], grid: OccupancyConfig) -> NDArray[np.bool_]:
    """(cells, cells) of this frame whose centre was seen from there.

    Args:
        reach_m: of the sweep that was taken there. there_from_here: (4, 4), points of this frame → its sensor frame.
    """
    x, y = centres(grid)
    to_there = there_from_here.astype(np.float32)
    r, t = to_there[:2, :2], to_there[:2, 3]
    there_x, there_y = r[0, 0] * x + r[0, 1] * y + t[0], r[1, 0] * x + r[1, 1] * y + t[1]
    return np.hypot(there_x, there_y) <= reach_m[azimuth_bin(there_x, there_y, len(reach_m))]


def truth(scan: Scan, here_from_there: Double, grid: OccupancyConfig) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(occupied, scored) cells of this frame by a sweep that was taken there, at the time forecast for."""
    occupied = raster(moved(scan.band, here_from_there), grid)
    return occupied, visible(scan.reach_m, np.linalg.inv(here_from_there), grid) | occupied
