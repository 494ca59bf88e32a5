"""One way from a camera image of any size to what the networks see, for bags, nodes and training alike."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray


def resize_area(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Shrink by area averaging (enlarge linearly); the aspect ratio is not kept.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        (height, width, 3) uint8.
    """
    if rgb.shape[:2] == (height, width):
        return rgb
    shrinks = rgb.shape[0] >= height and rgb.shape[1] >= width
    resized = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def to_tensor(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """(…, H, W, 3) uint8 → (…, 3, H, W) float32 in 0..1."""
    channels_first = np.ascontiguousarray(np.moveaxis(rgb, -1, -3))
    return torch.from_numpy(channels_first).float().div_(255.0)


def to_uint8(images: torch.Tensor) -> NDArray[np.uint8]:
    """(…, 3, H, W) in 0..1, clipped → (…, H, W, 3) uint8."""
    levels = images.detach().clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)
    return np.ascontiguousarray(np.moveaxis(levels.cpu().numpy(), -3, -1))
