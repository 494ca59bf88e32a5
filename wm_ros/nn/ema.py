"""An exponential moving average of a module's parameters."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema(nn.Module):
    """Holds `average`, a copy of a module that follows it; buffers are copied as they are.

    Args:
        decay: weight of the old average once warm; early on the average follows faster (step / (step + 9)).
    """

    steps: torch.Tensor

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.average = copy.deepcopy(module).requires_grad_(False).eval()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards `module`."""
        self.steps += 1
        step = int(self.steps)
        decay = min(self.decay, step / (step + 9))
        for average, current in zip(self.average.parameters(), module.parameters(), strict=True):
            average.lerp_(current, 1.0 - decay)
        for kept, buffer in zip(self.average.buffers(), module.buffers(), strict=True):
            kept.copy_(buffer)
