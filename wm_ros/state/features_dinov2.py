"""DINOv2 (arXiv 2304.07193), with registers (arXiv 2309.16588) or without: frozen patch features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from wm_ros.errors import UserError
from wm_ros.nn.frozen import Frozen
from wm_ros.state.config import FeatureConfig
from wm_ros.state.folders import REMEDY, load_into, read_json, take

# DINOv2 was trained on images normalised by ImageNet's statistics.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TYPES = {"dinov2": Dinov2Config, "dinov2_with_registers": Dinov2WithRegistersConfig}
# what decides over the shape and the function of the network
SETTINGS = (
    "image_size",
    "mlp_ratio",
    "hidden_act",
    "layer_norm_eps",
    "qkv_bias",
    "layerscale_value",
    "use_swiglu_ffn",
)


class Dinov2Features(Frozen):
    """The sizes come from the config, the weights from the bundle or from `load_folder`.

    Position embeddings are interpolated from the resolution that the weights were trained at.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: FeatureConfig, height: int, width: int) -> None:
        super().__init__()
        sizes: dict[str, Any] = {
            "image_size": height,
            "patch_size": config.patch,
            "hidden_size": config.width,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.heads,
        } | config.architecture.get("dinov2", {})
        if config.registers:
            registers = Dinov2WithRegistersConfig(**sizes, num_register_tokens=config.registers)
            self.backbone: nn.Module = Dinov2WithRegistersModel(registers)
        else:
            self.backbone = Dinov2Model(Dinov2Config(**sizes))
        self.requires_grad_(False).eval()
        self.skipped = 1 + config.registers
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def load_folder(self, folder: Path) -> None:
        """Take pre-trained weights. Raises UserError if they do not fit."""
        load_into(self.backbone, folder)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.backbone((images - self.mean) / self.std).last_hidden_state
        out: torch.Tensor = hidden[:, self.skipped :]
        return out


def dinov2_config(given: FeatureConfig, folder: Path) -> FeatureConfig:
    """`given` with the sizes of a DINOv2 folder. Raises UserError: no such model, or sizes given that differ."""
    raw = read_json(folder / "config.json")
    if raw.get("model_type") not in TYPES:
        raise UserError(f"'{folder}': model_type = {raw.get('model_type')!r}, not one of {', '.join(TYPES)}; {REMEDY}")
    found: Any = TYPES[raw["model_type"]](**raw)
    sizes = {
        "patch": found.patch_size,
        "width": found.hidden_size,
        "depth": found.num_hidden_layers,
        "heads": found.num_attention_heads,
        "registers": getattr(found, "num_register_tokens", 0),
        "architecture": {"dinov2": {name: getattr(found, name) for name in SETTINGS}},
    }
    return take(given, "features", sizes, folder)
