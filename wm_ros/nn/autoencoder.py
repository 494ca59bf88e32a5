"""A small deterministic image autoencoder: (3, H, W) ↔ latents at an eighth of the size.

It stands where Stable Diffusion 3 has its VAE. Both halves are a linear map of 8 × 8 patches plus a convolutional
correction that starts at zero: `fit_linear` sets the linear maps to the principal components of patches, so that
training starts at the quality of block-wise PCA and latents are centred and of comparable spread from the first step.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from wm_ros.bundle import StrictModel

PATCH = 8


class AutoencoderConfig(StrictModel):
    """Latents have `channels` numbers per 8 × 8 patch; `width` channels inside, `blocks` residual blocks per stage."""

    channels: int = 16
    width: int = 64
    blocks: int = 2


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions on a residual path; the second starts at zero. (B, C, h, w) → same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.second(functional.silu(self.first(self.norm(x))))
        return out


def zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3 × 3 convolution that starts at zero: a correction that is not there until it is learned."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class ImageAutoencoder(nn.Module):
    """`encode`: images (B, 3, H, W) in 0..1 → latents (B, channels, H/8, W/8); `decode`: back, not clipped."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        width, channels = config.width, config.channels
        self.config = config
        self.linear_encode = nn.Conv2d(3, channels, PATCH, stride=PATCH)
        self.linear_decode = nn.ConvTranspose2d(channels, 3, PATCH, stride=PATCH)
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, width, 3, padding=1),
            ResidualBlock(width),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            *(ResidualBlock(2 * width) for _ in range(config.blocks)),
            zero_conv(2 * width, channels),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, 2 * width, 3, padding=1),
            *(ResidualBlock(2 * width) for _ in range(config.blocks)),
            nn.Conv2d(2 * width, 4 * width, 1),
            nn.PixelShuffle(2),
            *(ResidualBlock(width) for _ in range(config.blocks)),
            zero_conv(width, 48),
            nn.PixelShuffle(4),
        )

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear_encode(images) + self.encoder(images - 0.5)
        return out

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear_decode(latents) + self.decoder(latents)
        return out

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Reconstruct (B, 3, H, W)."""
        return self.decode(self.encode(images))

    @torch.no_grad()
    def fit_linear(self, images: torch.Tensor, tempering: float = 0.5) -> None:
        """Set the linear maps to the principal components of 8 × 8 patches of `images` (B, 3, H, W).

        Latents are centred; channel i has spread std_i^(1 − tempering), scaled to a mean square of 1, so coarse
        channels stay larger than fine ones but by less than in the image.
        """
        patches = functional.unfold(images, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        covariance = (patches - mean).T.double() @ (patches - mean).double() / len(patches)
        values, vectors = torch.linalg.eigh(covariance)
        channels = self.config.channels
        basis = vectors.flip(1)[:, :channels].T.float()
        std = values.flip(0)[:channels].clamp_min(1e-10).sqrt().float()
        std = std.clamp_min(1e-3 * float(std[0]))
        scale = std**tempering
        scale *= ((std / scale).square().mean()).sqrt()
        encode = (basis / scale[:, None]).view(channels, 3, PATCH, PATCH)
        self.linear_encode.weight.copy_(encode)
        self.linear_encode.bias.copy_(-(encode.flatten(1) @ mean))  # type: ignore[union-attr]
        self.linear_decode.weight.copy_((basis * scale[:, None]).view(channels, 3, PATCH, PATCH))
        # the mean patch is flat but for rounding, so one bias per colour holds it
        self.linear_decode.bias.copy_(mean.view(3, -1).mean(1))  # type: ignore[union-attr]


def autoencoder_loss(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """L1 + MSE (scalar); the weight of the square makes both count alike at an error of about 0.05."""
    return functional.l1_loss(images, truth) + 10.0 * functional.mse_loss(images, truth)
