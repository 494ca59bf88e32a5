"""Frames from what stage II drew: what stays as it is keeps the camera's own pixels, what moved is drawn.

The autoencoder loses detail, and a mean over futures is blurred where something moves. A small convolutional network
sees the current image, how the autoencoder draws it, and the drawn future, and says at each pixel how much of the
current image to keep and what to add to the drawing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Composition(nn.Module):
    """U-Net of two scales over nine channels; untrained, it keeps what the drawing does not change."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.fine = _convolutions(9, width)
        self.middle = _convolutions(width, 2 * width)
        self.coarse = _convolutions(2 * width, 2 * width)
        self.join_middle = _convolutions(4 * width, width)
        self.join_fine = _convolutions(2 * width, width)
        self.out = nn.Conv2d(width, 4, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, current: Tensor, decoded_current: Tensor, decoded: Tensor) -> Tensor:
        """The camera's image, the same through the autoencoder, the drawn future → the frame; all (B, 3, H, W)."""
        fine = self.fine(torch.cat([current, decoded_current, decoded], 1) - 0.5)
        middle = self.middle(functional.avg_pool2d(fine, 2))
        coarse = self.coarse(functional.avg_pool2d(middle, 2))
        middle = self.join_middle(torch.cat([middle, _doubled(coarse)], 1))
        fine = self.join_fine(torch.cat([fine, _doubled(middle)], 1))
        kept, added = self.out(fine).split([1, 3], 1)
        keep = torch.sigmoid(kept + self._unchanged(decoded_current, decoded))
        return keep * current + (1 - keep) * (decoded + added)

    def _unchanged(self, decoded_current: Tensor, decoded: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of keeping: high where the two drawings differ by less than `scale` (brightness 0..1)."""
        change = functional.avg_pool2d((decoded - decoded_current).abs().mean(1, keepdim=True), 9, 1, 4)
        return 4.0 * (1.0 - change / self.scale)


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.GELU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.GELU()
    )


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
