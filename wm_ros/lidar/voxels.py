"""Voxelisation: a sweep becomes the mean of the first few points of each occupied voxel (MeanVFE). Deterministic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_ros.lidar.config import VoxelConfig


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
    depth, height, width = config.shape
    inside = np.isfinite(points[:, 3])
    columns = []
    with np.errstate(invalid="ignore"):
        for axis, count in enumerate((width, height, depth - 1)):
            column = np.floor((points[:, axis] - np.float32(config.range_m[axis])) / np.float32(config.size_m[axis]))
            inside &= (column >= 0) & (column < count)
            columns.append(column)
    kept = points[inside]
    x, y, z = (column[inside].astype(np.int64) for column in columns)
    keys = (z * height + y) * width + x

    # Key and place of arrival in one integer: an ordinary sort is then stable and knows the order of arrival.
    bits = max(len(keys), 1).bit_length()
    packed = np.sort((keys << bits) | np.arange(len(keys)))
    order, sorted_keys = packed & ((1 << bits) - 1), packed >> bits
    first = np.flatnonzero(np.diff(sorted_keys, prepend=-1))
    counts = np.diff(first, append=len(order))
    if len(first) > config.max_voxels:
        chosen = np.sort(np.argpartition(order[first], config.max_voxels - 1)[: config.max_voxels])
    else:
        chosen = np.arange(len(first))
    return Voxels(
        _unpack(sorted_keys[first[chosen]], height, width), _means(kept, order, first, counts, chosen, config)
    )


def _unpack(keys: NDArray[np.int64], height: int, width: int) -> NDArray[np.int32]:
    rest, x = np.divmod(keys, width)
    z, y = np.divmod(rest, height)
    return np.stack([z, y, x], 1).astype(np.int32)


def _means(
    points: NDArray[np.float32],
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    counts: NDArray[np.int64],
    chosen: NDArray[np.int64],
    config: VoxelConfig,
) -> NDArray[np.float32]:
    """Mean of up to `max_points` points of each chosen voxel, summed in order of arrival."""
    start, count = first[chosen], np.minimum(counts[chosen], config.max_points)
    total = np.zeros((len(chosen), points.shape[1]), np.float32)
    for rank in range(config.max_points):
        has = np.flatnonzero(count > rank)
        total[has] += points[order[start[has] + rank]]
    return np.divide(total, count[:, None], dtype=np.float32)
