"""How well a change of state tells the change of the arm: the heads behind `action_r2@k` (protocol LP-MSE of StaMo).

Input: the difference of two states k steps apart, standardised per dimension. Output: the change of the right arm's
joints over those k steps. One MLP of three hidden layers per k, the same for the state and for its baselines.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

STEPS = (1, 2, 4, 8)
METHODS = ("model", "pca", "pixels")
JOINTS = 7
HIDDEN, BATCH = 128, 256
POOLED = (6, 8)  # rows and columns of the mean-pooled image of the baseline `pixels`


class ActionHead(nn.Module):
    """(B, inputs) difference → (B, 7) change of joints in radians; the standardisation travels with the weights."""

    input_scale: torch.Tensor
    output_scale: torch.Tensor

    def __init__(self, inputs: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("input_scale", torch.ones(inputs))
        self.register_buffer("output_scale", torch.ones(JOINTS))
        self.net = nn.Sequential(
            nn.Dropout(0.2),
            *(nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(0.2)),
            *(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(0.2)),
            *(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(0.2)),
            nn.Linear(hidden, JOINTS),
        )

    def forward(self, change: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(change / self.input_scale) * self.output_scale
        return out


def pooled_pixels(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) → (B, 144): the mean of each of 8 × 6 fields."""
    return functional.adaptive_avg_pool2d(images, POOLED).flatten(1)


def step_pairs(
    episode: NDArray[np.int64], stamp_s: NDArray[np.float64], apart_s: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of frames of one episode that are `apart_s` seconds apart (to a quarter of it, at most 20 ms off).

    Args:
        episode, stamp_s: (N,), ascending in time within each episode.

    Returns:
        first and second index of each pair.
    """
    tolerance_s = min(0.02, apart_s / 4)
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number in np.unique(episode):
        rows = np.flatnonzero(episode == number)
        times = stamp_s[rows]
        after = np.searchsorted(times, times + apart_s - tolerance_s)
        inside = np.minimum(after, len(rows) - 1)
        fits = (after < len(rows)) & (np.abs(times[inside] - times - apart_s) <= tolerance_s)
        firsts.append(rows[fits])
        seconds.append(rows[inside[fits]])
    return np.concatenate(firsts), np.concatenate(seconds)


def fit_head(
    change: torch.Tensor,
    joints: torch.Tensor,
    source: NDArray[np.int64] | None = None,
    seed: int = 0,
    steps: int = 5000,
) -> ActionHead:
    """Train a head by mean squared error, with a fixed schedule: what is held out to stop early is missed in training.

    Args:
        change: (N, inputs) differences. joints: (N, 7) changes of joints, rad.
        source: (N,) kind of recording; each kind counts alike, however many pairs it has.
    """
    weight = None if source is None else torch.from_numpy(1.0 / np.bincount(source)[source])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = ActionHead(change.shape[1])
        head.input_scale.copy_(change.std(0).clamp_min(1e-6))
        head.output_scale.copy_(joints.std(0).clamp_min(1e-6))
        last = head.net[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            if weight is None:
                rows = torch.randint(len(change), (BATCH,))
            else:
                rows = torch.multinomial(weight, BATCH, replacement=True)
            loss = ((head(change[rows]) - joints[rows]) / head.output_scale).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return head.eval().requires_grad_(False)
