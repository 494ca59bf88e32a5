"""JEPA with a known transformation: what ego-motion does to a sweep, it shall do to its embedding.

After SIE (split invariant-equivariant learning, arXiv 2302.10283): a predictor that knows the transformation maps the
embedding of one view to that of another. Here the views are two sweeps and the transformation is ego-motion, known from
odometry: the older map is moved by it, and a small network that is told the motion mends what moving cannot explain.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_ros.lidar.encoder import BevEncoder
from wm_ros.lidar.jepa import Jepa
from wm_ros.lidar.occupancy import warp
from wm_ros.lidar.sparse import Sparse


class EquivariantJepa(nn.Module):
    """Same interface as `Jepa`, whose loss it adds to; it wants one earlier sweep, in its own frame.

    Args:
        weight: of the equivariance term.
    """

    past: tuple[int, ...] = (5,)
    compensated = False

    def __init__(self, encoder: BevEncoder, ratio: float = 0.5, weight: float = 0.5) -> None:
        super().__init__()
        channels = encoder.bev_channels
        self.weight = weight
        self.jepa = Jepa(encoder, ratio)
        self.mend = nn.Sequential(
            nn.Conv2d(channels + 3, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(
        self, encoder: BevEncoder, x: Sparse, past: Sequence[Sparse] = (), there_from_here: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Losses.

        Args:
            past: the earlier sweep. there_from_here: (B, 1, 4, 4), points of the newest frame → its frame.
        """
        found = self.jepa(encoder, x)
        assert there_from_here is not None and len(past) == 1
        motion = there_from_here[:, 0].to(x.features)
        older = warp(encoder(past[0]), motion, encoder.cell_m)
        with torch.no_grad():  # the teacher says what the newest sweep looks like
            target = F.normalize(self.jepa.target(x), dim=1)
        told = torch.stack([motion[:, 0, 3] / 10, motion[:, 1, 3] / 10, torch.atan2(motion[:, 1, 0], motion[:, 0, 0])])
        rows, columns = encoder.bev_shape
        told = told.T[:, :, None, None].expand(-1, -1, rows, columns)
        guess = F.normalize(older + self.mend(torch.cat([older, told], 1)), dim=1)
        occupied = target.abs().sum(1) > 0
        term = 1 - (guess * target).sum(1)[occupied].mean()
        return found | {"loss": found["loss"] + self.weight * term, "equivariance": term}

    def follow(self, encoder: BevEncoder, progress: float) -> None:
        """EMA as in `Jepa`."""
        self.jepa.follow(encoder, progress)
