"""The forecast: past rasters and two BEV embeddings become log-odds of occupancy at every horizon, on cells of 0.4 m.

A small U-Net corrects a logistic regression on the same features, so that it starts from a strong baseline instead of
finding it. It works on cells of 0.8 m (the BEV map's) with the 2 × 2 finer ones as channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_ros.lidar.baselines import FEATURES
from wm_ros.lidar.config import OccupancyConfig


def warp(past: Tensor, there_from_here: Tensor, cell_m: float) -> Tensor:
    """A BEV map of another frame seen from this one, bilinear, zeros where it does not reach.

    Args:
        past: (B, C, rows, columns). there_from_here: (B, 4, 4), points of this frame → the frame of `past`.
    """
    half = torch.tensor([past.shape[3], past.shape[2]], dtype=past.dtype, device=past.device) * cell_m / 2
    rotation = there_from_here[:, :2, :2].to(past) * (half[None, None, :] / half[None, :, None])
    shift = there_from_here[:, :2, 3].to(past) / half
    theta = torch.cat([rotation, shift[:, :, None]], 2)
    return F.grid_sample(past, F.affine_grid(theta, list(past.shape), align_corners=False), align_corners=False)


def _layer(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


class ForecastHead(nn.Module):
    """U-Net of three scales; `linear` (K, 17) is the logistic regression, fitted before training and kept.

    Args:
        bev_channels: of the embeddings.
    """

    linear: Tensor

    def __init__(self, config: OccupancyConfig, bev_channels: int) -> None:
        super().__init__()
        horizons = len(config.horizons_s)
        fine, middle, coarse = config.channels
        self.register_buffer("linear", torch.zeros(horizons, FEATURES))
        self.squeeze = nn.Conv2d(bev_channels, fine // 2, 1)
        self.stem = nn.Conv2d(4 * (FEATURES - 1 + config.sweeps + horizons), fine, 1)
        self.fine = nn.Sequential(_layer(fine + 2 * (fine // 2), fine), _layer(fine, fine))
        self.middle = nn.Sequential(_layer(fine, middle, 2), _layer(middle, middle))
        self.coarse = nn.Sequential(_layer(middle, coarse, 2), _layer(coarse, coarse), _layer(coarse, coarse))
        self.up_middle = _layer(coarse + middle, middle)
        self.up_fine = _layer(middle + fine, fine)
        self.out = nn.Conv2d(fine, 4 * horizons, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, occupied: Tensor, embedding: Tensor, past: Tensor) -> Tensor:
        """Log-odds (B, K, cells, cells).

        Args:
            features: (B, 17, cells, cells), the constant last. occupied: (B, sweeps, cells, cells), newest first.
            embedding, past: (B, C, cells / 2, cells / 2) of the newest sweep and an earlier one, in its frame.
        """
        start = torch.einsum("kf,bfyx->bkyx", self.linear, features)
        stem = self.stem(F.pixel_unshuffle(torch.cat([features[:, :-1], occupied, start], 1), 2))
        fine = self.fine(torch.cat([stem, self.squeeze(embedding), self.squeeze(past)], 1))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.up_middle(torch.cat([_twice(coarse), middle], 1))
        fine = self.up_fine(torch.cat([_twice(middle), fine], 1))
        return start + F.pixel_shuffle(self.out(fine), 2)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def forecast_loss(logits: Tensor, occupied: Tensor, scored: Tensor) -> Tensor:
    """Binary cross-entropy over scored cells, mean over horizons; all (B, K, cells, cells)."""
    loss = F.binary_cross_entropy_with_logits(logits, occupied, reduction="none") * scored
    return (loss.sum((0, 2, 3)) / scored.sum((0, 2, 3)).clamp_min(1.0)).mean()
