"""Real-time chunking (Black, Galliker and Levine, 2025): a new chunk that goes on from the one that runs.

While a chunk is computed, the robot goes on with the one before. The steps that it takes meanwhile are committed: the
new chunk must begin with them, and leave the old one gradually after them. For a head that gives one answer, `blend`
clamps the committed steps to the old chunk and fades from the old to the new one. For a flow head `guide` steers the
flow itself, so that the rest of the chunk fits the committed steps.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.nn.flow import Velocity

Double = NDArray[np.float64]
Schedule = Literal["linear", "exp", "ones", "zeros"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)


def prefix_weights(total: int, committed: int, horizon: int, schedule: Schedule = "linear") -> Double:
    """How much the running chunk counts at each of `total` steps: (total,) in 0..1.

    1 for the first `committed` steps and 0 from `horizon` on. Between: with c falling evenly from 1 to 0,
    linear: c; exp: c·(eᶜ − 1)/(e − 1), which lets go sooner; ones: 1; zeros: 0.
    """
    horizon = min(horizon, total)
    committed = min(committed, horizon)
    weights = np.zeros(total)
    weights[:committed] = 1.0
    even = np.linspace(1.0, 0.0, horizon - committed + 2)[1:-1]
    between = {
        "linear": even,
        "exp": even * np.expm1(even) / (math.e - 1.0),
        "ones": np.ones_like(even),
        "zeros": np.zeros_like(even),
    }
    weights[committed:horizon] = between[schedule]
    return weights


def blend(running: Double, new: Double, committed: int, fade: int, schedule: Schedule = "linear") -> Double:
    """The new chunk (N, J), begun with the running one (M, J) and faded into over `fade` steps after `committed`.

    Both begin at the same step. Past the end of the running chunk there is nothing to fade from.
    """
    steps = min(len(running), len(new))
    weights = prefix_weights(steps, committed, committed + fade, schedule)[:, None]
    begun: Double = weights * running[:steps] + (1.0 - weights) * new[:steps]
    return np.concatenate([begun, new[steps:]])


def guidance_weight(sigma: float, most: float) -> float:
    """min(most, (1 − τ)/τ · ((1 − τ)² + τ²)/(1 − τ)²) at τ = 1 − sigma, the share of the way from noise to data."""
    tau = 1.0 - sigma
    if tau <= 0.0 or sigma <= 0.0:
        return most
    return min(most, sigma / tau * (sigma**2 + tau**2) / sigma**2)


def guide(velocity: Velocity, running: torch.Tensor, weights: torch.Tensor, most: float = 10.0) -> Velocity:
    """A velocity field whose samples go on from the running chunk.

    At (z, σ) the clean chunk is estimated as ẑ = z − σ·v(z, σ). How far its prefix is from the running chunk is pulled
    back through that estimate by a vector-Jacobian product, and taken off the velocity.

    Args:
        velocity: of a flow from noise (σ = 1) to chunks (σ = 0), differentiable in z; one σ for the whole batch.
        running: (B, N, A), what is left of the running chunk, in the flow's normalised space, padded to N steps.
        weights: (N,) of `prefix_weights`. most: the greatest weight of the guidance.
    """

    def guided(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            at = z.detach().requires_grad_(True)
            speed = velocity(at, sigma)
            clean = at - sigma.view(-1, 1, 1) * speed
            error = (running - clean) * weights.to(z)[:, None]
            (pull,) = torch.autograd.grad(clean, at, error.detach())
        return speed.detach() - guidance_weight(float(sigma[0]), most) * pull

    return guided
