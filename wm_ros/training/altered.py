"""Copies of recordings under another light and a camera that was mounted a little otherwise, for few recordings."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from wm_ros.nn.preprocessing import to_tensor, to_uint8

LIGHT = 0.08  # spread of the logarithms of gain, gamma and colour balance
SHIFT = 0.04  # of the image's size, at most
ROLL_RAD = 0.04
SCALE = 0.05


def altered(images: NDArray[np.uint8], seed: int, batch: int = 256) -> NDArray[np.uint8]:
    """Images (N, H, W, 3) of one episode, all with the same gain, gamma, colours, shift, roll and scale."""
    rng = np.random.default_rng(seed)
    gain, gamma, *balance = np.exp(LIGHT * rng.normal(size=5))
    colour = torch.tensor(np.asarray(balance) * gain, dtype=torch.float32).view(3, 1, 1)
    scale, roll = 1 + SCALE * rng.uniform(-1, 1), ROLL_RAD * rng.uniform(-1, 1)
    right, down = 2 * SHIFT * rng.uniform(-1, 1, 2)
    height, width = images.shape[1:3]
    cos, sin, aspect = math.cos(roll) * scale, math.sin(roll) * scale, height / width
    place = torch.tensor([[[cos, -sin * aspect, right], [sin / aspect, cos, down]]], dtype=torch.float32)
    parts = []
    for first in range(0, len(images), batch):
        some = to_tensor(images[first : first + batch])
        grid = functional.affine_grid(place.expand(len(some), -1, -1), list(some.shape), align_corners=False)
        moved = functional.grid_sample(some, grid, padding_mode="border", align_corners=False)
        parts.append(to_uint8((moved.clamp(min=0) ** float(gamma) * colour).clamp(0, 1)))
    return np.concatenate(parts)
