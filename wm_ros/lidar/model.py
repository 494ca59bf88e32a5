"""What a lidar bundle holds: the encoder, the forecast head and, where it was trained, the detection head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.detection import DetectionHead
from wm_ros.lidar.encoder import BevEncoder
from wm_ros.lidar.occupancy import ForecastHead


class LidarModel(nn.Module):
    """Encoder, heads, and the pooling of a BEV map to tokens; `detector` is None for a bundle without one."""

    def __init__(self, config: LidarConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BevEncoder(config)
        self.head = ForecastHead(config.occupancy, self.encoder.bev_channels)
        self.detector = (
            None
            if config.detection is None
            else DetectionHead(config.detection, self.encoder.bev_channels, self.encoder.cell_m)
        )

    def tokens(self, bev: Tensor) -> Tensor:
        """(B, C, rows, columns) → (B, T, C), T = token_grid², row by row."""
        side = self.config.token_grid
        return F.adaptive_avg_pool2d(bev, side).flatten(2).transpose(1, 2)
