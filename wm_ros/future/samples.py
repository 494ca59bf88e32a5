"""Samples of the hands' trajectory: rectified flow over what the central estimate leaves open, judged by an energy.

A path around the central estimate is a few coefficients in a linear basis. The flow draws them from noise; an energy
of (context, candidate), trained contrastively, ranks and weighs the candidates, and ends the drawing early where it no
longer falls (after energy-based world models, arXiv 2406.08862; here the flow moves candidates and the energy judges).
What was learned on episodes that the central estimate has seen is too narrow for others, so the spread of the samples
is set on held-out episodes (`wm_ros.training.future_calibration`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_ros.future.config import SamplesConfig
from wm_ros.nn import flow

WAVES = 4  # sines and cosines that tell the network its noise level
HANDS = 6  # x, y, z of both wrists


class Fan(NamedTuple):
    """Sampled trajectories.

    Attributes:
        hands: (B, S, F, 6) both wrists, m. energy: (B, S), low is plausible. probability: (B, S), sums to 1.
        steps: (B,) denoising steps that were taken.
    """

    hands: Tensor
    energy: Tensor
    probability: Tensor
    steps: Tensor


class Samples(nn.Module):
    """What is left open around a central estimate, drawn and judged.

    Buffers:
        basis: (C, F · 6) orthonormal; coefficients are in units of `spread` (C,).
        dispersion: (K, F) factor on the spread of the samples at each step, for each kind of recording.
        trust: (K,) how much the energy weighs the samples; 0 leaves them equal.
    """

    basis: Tensor
    spread: Tensor
    dispersion: Tensor
    trust: Tensor

    def __init__(self, config: SamplesConfig, context: int, kinds: int, horizon_steps: int) -> None:
        super().__init__()
        self.config, self.horizon_steps, count = config, horizon_steps, config.coefficients
        self.flow = ResidualMlp(count + 2 * WAVES, context, count, config.width, config.dropout)
        self.energy = ResidualMlp(count, context, 1, config.width, config.dropout)
        self.register_buffer("basis", torch.eye(count, horizon_steps * HANDS))
        self.register_buffer("spread", torch.ones(count))
        self.register_buffer("dispersion", torch.ones(kinds, horizon_steps))
        self.register_buffer("trust", torch.ones(kinds))

    def fit(self, left_open: Tensor) -> None:
        """The basis of what a linear path leaves open (N, F, 6): its principal directions."""
        flat = left_open.flatten(1).double()
        _, _, directions = torch.linalg.svd(flat, full_matrices=False)
        found = directions[: self.config.coefficients]  # fewer where there are fewer paths
        self.basis.zero_()
        self.basis[: len(found)] = found.float()
        self.spread.fill_(1.0)
        self.spread[: len(found)] = (flat @ found.T).std(0, correction=0).clamp(min=1e-6).float()

    def coefficients(self, left_open: Tensor) -> Tensor:
        """(…, F, 6) → (…, C)."""
        return (left_open.flatten(-2) @ self.basis.T) / self.spread

    def left_open(self, coefficients: Tensor, kind: Tensor | None = None) -> Tensor:
        """(…, C) → (…, F, 6); with the kinds (B,) of (B, S, C), as widely spread as held-out episodes want it."""
        paths = ((coefficients * self.spread) @ self.basis).unflatten(-1, (self.horizon_steps, HANDS))
        return paths if kind is None else paths * self.dispersion[kind][:, None, :, None]

    # ------------------------------------------------------------------ drawing

    @torch.no_grad()
    def draw(self, context: Tensor, kind: Tensor, count: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """`count` samples for each context (B, W): what they leave open (B, S, F, 6), energies (B, S), steps (B,).

        The noise is the same at each call, in pairs of opposite sign, so that a fan drawn live does not flicker.
        """
        z = self.noise(count).to(context).expand(len(context), -1, -1)
        result, lowest = z, torch.full((len(context),), float("inf"), device=context.device)
        falling, taken = torch.ones_like(lowest, dtype=torch.bool), torch.zeros_like(lowest)
        for index in range(steps):
            sigma = 1.0 - index / steps
            velocity = self.velocity(context, z, torch.full(z.shape[:2], sigma, device=z.device))
            # Where it stops, a path goes straight on to its end.
            result = torch.where(falling[:, None, None], z - sigma * velocity, result)
            taken = taken + falling
            z = z - velocity / steps
            mean = self.judge(context, z).mean(1)
            falling = falling & (mean < lowest - self.config.tolerance)
            lowest = mean
            if not falling.any():
                break
        paths = self.left_open(result, kind)
        return paths, self.judge(context, self.coefficients(paths)), taken

    def noise(self, count: int) -> Tensor:
        """(S, C), always the same."""
        generator = torch.Generator().manual_seed(self.config.seed)
        half = torch.randn((count + 1) // 2, self.config.coefficients, generator=generator)
        return torch.cat([half, -half])[:count]

    def velocity(self, context: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
        """Of the flow at z (B, S, C) and noise levels (B, S)."""
        angles = sigma[..., None] * torch.arange(1, WAVES + 1, device=z.device) * torch.pi
        out: Tensor = self.flow(torch.cat([z, angles.sin(), angles.cos()], -1), context)
        return out

    def judge(self, context: Tensor, coefficients: Tensor) -> Tensor:
        """Energies (B, S) of candidates (B, S, C)."""
        energy: Tensor = self.energy(coefficients, context)[..., 0]
        return energy

    # ------------------------------------------------------------------ learning

    def losses(self, context: Tensor, left_open: Tensor, others: Tensor) -> dict[str, Tensor]:
        """Flow: velocity at one noise level. Energy: the true future told from samples and from other futures.

        Args:
            context: (B, W). left_open: (B, F, 6) of the true future. others: (B, n, F, 6) of futures of other windows.
        """
        true = self.coefficients(left_open)
        drawn = flow.velocity_loss(lambda z, s: self.velocity(context, z[:, None], s[:, None])[:, 0], true)
        rivals = [self._rivals(context), self.coefficients(others)]
        energy = self.judge(context, torch.cat([true[:, None], *rivals], 1))
        first = torch.zeros(len(true), dtype=torch.long, device=true.device)
        return {"samples": drawn, "energy": functional.cross_entropy(-energy, first)}

    @torch.no_grad()
    def _rivals(self, context: Tensor, count: int = 8, steps: int = 4) -> Tensor:
        """Samples (B, n, C), spread up to `widest` as much: the calibrated ones will be wider than what is learned."""
        noise = torch.randn(len(context), count, self.config.coefficients, device=context.device)
        for index in range(steps):
            sigma = torch.full(noise.shape[:2], 1.0 - index / steps, device=noise.device)
            noise = noise - self.velocity(context, noise, sigma) / steps
        wider = torch.rand(len(context), 1, 1, device=noise.device) * (self.config.widest - 1.0) + 1.0
        return noise * wider


class ResidualMlp(nn.Module):
    """Candidates (B, S, n) and a context (B, W) → (B, S, m), zero until it is trained."""

    def __init__(self, inputs: int, context: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.candidate = nn.Linear(inputs, width)
        self.context = nn.Sequential(nn.LayerNorm(context), nn.Dropout(dropout), nn.Linear(context, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
            )
            for _ in range(2)
        )
        self.out = nn.Linear(width, outputs)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, candidates: Tensor, context: Tensor) -> Tensor:
        hidden = self.candidate(candidates) + self.context(context)[:, None]
        for block in self.blocks:
            hidden = hidden + block(hidden)
        out: Tensor = self.out(hidden)
        return out


def region(fan: Tensor, probability: Tensor, share: float = 0.9) -> tuple[Tensor, Tensor]:
    """The tube that holds `share` of sampled paths over their whole length.

    Args:
        fan: (B, S, F, 3) paths of one wrist. probability: (B, S).

    Returns:
        its middle (B, F, 3) and its radius (B, F), m: a multiple of the samples' spread at each step, the same for
        all steps, such that paths of this share of the probability stay inside at every step.
    """
    weight = probability[:, :, None]
    middle = (fan * weight[..., None]).sum(1)
    distance = (fan - middle[:, None]).norm(dim=-1)
    spread = (distance.square() * weight).sum(1).sqrt().clamp(min=1e-6)
    reach, order = (distance / spread[:, None]).max(-1).values.sort(1)
    within = probability.gather(1, order).cumsum(1)
    enough = (within < share - 1e-6).sum(1, keepdim=True).clamp(max=fan.shape[1] - 1)
    return middle, reach.gather(1, enough) * spread


def energy_score(paths: Tensor, probability: Tensor, truth: Tensor) -> Tensor:
    """Energy score (B,) of sampled paths (B, S, T, 3) with their probability (B, S) against the true one (B, T, 3).

    A proper score, in the unit of the paths: mean distance to the truth less half the mean distance among the samples,
    distances being means over the steps. Of one sample it is its mean error.
    """
    far = (paths - truth[:, None]).norm(dim=-1).mean(-1)
    apart = torch.stack([(paths - paths[:, i : i + 1]).norm(dim=-1).mean(-1) for i in range(paths.shape[1])], 1)
    return (probability * far).sum(1) - 0.5 * torch.einsum("bi,bij,bj->b", probability, apart, probability)
