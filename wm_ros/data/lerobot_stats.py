"""Statistics of a LeRobot dataset, exact ones: mean, std, min, max, count and quantiles of each feature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
Stats = dict[str, list[Any]]


def column_stats(values: NDArray[Any]) -> Stats:
    """Of a feature's rows (N, D), float32 or whole numbers.

    Sums of equal float32 values are exact in float64 (up to 2^29 rows), so a dimension that never changes has its very
    value as mean and as every quantile, and std 0: a normalisation that guards its divisor leaves it small.
    """
    exact = values.astype(np.float64)
    levels = np.quantile(exact, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(0).tolist(),
        "max": values.max(0).tolist(),
        "mean": exact.mean(0).tolist(),
        "std": exact.std(0).tolist(),
        "count": [len(values)],
        **{name: level.tolist() for name, level in zip(QUANTILES, levels, strict=True)},
    }


def histogram(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(3, 256) how often a channel of an image (H, W, 3) has each value; those of several images may be added."""
    return np.stack([np.bincount(rgb[..., channel].ravel(), minlength=256) for channel in range(3)])


def image_stats(counts: NDArray[np.int64], frames: int) -> Stats:
    """Of the pixels of each channel, on a scale of 0 to 1, each value as [[[r]], [[g]], [[b]]]; `count` is of frames.

    Args:
        counts: (3, 256), see `histogram`.
    """
    scale = np.arange(256) / 255
    total = counts.sum(1)
    mean = counts @ scale / total
    std = np.sqrt(np.maximum((counts * np.square(scale - mean[:, None])).sum(1) / total, 0.0))
    below = counts.cumsum(1)
    level = {name: scale[(below >= share * total[:, None]).argmax(1)] for name, share in QUANTILES.items()}
    low = scale[(counts > 0).argmax(1)]
    high = scale[255 - (counts[:, ::-1] > 0).argmax(1)]
    values = {"min": low, "max": high, "mean": mean, "std": std, **level}
    return {name: value[:, None, None].tolist() for name, value in values.items()} | {"count": [frames]}
