"""Trajectories without a network: hold, damped constant velocity, phase, ridge. Also the linear path of stage I.

Recordings of different robots or simulators move differently: each kind has a ridge and a mean course of its own.

All take the past of the body (B, H, V), oldest first, and give its future (B, F, V), both on the same grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DAMPING = 0.9
PHASE_BINS = 64


def hold(body: Tensor, steps: int) -> Tensor:
    """The last state, repeated."""
    return body[:, -1:].expand(-1, steps, -1)


def constant_velocity(body: Tensor, steps: int, damping: float = DAMPING) -> Tensor:
    """The mean velocity of the last three states, which fades by `damping` with each step."""
    velocity = (body[:, -1] - body[:, -3]) / 2
    reach = torch.cumsum(damping ** torch.arange(steps, dtype=body.dtype, device=body.device), 0)
    return body[:, -1:] + velocity[:, None] * reach[None, :, None]


class PhaseTable(nn.Module):
    """The mean course of the training episodes by phase.

    On live data nobody knows how long an episode will last, so the phase is the time since its start over the mean
    length of the training episodes, held at 1 beyond that. The prediction is the last state plus the change of the
    mean course, so that it starts where the body is.
    """

    mean: Tensor

    def __init__(self, values: int, bins: int = PHASE_BINS) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(bins, values))

    def fit(self, episodes: list[Tensor], rate_hz: float, mean_episode_s: float) -> None:
        """Average `episodes` (each (L, V) on the grid) by phase; bins that nobody reached repeat the last one."""
        bins = len(self.mean)
        total, count = torch.zeros_like(self.mean), torch.zeros(bins, 1)
        for body in episodes:
            phase = (torch.arange(len(body)) / rate_hz / mean_episode_s).clamp(max=1) * (bins - 1)
            at = phase.round().long()
            total.index_add_(0, at, body.float())
            count.index_add_(0, at, torch.ones(len(body), 1))
        filled = torch.where(count[:, 0] > 0, torch.arange(bins), 0).cummax(0).values
        self.mean.copy_((total / count.clamp(min=1))[filled])

    def forward(self, body: Tensor, offsets_s: Tensor, elapsed_s: Tensor, mean_episode_s: float) -> Tensor:
        """Future (B, F, V) at `offsets_s` (F,), `elapsed_s` (B,) seconds after the start of the episode."""
        now = self._course(elapsed_s / mean_episode_s)
        later = self._course((elapsed_s[:, None] + offsets_s) / mean_episode_s)
        return body[:, -1:] + later - now[:, None]

    def _course(self, phase: Tensor) -> Tensor:
        at = phase.clamp(0, 1) * (len(self.mean) - 1)
        low = at.floor().long().clamp(max=len(self.mean) - 2)
        share = (at - low)[..., None].float()
        return self.mean[low] * (1 - share) + self.mean[low + 1] * share


class Ridge(nn.Module):
    """Linear regression from the last `states` states to the displacement at every future step.

    Features: the last state, standardised, and the `states - 1` last differences. Fitted in closed form. A state may
    hold more (`beside` numbers) than is predicted, such as what was commanded.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, values: int, states: int, steps: int, beside: int = 0) -> None:
        super().__init__()
        self.states, self.steps, self.values = states, steps, values
        inputs = (values + beside) * states
        self.register_buffer("weight", torch.zeros(inputs, steps * values))
        self.register_buffer("bias", torch.zeros(steps * values))
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))

    def features(self, body: Tensor) -> Tensor:
        """(B, H, V + beside) → (B, (V + beside) · states)."""
        recent = body[:, -self.states :]
        return torch.cat([recent[:, -1], recent.diff(dim=1).flatten(1)], 1)

    def fit(self, body: Tensor, future: Tensor, strength: float) -> None:
        """Fit on windows body (N, H, V + beside), future (N, F, V); `strength` is the penalty per window."""
        inputs = self.features(body.double())
        self.mean.copy_(inputs.mean(0))
        self.scale.copy_(inputs.std(0).clamp(min=1e-6))
        inputs = (inputs - self.mean.double()) / self.scale.double()
        targets = (future - body[:, -1:, : self.values]).flatten(1).double()
        self.bias.copy_(targets.mean(0))
        gram = inputs.T @ inputs + strength * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
        self.weight.copy_(torch.linalg.solve(gram, inputs.T @ (targets - targets.mean(0))))

    def forward(self, body: Tensor) -> Tensor:
        """Future (B, F, V)."""
        inputs = (self.features(body) - self.mean) / self.scale
        moved = inputs @ self.weight + self.bias
        return body[:, -1:, : self.values] + moved.view(-1, self.steps, self.values)


class LinearPath(nn.Module):
    """A `Ridge` for each kind of recording."""

    def __init__(self, kinds: int, values: int, states: int, steps: int, beside: int = 0) -> None:
        super().__init__()
        self.ridges = nn.ModuleList(Ridge(values, states, steps, beside) for _ in range(kinds))

    def forward(self, body: Tensor, kind: Tensor) -> Tensor:
        """Future (B, F, V) of body (B, H, V + beside), each by the ridge of its kind (B,)."""
        futures = torch.stack([ridge(body) for ridge in self.ridges])
        return futures[kind, torch.arange(len(body), device=body.device)]
