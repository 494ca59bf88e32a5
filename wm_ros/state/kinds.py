"""Which kind of recording (robot and camera, or simulator) states are of: a linear discriminant, in closed form."""

from __future__ import annotations

import torch
from torch import nn

STRENGTH = 0.05  # penalty of the weights, per state


class Kinds(nn.Module):
    """States (N, D) → scores (N, K), the highest of the kind that a state looks most like."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, numbers: int, kinds: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(numbers, kinds))
        self.register_buffer("bias", torch.zeros(kinds))

    @classmethod
    def fit(cls, states: list[torch.Tensor]) -> Kinds:
        """Least squares from states (N_k, D) of each kind to one-hot vectors; every kind counts alike."""
        kinds = cls(states[0].shape[1], len(states))
        share = torch.cat([torch.full((len(part), 1), 1.0 / (len(states) * len(part))) for part in states]).double()
        wanted = torch.cat([torch.eye(len(states))[index].expand(len(part), -1) for index, part in enumerate(states)])
        inputs = torch.cat(states).double()
        mean = (share * inputs).sum(0)
        scale = (share * (inputs - mean).square()).sum(0).sqrt().clamp_min(1e-6)
        inputs = (inputs - mean) / scale
        target = wanted.double() - 1.0 / len(states)
        gram = inputs.T @ (share * inputs) + STRENGTH * torch.eye(inputs.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(gram, inputs.T @ (share * target)) / scale[:, None]
        kinds.weight.copy_(weight)
        kinds.bias.copy_(-mean @ weight)
        return kinds

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states @ self.weight + self.bias
