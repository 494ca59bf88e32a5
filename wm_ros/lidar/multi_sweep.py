"""Several sweeps at once (AD-LiST-JEPA, arXiv 2602.12540): moved by ego-motion into the newest frame, masked alike.

A cell is occupied where any of the sweeps has a voxel, and hidden in all of them or in none. Each sweep is encoded by
itself; the predictor sees the stack and convolves over time too. The paper takes sweeps before and after; here they are
the newest and earlier ones, as a node has them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_ros.lidar.encoder import BevEncoder
from wm_ros.lidar.jepa import (
    EMPTY_WEIGHT,
    OCCUPIED_WEIGHT,
    Masks,
    draw_masks,
    follow,
    keep_voxels,
    put,
    spread_penalty,
)
from wm_ros.lidar.representation import effective_rank
from wm_ros.lidar.sparse import Sparse


class TimePredictor(nn.Sequential):
    """Three convolutions over (time, y, x), each one over time and then one over the map: (B, C, T, rows, columns)."""

    def __init__(self, channels: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [
                nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False),
                nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1), bias=False),
                nn.BatchNorm3d(channels),
                nn.ReLU(),
            ]
        super().__init__(*layers)


class MultiSweepJepa(nn.Module):
    """Same interface as `Jepa`, but it wants earlier sweeps too.

    Attributes:
        past: which, by how many sweeps back. compensated: they must lie in the frame of the newest.
    """

    past: tuple[int, ...] = (2, 4)
    compensated = True

    def __init__(self, encoder: BevEncoder, ratio: float = 0.5, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        channels = encoder.bev_channels
        self.ratio, self.alpha, self.beta = ratio, alpha, beta
        self.target = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = TimePredictor(channels)
        self.mask_token = nn.Parameter(torch.randn(channels))
        self.empty_token = nn.Parameter(torch.randn(channels))

    def forward(self, encoder: BevEncoder, x: Sparse, past: Sequence[Sparse] = ()) -> dict[str, Tensor]:
        """Losses as of `Jepa`, mean over sweeps."""
        sweeps = [x, *past]
        masks, hidden_voxels = self._masks(encoder, sweeps)
        hidden, empty = masks.hidden & masks.occupied, masks.hidden & ~masks.occupied
        visible, visible_empty = ~masks.hidden & masks.occupied, ~masks.hidden & ~masks.occupied
        contexts, targets = [], []
        for sweep, voxels in zip(sweeps, hidden_voxels, strict=True):
            context = encoder(keep_voxels(sweep, ~voxels))
            with torch.no_grad():
                target = self.target(keep_voxels(sweep, voxels))
            context = put(put(context, masks.hidden, self.mask_token), visible_empty, self.empty_token)
            contexts.append(F.normalize(context, dim=1))
            targets.append(F.normalize(put(target, empty, self.empty_token), dim=1))
        predictions = F.normalize(self.predictor(torch.stack(contexts, 2)), dim=1).unbind(2)
        cosine = torch.stack([(p * t).sum(1) for p, t in zip(predictions, targets, strict=True)]).mean(0)
        at_occupied, at_empty = cosine[hidden].mean(), cosine[empty].mean()
        distance = OCCUPIED_WEIGHT * (1 - at_occupied) + EMPTY_WEIGHT * (1 - at_empty)
        spreads = [
            spread_penalty(c, visible) + spread_penalty(p, hidden) for c, p in zip(contexts, predictions, strict=True)
        ]
        spread = torch.stack(spreads).mean()
        return {
            "loss": self.alpha * distance + self.beta * spread,
            "jepa_distance": distance,
            "jepa_spread": spread,
            "masked_cosine_occupied": at_occupied,
            "masked_cosine_empty": at_empty,
            "target_rank": effective_rank(targets[0].permute(0, 2, 3, 1)[hidden]),
        }

    def _masks(self, encoder: BevEncoder, sweeps: Sequence[Sparse]) -> tuple[Masks, list[Tensor]]:
        """Masks by the union of occupied cells, and which voxels of each sweep are hidden."""
        every = torch.cat([sweep.sites for sweep in sweeps])
        union = Sparse(torch.zeros(len(every), 0, device=every.device), every, sweeps[0].shape, sweeps[0].batch)
        masks = draw_masks(union, encoder.stride, encoder.bev_shape, self.ratio)
        return masks, list(masks.voxel_hidden.split([len(sweep.sites) for sweep in sweeps]))

    def follow(self, encoder: BevEncoder, progress: float) -> None:
        """EMA as in `Jepa`."""
        follow(self.target, encoder, progress)
