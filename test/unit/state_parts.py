"""A tiny state model with random weights, for the tests of `state`."""

from pathlib import Path

import numpy as np
import torch

from wm_ros.bundle import BundleConfig, TrainingRecord, save_bundle
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.state.config import CompressorConfig, DecoderConfig, FeatureConfig, StateModelConfig
from wm_ros.state.model import StateModel

CONFIG = StateModelConfig(
    image_height=32,
    image_width=48,
    token_width=16,
    features=FeatureConfig(width=24, depth=1),
    compressor=CompressorConfig(blocks=1, heads=2, context_width=8, stages=(8, 4, 2), shortcut=4),
    autoencoder=AutoencoderConfig(channels=4, width=8, blocks=1),
    decoder=DecoderConfig(layers=1, heads=2, head_width=8, text_width=16, pooled_width=16, mean_width=8, mean_lift=8),
)


def write_bundle(path: Path, more: dict[str, torch.Tensor] | None = None) -> Path:
    """An untrained bundle whose linear path is fitted to random images; `more`: tensors beside the model's."""
    torch.manual_seed(0)
    model = StateModel(CONFIG)
    model.linear.fit(np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3), dtype=np.uint8), emphasis=0.0)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    record = TrainingRecord(command="none", data=["random"], data_licence="none", seed=0, steps=0)
    config = BundleConfig[StateModelConfig](capability="state", name="tiny", model=CONFIG, training=record)
    save_bundle(path, config, tensors | (more or {}), "# tiny\n")
    return path
