"""Voxelisation: a sweep becomes the mean of the first few points of each occupied voxel (MeanVFE). Deterministic."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_ros.lidar.config import VoxelConfig
from wm_ros.lidar.sparse.library import library, pointer


@dataclass(frozen=True)
class Voxels:
    """Occupied voxels of one sweep in ascending order of (z, y, x).

    Attributes:
        coordinates: (N, 3) int32, z, y, x. features: (N, 4) float32, mean x, y, z (m) and intensity.
    """

    coordinates: NDArray[np.int32]
    features: NDArray[np.float32]


def voxelise(points: NDArray[np.float32], config: VoxelConfig) -> Voxels:
    """Group points by voxel.

    Args:
        points: (N, 4), x, y, z in metres and intensity; those out of range or not finite are left out.

    Where there are more than `max_points` in a voxel the first in order of arrival count, and where there are more than
    `max_voxels` voxels those that were seen first stay: the same cloud always gives the same voxels.
    """
    if points.ndim != 2 or points.shape[1] != 4:
        raise ValueError(f"points of shape {points.shape}, expected (N, 4): x, y, z, intensity")
    depth, height, width = config.shape
    points = np.ascontiguousarray(points, np.float32)
    low, size = np.array(config.range_m[:3], np.float32), np.array(config.size_m, np.float32)
    cells = np.array([width, height, depth - 1], np.int32)
    most = min(len(points), config.max_voxels)
    coordinates, features = np.empty((most, 3), np.int32), np.empty((most, 4), np.float32)
    count = library().wm_voxelise(
        pointer(points),
        ctypes.c_int64(len(points)),
        pointer(low),
        pointer(size),
        pointer(cells),
        ctypes.c_int32(config.max_points),
        ctypes.c_int64(config.max_voxels),
        pointer(coordinates),
        pointer(features),
    )
    if count < 0:
        raise MemoryError(f"a grid of {depth} × {height} × {width} voxels does not fit into memory")
    return Voxels(coordinates[:count], features[:count])
