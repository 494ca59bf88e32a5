"""From an image to one token: where in it the things are that a hand must know of.

A few convolutions give K maps; the softmax of each over the image has a mean place, its keypoint (Levine et al. 2016,
"spatial softmax"; Finn et al. 2016), to a fraction of a pixel and with no weights but those of the convolutions. K
places and K values there are all that is kept, which is little enough to be learned from a few dozen demonstrations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_ros.policy.config import CameraConfig

STRIDE = 4
SHARPNESS = 2.0  # of the softmax, at the beginning


class KeypointEncoder(nn.Module):
    """Images of one camera → tokens.

    Attributes:
        arithmetic: of the convolutions; bfloat16 takes half the time where the processor has it. The places are
            always found in float32.
    """

    def __init__(self, config: CameraConfig, width: int) -> None:
        super().__init__()
        narrow, wide, maps = config.channels // 2, config.channels, 2 * config.keypoints
        self.arithmetic = torch.float32
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, narrow, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(wide, maps, 1),
        )
        self.sharpness = nn.Parameter(torch.full((config.keypoints, 1), SHARPNESS))
        self.token = nn.Linear(3 * config.keypoints, width)

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float 0..255 → (B, width)."""
        x = (rgb.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, self.arithmetic, enabled=self.arithmetic != torch.float32):
            maps = self.convolutions(x)
        token: Tensor = self.token(self.keypoints(maps.float()).flatten(1))
        return token

    def keypoints(self, maps: Tensor) -> Tensor:
        """(B, 2K, h, w) → (B, 3, K): places right and down, -1..1, and what the other K maps say there."""
        where, what = maps.chunk(2, 1)
        height, width = where.shape[-2:]
        weight = (where.flatten(2) * self.sharpness).softmax(-1)
        down, right = torch.meshgrid(
            torch.linspace(-1, 1, height, device=maps.device),
            torch.linspace(-1, 1, width, device=maps.device),
            indexing="ij",
        )
        planes = (right.flatten(), down.flatten(), what.flatten(2))
        return torch.stack([(weight * plane).sum(-1) for plane in planes], 1)
