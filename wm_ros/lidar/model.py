"""What a lidar bundle holds: the encoder, the forecast head and, where it was trained, the detection head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.detection import DetectionHead
from wm_ros.lidar.encoder import BevEncoder
from wm_ros.lidar.occupancy import ForecastHead
from wm_ros.lidar.sparse import Sparse


class LidarModel(nn.Module):
    """Encoder, heads, and the pooling of a BEV map to tokens; `detector` is None for a bundle without one."""

    def __init__(self, config: LidarConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BevEncoder(config)
        self.cell_m = 2 * config.occupancy.cell_m
        self.head = ForecastHead(config.occupancy, self.encoder.bev_channels)
        self.detector = (
            None
            if config.detection is None
            else DetectionHead(config.detection, self.encoder.bev_channels, self.cell_m)
        )

    def encode(self, x: Sparse) -> Tensor:
        """BEV maps (B, C, cells / 2, cells / 2) around the sensor, on cells of `cell_m`, as the heads take them."""
        bev = self.encoder(x)
        side = self.config.occupancy.cells // 2
        x0, y0, _, x1, y1, _ = self.config.voxels.range_m
        half_m = side * self.cell_m / 2
        if bev.shape[2:] == (side, side) and (-x0, -y0, x1, y1) == (half_m,) * 4:
            return bev
        # Another grid, such as the paper's, which looks ahead only: bilinear, zeros where it does not reach.
        scale = 2 * half_m / torch.tensor([x1 - x0, y1 - y0])
        shift = -torch.tensor([x1 + x0, y1 + y0]) / torch.tensor([x1 - x0, y1 - y0])
        theta = torch.cat([torch.diag(scale), shift[:, None]], 1).to(bev).expand(len(bev), -1, -1)
        places = F.affine_grid(theta, [len(bev), bev.shape[1], side, side], align_corners=False)
        return F.grid_sample(bev, places, align_corners=False)

    def tokens(self, bev: Tensor) -> Tensor:
        """(B, C, rows, columns) → (B, T, C), T = token_grid², row by row."""
        side = self.config.token_grid
        return F.adaptive_avg_pool2d(bev, side).flatten(2).transpose(1, 2)
