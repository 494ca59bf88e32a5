"""Pictures for people: a BEV embedding as colours, and frames side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def components_rgb(embedding: NDArray[np.float32]) -> NDArray[np.uint8]:
    """First three principal components of a BEV embedding as red, green and blue.

    Args:
        embedding: (C, H, W), row = y, column = x, ascending (x forward, y left).

    Returns:
        (W, H, 3) uint8 as seen from above: forward (x) is up, left (y) is left. Each component runs from its 1st to
        its 99th percentile. Its sign is fixed (the channel that weighs most is positive), so equal maps give equal
        colours and a steady scene does not flicker.
    """
    channels, height, width = embedding.shape
    flat = embedding.reshape(channels, -1).T.astype(np.float64)
    flat = flat - flat.mean(axis=0)
    _, axes = np.linalg.eigh(flat.T @ flat)  # ascending eigenvalues
    axes = axes[:, ::-1][:, :3]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    values = flat @ axes
    low, high = np.percentile(values, [1, 99], axis=0)
    span = np.where(high - low > 1e-12, high - low, 1.0)
    colours = np.zeros((height * width, 3), np.uint8)
    colours[:, : values.shape[1]] = np.rint(np.clip((values - low) / span, 0, 1) * 255)
    return np.ascontiguousarray(colours.reshape(height, width, 3).transpose(1, 0, 2)[::-1, ::-1])


def side_by_side(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(K, H, W, 3) → (H, K·W, 3), from left to right."""
    count, height, width, _ = frames.shape
    return np.ascontiguousarray(frames.transpose(1, 0, 2, 3).reshape(height, count * width, 3))
