"""Image → patch features, behind one interface: (B, 3, H, W) in 0..1 → (B, patches, width)."""

from __future__ import annotations

import torch
from torch import nn

from wm_ros.errors import UserError
from wm_ros.nn.attention import TransformerBlock
from wm_ros.nn.autoencoder import ResidualBlock
from wm_ros.state.config import FeatureConfig


class PatchTransformer(nn.Module):
    """A small vision transformer, trained together with what follows."""

    def __init__(self, config: FeatureConfig, height: int, width: int) -> None:
        super().__init__()
        patches = (height // config.patch) * (width // config.patch)
        self.embed = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.position = nn.Parameter(torch.randn(1, patches, config.width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.embed(images - 0.5).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.norm(x)
        return out


class ConvFeatures(nn.Module):
    """A small convolutional network, trained together with what follows; one feature per 16 × 16 pixels."""

    def __init__(self, config: FeatureConfig, height: int, width: int) -> None:
        super().__init__()
        third = config.width // 3
        self.net = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, third, 3, padding=1),
            ResidualBlock(third),
            nn.Conv2d(third, 2 * third, 4, stride=2, padding=1),
            ResidualBlock(2 * third),
            nn.Conv2d(2 * third, config.width, 4, stride=2, padding=1),
            *(ResidualBlock(config.width) for _ in range(config.depth)),
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.net(images - 0.5).flatten(2).transpose(1, 2))
        return out


def make_features(config: FeatureConfig, height: int, width: int) -> nn.Module:
    """The extractor that `config` names, for images of `height` × `width`."""
    if config.kind == "conv" and config.patch != 16:
        raise UserError(f"features.patch = {config.patch}: the features of kind conv have one of 16")
    if height % config.patch or width % config.patch:
        raise UserError(f"features.patch = {config.patch} does not divide the image of {width} × {height}")
    # released models need libraries that the small networks do without
    if config.kind == "dinov2":
        from wm_ros.state.features_dinov2 import Dinov2Features

        return Dinov2Features(config, height, width)
    if config.kind == "diffusion":
        from wm_ros.state.features_diffusion import DiffusionFeatures

        return DiffusionFeatures(config, height, width)
    kinds = {"conv": ConvFeatures, "vit": PatchTransformer}
    return kinds[config.kind](config, height, width)
