"""How well a change of state tells the change of the arm: the head behind `action_r2@k` (protocol LP-MSE of StaMo).

Input: the difference of two states k steps apart, standardised per number and k. Output: the change of the right arm's
joints over those k steps. One MLP that is told k, since what it learns of one k helps with the others; the same for the
state and for its baselines. Recordings of different robots and cameras have heads of their own: a head is told which
kind of recording it belongs to by where the states of that kind lie.
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
HIDDEN, BATCH, DROPOUT = 192, 128, 0.2
POOLED = (6, 8)  # rows and columns of the mean-pooled image of the baseline `pixels`


class ActionHead(nn.Module):
    """Differences over k steps → changes of joints in radians; the standardisation travels with the weights."""

    input_scale: torch.Tensor
    output_scale: torch.Tensor

    def __init__(self, inputs: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("input_scale", torch.ones(len(STEPS), inputs))
        self.register_buffer("output_scale", torch.ones(len(STEPS), JOINTS))
        self.drop = nn.Dropout(DROPOUT)
        self.net = nn.Sequential(
            *(nn.Linear(inputs + len(STEPS), hidden), nn.GELU(), nn.Dropout(DROPOUT)),
            *(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(DROPOUT)),
            *(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(DROPOUT)),
            nn.Linear(hidden, JOINTS),
        )

    def forward(self, change: torch.Tensor, k: int) -> torch.Tensor:
        """(B, inputs) → (B, 7); k is one of `STEPS`."""
        return self.standardised(change, k) * self.output_scale[STEPS.index(k)]

    def standardised(self, change: torch.Tensor, k: int) -> torch.Tensor:
        """The same in units of the spread of each joint's change. Odd: a motion run backwards is the motion back."""
        index = STEPS.index(k)
        told = functional.one_hot(torch.full((len(change),), index, device=change.device), len(STEPS))
        seen = self.drop(change / self.input_scale[index])
        out: torch.Tensor = self.net(torch.cat([seen, told], 1)) - self.net(torch.cat([-seen, told], 1))
        return out / 2


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


Pairs = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""k → differences (N, inputs) and changes of joints (N, 7), rad."""


def fit_head(pairs: Pairs, seed: int = 0, steps: int = 6000) -> ActionHead:
    """Train a head by mean squared error, with a fixed schedule: what is held out to stop early would be missed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = ActionHead(pairs[STEPS[0]][0].shape[1])
        for index, k in enumerate(STEPS):
            change, joints = pairs[k]
            head.input_scale[index] = change.std(0).clamp_min(1e-6)
            head.output_scale[index] = joints.std(0).clamp_min(1e-6)
        last = head.net[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            errors = []
            for index, (k, (change, joints)) in enumerate(pairs.items()):
                rows = torch.randint(len(change), (BATCH,))
                errors.append(head.standardised(change[rows], k) - joints[rows] / head.output_scale[index])
            loss = torch.cat(errors).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return head.eval().requires_grad_(False)
