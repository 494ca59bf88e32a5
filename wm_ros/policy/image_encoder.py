"""From an image to one token, by a small convolutional network (that of Mnih et al. 2015, with a projection).

Small on purpose: it has to be learned from a few dozen demonstrations, and a robot has two CPU cores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_ros.policy.config import CameraConfig


class ImageEncoder(nn.Module):
    """Images of one camera → tokens.

    Attributes:
        arithmetic: of the convolutions; bfloat16 takes half the time where the processor has it.
    """

    def __init__(self, config: CameraConfig, width: int) -> None:
        super().__init__()
        narrow, wide = config.channels, 2 * config.channels
        self.arithmetic = torch.float32
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, narrow, 8, 4),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 4, 2),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            found = self.convolutions(torch.zeros(1, 3, *config.size)).shape[1]
        self.features = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(found, config.features))
        self.token = nn.Linear(config.features, width)

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float 0..255 → (B, width)."""
        x = (rgb.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        if self.arithmetic == torch.float32:
            found = self.convolutions(x)
        else:
            with torch.autocast(x.device.type, self.arithmetic):
                found = self.convolutions(x)
        token: Tensor = self.token(self.features(found.float()))
        return token
