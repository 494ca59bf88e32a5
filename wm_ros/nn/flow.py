"""Rectified flow (flow matching on straight paths), as Stable Diffusion 3 trains it.

A path from data to noise: z_σ = (1 − σ)·clean + σ·noise with σ from 0 (data) to 1 (noise). A network regresses the
velocity noise − clean; following it from σ = 1 down to 0 draws a sample. A `Velocity` is any function of
(z (B, …), σ (B,)) → velocity like z; conditions are bound into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def logit_normal_times(
    count: int, mean: float = 0.0, std: float = 1.0, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw `count` times σ in (0, 1) whose logit is normal: most in the middle, where the velocity is hardest."""
    return torch.sigmoid(mean + std * torch.randn(count, generator=generator))


def interpolate(clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """z_σ of each item; `sigma` is (B,), the others (B, …)."""
    sigma = sigma.view(-1, *([1] * (clean.dim() - 1)))
    return (1.0 - sigma) * clean + sigma * noise


def velocity_loss(
    velocity: Velocity,
    clean: torch.Tensor,
    generator: torch.Generator | None = None,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of the velocity at one logit-normal time of each item (scalar).

    Args:
        clean: (B, …) data. weight: broadcast onto (B, …), for channels or items that count more.
    """
    sigma = logit_normal_times(len(clean), generator=generator).to(clean)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    error = (velocity(interpolate(clean, noise, sigma), sigma) - (noise - clean)).square()
    return (error if weight is None else error * weight).mean()


def guided(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance: scale 0 is unconditional, 1 conditional, above 1 exaggerates the condition."""
    if scale == 1.0:
        return conditional

    def velocity(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        base = unconditional(z, sigma)
        return base + scale * (conditional(z, sigma) - base)

    return velocity


def sample(velocity: Velocity, shape: Sequence[int], steps: int, generator: torch.Generator) -> torch.Tensor:
    """Draw from the flow; the same generator state gives the same sample."""
    return follow(velocity, torch.randn(tuple(shape), generator=generator, device=generator.device), steps)


def follow(velocity: Velocity, noise: torch.Tensor, steps: int) -> torch.Tensor:
    """From noise (B, …) to data in `steps` Euler steps of equal length."""
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    z = noise
    for index in range(steps):
        sigma = torch.full((len(z),), 1.0 - index / steps, device=z.device)
        z = z - velocity(z, sigma) / steps
    return z


def conditional_mean(velocity: Velocity, like: torch.Tensor) -> torch.Tensor:
    """The deterministic estimate: one step from pure noise, taken at the mean of the noise (zero).

    At σ = 1 the input says nothing of the data, so the best velocity is noise − E[clean | condition].

    Args:
        like: (B, …) gives shape, type and device.
    """
    start = torch.zeros_like(like)
    return start - velocity(start, torch.ones(len(like), device=like.device))
