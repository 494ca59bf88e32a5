"""What JEPA is held against: pre-training by drawing the hidden voxels themselves (after Occupancy-MAE, 2206.09900).

The same masks and the same encoder; instead of an embedding, the decoder says which voxels of each hidden BEV cell are
occupied, in bins of height and quarters of the cell. It has as many convolutions as JEPA's predictor.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_ros.lidar.encoder import BevEncoder
from wm_ros.lidar.jepa import Predictor, draw_masks, keep_voxels
from wm_ros.lidar.sparse import Sparse

HEIGHTS = 10
POSITIVE_WEIGHT = 5.0  # a voxel of a hidden cell is empty far more often than not


class OccupancyReconstruction(nn.Module):
    """Same interface as `Jepa`: `forward` gives the loss of a batch, `follow` comes after each step."""

    past: tuple[int, ...] = ()
    compensated = False

    def __init__(self, encoder: BevEncoder, ratio: float = 0.5) -> None:
        super().__init__()
        self.ratio = ratio
        self.mask_token = nn.Parameter(torch.randn(encoder.bev_channels))
        self.decoder = nn.Sequential(Predictor(encoder.bev_channels), nn.Conv2d(encoder.bev_channels, 4 * HEIGHTS, 1))

    def forward(self, encoder: BevEncoder, x: Sparse) -> dict[str, Tensor]:
        """Weighted binary cross-entropy over the voxels of hidden cells, empty ones included."""
        masks = draw_masks(x, encoder.stride, encoder.bev_shape, self.ratio)
        context = encoder(keep_voxels(x, ~masks.voxel_hidden))
        context = torch.where(masks.hidden[:, None], self.mask_token[None, :, None, None], context)
        logits = F.pixel_shuffle(self.decoder(context), 2)
        truth = self._truth(x, encoder)
        hidden = masks.hidden[:, None].float().repeat_interleave(2, 2).repeat_interleave(2, 3).expand_as(truth)
        weight = torch.tensor(POSITIVE_WEIGHT, device=logits.device)
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none", pos_weight=weight)
        loss = (each * hidden).sum() / hidden.sum().clamp_min(1)
        return {"loss": loss, "reconstruction_bce": loss}

    def follow(self, encoder: BevEncoder, progress: float) -> None:
        """Nothing follows the encoder here."""

    @staticmethod
    def _truth(x: Sparse, encoder: BevEncoder) -> Tensor:
        """(B, HEIGHTS, 2 rows, 2 columns): whether a voxel lies in each bin of height of each quarter cell."""
        rows, columns = encoder.bev_shape
        b, z, y, column = x.sites.unbind(1)
        bins = (z * HEIGHTS // x.shape[0]).clamp_max(HEIGHTS - 1)
        row = (2 * y // encoder.stride[0]).clamp_max(2 * rows - 1)
        column = (2 * column // encoder.stride[1]).clamp_max(2 * columns - 1)
        truth = torch.zeros(x.batch, HEIGHTS, 2 * rows, 2 * columns, device=x.sites.device)
        truth[b, bins, row, column] = 1.0
        return truth
