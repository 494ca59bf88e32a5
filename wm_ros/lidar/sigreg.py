"""JEPA without a teacher: shared weights, L2, and a regulariser that makes the embedding an isotropic Gaussian.

SIGReg (LeJEPA, arXiv 2511.08544) projects the embedding on random directions and compares each projection's
characteristic function with that of N(0, 1) (Epps–Pulley). AD-LiST-JEPA (2602.12540) uses it instead of variance hinge
and EMA. The encoder ends in ReLU and cannot be centred, so a linear map follows it here, in training only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wm_ros.lidar.encoder import BevEncoder
from wm_ros.lidar.jepa import EMPTY_WEIGHT, OCCUPIED_WEIGHT, Predictor, draw_masks, keep_voxels, put
from wm_ros.lidar.representation import effective_rank
from wm_ros.lidar.sparse import Sparse

DIRECTIONS, KNOTS, REACH = 256, 17, 3.0


def gaussian_distance(values: Tensor, directions: int = DIRECTIONS) -> Tensor:
    """Mean Epps–Pulley statistic, per value, of `values` (N, C) along random directions; 0 for a perfect N(0, I)."""
    axes = nn.functional.normalize(torch.randn(values.shape[1], directions, device=values.device), dim=0)
    knots = torch.linspace(0, REACH, KNOTS, device=values.device)
    wanted = torch.exp(-knots * knots / 2)
    angle = (values @ axes)[..., None] * knots
    distance = (torch.cos(angle).mean(0) - wanted) ** 2 + torch.sin(angle).mean(0) ** 2
    return torch.trapezoid(distance * wanted, knots).mean() * (2 / math.sqrt(2 * math.pi))


class SigReg(nn.Module):
    """Same interface as `Jepa`.

    Args:
        ratio: share of cells that are hidden. weight: of the regulariser against the prediction's squared error.
    """

    past: tuple[int, ...] = ()
    compensated = False

    def __init__(self, encoder: BevEncoder, ratio: float = 0.5, weight: float = 5.0, samples: int = 2048) -> None:
        super().__init__()
        channels = encoder.bev_channels
        self.ratio, self.weight, self.samples = ratio, weight, samples
        self.predictor = Predictor(channels)
        self.project = nn.Conv2d(channels, channels, 1)
        self.read = nn.Conv2d(channels, channels, 1)
        self.mask_token = nn.Parameter(torch.randn(channels))
        self.empty_token = nn.Parameter(torch.randn(channels))

    def forward(self, encoder: BevEncoder, x: Sparse) -> dict[str, Tensor]:
        """Squared error at hidden cells, and how far the embedding of occupied cells is from N(0, I)."""
        masks = draw_masks(x, encoder.stride, encoder.bev_shape, self.ratio)
        context = encoder(keep_voxels(x, ~masks.voxel_hidden))
        target = encoder(keep_voxels(x, masks.voxel_hidden))
        visible, hidden = ~masks.hidden & masks.occupied, masks.hidden & masks.occupied
        hidden_empty = masks.hidden & ~masks.occupied
        context = put(put(context, masks.hidden, self.mask_token), ~masks.hidden & ~masks.occupied, self.empty_token)
        target = self.project(put(target, hidden_empty, self.empty_token))
        error = ((self.read(self.predictor(context)) - target) ** 2).mean(1)
        distance = OCCUPIED_WEIGHT * error[hidden].mean() + EMPTY_WEIGHT * error[hidden_empty].mean()
        embedded = torch.cat([_rows(target, hidden), _rows(self.project(context), visible)])
        chosen = torch.randperm(len(embedded), device=embedded.device)[: self.samples]
        gaussian = gaussian_distance(embedded[chosen])
        return {
            "loss": distance + self.weight * gaussian,
            "jepa_distance": distance,
            "gaussian_distance": gaussian,
            "target_rank": effective_rank(_rows(target.detach(), hidden)),
        }

    def follow(self, encoder: BevEncoder, progress: float) -> None:
        """There is no teacher to follow."""


def _rows(features: Tensor, cells: Tensor) -> Tensor:
    return features.permute(0, 2, 3, 1)[cells]
