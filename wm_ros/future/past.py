"""What the past says of the future, beyond a linear path: a three-layer MLP over hands, joints and the current state.

Ego-PM embeds the history of actions by a three-layer MLP. Here it predicts on its own: on a few dozen episodes it is
nearer to the truth than attention over the same history. Each kind of recording has one, as it has a linear path, and
it is fitted before stage II and the reading (`wm_ros.training.future_past`). While those are trained its dropout is on:
on the episodes that it was fitted on it errs less than on others, and they are to learn from errors of a real size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_ros.nn.mlp import three_layers

STATE_SHARE = 0.1  # of the state beside the body: hundreds of numbers that are soon known by heart


class PastPath(nn.Module):
    """Past (B, inputs) of each kind (B,) → what it adds to the linear path, (B, F, V), in spreads of what that leaves
    open.

    Args:
        kinds: of recordings. size: F, V.
    """

    def __init__(self, kinds: int, inputs: int, width: int, size: tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.size = size
        self.networks = nn.ModuleList(three_layers(inputs, width, size[0] * size[1], dropout) for _ in range(kinds))
        self.requires_grad_(False)

    def forward(self, past: Tensor, kind: Tensor) -> Tensor:
        futures = torch.stack([network(past) for network in self.networks])
        found: Tensor = futures[kind, torch.arange(len(past), device=past.device)]
        return found.unflatten(1, self.size)
