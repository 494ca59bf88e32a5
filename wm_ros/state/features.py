"""Image → patch features, behind one interface: (B, 3, H, W) in 0..1 → (B, patches, width)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from wm_ros.errors import UserError
from wm_ros.nn.attention import TransformerBlock
from wm_ros.nn.autoencoder import ResidualBlock
from wm_ros.state.config import FeatureConfig

# DINOv2 was trained on images normalised by ImageNet's statistics.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


class Dinov2Features(nn.Module):
    """DINOv2, frozen. The sizes come from the config and the weights from the bundle, or from `load_folder`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: FeatureConfig, height: int, width: int) -> None:
        super().__init__()
        from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

        sizes: dict[str, Any] = {
            "image_size": height,
            "patch_size": config.patch,
            "hidden_size": config.width,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.heads,
        }
        if config.registers:
            registers = Dinov2WithRegistersConfig(**sizes, num_register_tokens=config.registers)
            self.backbone: nn.Module = Dinov2WithRegistersModel(registers)
        else:
            self.backbone = Dinov2Model(Dinov2Config(**sizes))
        self.backbone.requires_grad_(False)
        self.skipped = 1 + config.registers
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def load_folder(self, folder: Path) -> None:
        """Take pre-trained weights from a `save_pretrained` folder. Raises UserError if they do not fit."""
        try:
            pretrained = type(self.backbone).from_pretrained(folder, local_files_only=True)  # type: ignore[attr-defined]
            self.backbone.load_state_dict(pretrained.state_dict())
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"DINOv2 weights at '{folder}': {str(error).splitlines()[0]}; give a fitting folder"
            ) from None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            hidden = self.backbone((images - self.mean) / self.std).last_hidden_state
        out: torch.Tensor = hidden[:, self.skipped :]
        return out


def make_features(config: FeatureConfig, height: int, width: int) -> nn.Module:
    """The extractor that `config` names, for images of `height` × `width`."""
    if config.kind == "conv" and config.patch != 16:
        raise UserError(f"features.patch = {config.patch}: the features of kind conv have one of 16")
    if height % config.patch or width % config.patch:
        raise UserError(f"features.patch = {config.patch} does not divide the image of {width} × {height}")
    kinds = {"conv": ConvFeatures, "vit": PatchTransformer, "dinov2": Dinov2Features}
    return kinds[config.kind](config, height, width)
