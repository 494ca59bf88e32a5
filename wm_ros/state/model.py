"""The state model: image → tokens → image."""

from __future__ import annotations

import torch
from torch import nn

from wm_ros.nn.autoencoder import ImageAutoencoder
from wm_ros.state.compressor import Compressor
from wm_ros.state.config import StateModelConfig
from wm_ros.state.decoder import ImageDecoder
from wm_ros.state.features import make_features
from wm_ros.state.linear import LinearPath


class StateModel(nn.Module):
    """Images are (B, 3, H, W) in 0..1 of the config's size, tokens (B, T, D)."""

    def __init__(self, config: StateModelConfig) -> None:
        super().__init__()
        self.config = config
        numbers = config.tokens * config.token_width
        height, width = config.image_height, config.image_width
        self.features = make_features(config.features, height, width)
        self.compressor = Compressor(
            config.compressor, config.patches, config.features.width, config.token_width, config.linear_path
        )
        self.linear = LinearPath(numbers, height, width) if config.linear_path else None
        self.autoencoder = ImageAutoencoder(config.autoencoder)
        self.decoder = ImageDecoder(config)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The state of each image. The first token holds the coarse components, the second the fine ones."""
        tokens: torch.Tensor = self.compressor(self.features(images))
        if self.linear is not None:
            tokens = tokens + self.linear.encode(images).view_as(tokens)
        return tokens

    def reconstruct(self, tokens: torch.Tensor) -> torch.Tensor:
        """The deterministic image of a state: the conditional mean, not clipped."""
        coarse = None if self.linear is None else self.linear.decode(tokens.flatten(1))
        return self.decoder.reconstruct(tokens, coarse, self.autoencoder)

    def draw(self, tokens: torch.Tensor, seed: int, steps: int = 8, guidance: float = 1.0) -> torch.Tensor:
        """One possible image of a state, drawn from the flow."""
        generator = torch.Generator(tokens.device).manual_seed(seed)
        return self.autoencoder.decode(self.decoder.flow.draw(tokens, generator, steps, guidance))
