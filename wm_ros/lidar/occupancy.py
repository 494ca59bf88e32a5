"""The forecast: past rasters and two BEV embeddings become log-odds of occupancy at every horizon, on cells of 0.4 m.

A small U-Net corrects a logistic regression on the same features, so that it starts from a strong baseline instead of
finding it. It works on cells of 0.8 m (the BEV map's) with the 2 × 2 finer ones as channels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from wm_ros.lidar.baselines import FEATURES, Past
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
    """U-Net; `linear` (K, 17) is the logistic regression, fitted before training and kept.

    Args:
        bev_channels: of the embeddings.
    """

    linear: Tensor

    def __init__(self, config: OccupancyConfig, bev_channels: int) -> None:
        super().__init__()
        horizons, channels = len(config.horizons_s), config.channels
        fine = channels[0]
        self.register_buffer("linear", torch.zeros(horizons, FEATURES))
        self.squeeze = nn.Conv2d(bev_channels, fine // 2, 1)
        rasters = config.sweeps + 2 * len(config.older)
        self.stem = nn.Conv2d(4 * (FEATURES - 1 + rasters + horizons), fine, 1)
        self.down = nn.ModuleList([nn.Sequential(_layer(fine + 2 * (fine // 2), fine), _layer(fine, fine))])
        self.up = nn.ModuleList()
        for wide, narrow in zip(channels[1:], channels[:-1], strict=True):
            self.down.append(nn.Sequential(_layer(narrow, wide, 2), _layer(wide, wide)))
            self.up.append(_layer(wide + narrow, narrow))
        self.deepest = _layer(channels[-1], channels[-1])
        self.out = nn.Conv2d(fine, 4 * horizons, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, rasters: Tensor, embedding: Tensor, past: Tensor) -> Tensor:
        """Log-odds (B, K, cells, cells).

        Args:
            features: (B, 17, cells, cells), the constant last. rasters: (B, R, cells, cells), see `rasters`.
            embedding, past: (B, C, cells / 2, cells / 2) of the newest sweep and an earlier one, in its frame.
        """
        # A cell of 0.8 m has its four finer ones as channels; the logistic regression is one more input.
        start = torch.einsum("kf,bfyx->bkyx", self.linear, features)
        x = self.stem(F.pixel_unshuffle(torch.cat([features[:, :-1], rasters, start], 1), 2))
        x = torch.cat([x, self.squeeze(embedding), self.squeeze(past)], 1)
        # Down to coarse cells, where a fast car is a neighbour of where it will be, and up again.
        scales = []
        for level in self.down:
            x = level(x)
            scales.append(x)
        x = self.deepest(x)
        for level, skip in zip(reversed(self.up), reversed(scales[:-1]), strict=True):
            x = level(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], 1))
        # A correction of the regression, at 0.4 m.
        return start + F.pixel_shuffle(self.out(x), 2)


def rasters(past: Past, older: Past | None, config: OccupancyConfig) -> NDArray[np.float32]:
    """(R, cells, cells): occupied cells of the last sweeps, newest first, then occupied and visible ones of the older.

    Args:
        older: those of `config.older` that there were, in that order; None for none. Zeros for sweeps that were not.
    """
    out = np.zeros((config.sweeps + 2 * len(config.older), config.cells, config.cells), np.float32)
    out[: len(past.occupied)] = past.occupied
    if older is not None:
        first = config.sweeps
        out[first : first + len(older.occupied)] = older.occupied
        first += len(config.older)
        out[first : first + len(older.visible)] = older.visible
    return out


def forecast_loss(logits: Tensor, occupied: Tensor, scored: Tensor) -> Tensor:
    """Binary cross-entropy over scored cells, mean over horizons; all (B, K, cells, cells)."""
    loss = F.binary_cross_entropy_with_logits(logits, occupied, reduction="none") * scored
    return (loss.sum((0, 2, 3)) / scored.sum((0, 2, 3)).clamp_min(1.0)).mean()
