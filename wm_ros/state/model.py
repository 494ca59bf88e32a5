"""The state model: image → tokens → image."""

from __future__ import annotations

import torch
from torch import nn

from wm_ros.nn.autoencoder import ImageAutoencoder
from wm_ros.state.compressor import Compressor
from wm_ros.state.config import StateModelConfig
from wm_ros.state.decoder import FlowDecoder, MeanDecoder
from wm_ros.state.features import make_features
from wm_ros.state.linear import LinearPath


class StateModel(nn.Module):
    """Images are (B, 3, H, W) in 0..1 of the config's size, tokens (B, T, D)."""

    def __init__(self, config: StateModelConfig) -> None:
        super().__init__()
        self.config = config
        self.features = make_features(config.features, config.image_height, config.image_width)
        sizes = config.patches, config.features.width, config.token_width
        self.compressor = Compressor(config.compressor, *sizes, start_at_zero=config.linear_path)
        self.linear: LinearPath | None = None
        self._add_decoder(config)

    def _add_decoder(self, config: StateModelConfig) -> None:
        if config.linear_path:
            self.linear = LinearPath(config.tokens * config.token_width, config.image_height, config.image_width)
            self.mean_decoder = MeanDecoder(config)
        self.autoencoder = ImageAutoencoder(config.autoencoder)
        self.flow = FlowDecoder(config)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The state of each image."""
        tokens: torch.Tensor = self.compressor(self.features(images))
        if self.linear is not None:
            tokens = tokens + self.linear.encode(images).view_as(tokens)
        return tokens

    def reconstruct(self, tokens: torch.Tensor) -> torch.Tensor:
        """The deterministic image of a state, not clipped: the conditional mean (of the flow in one step, if alone)."""
        if self.linear is None:
            return self.autoencoder.decode(self.flow.mean(tokens, self.centre(tokens)))
        coarse = self.linear.decode(tokens.flatten(1))
        return coarse + self.mean_decoder(tokens, coarse)

    def draw(self, tokens: torch.Tensor, seed: int, steps: int = 8, guidance: float = 1.0) -> torch.Tensor:
        """One possible image of a state, drawn from the flow."""
        generator = torch.Generator(tokens.device).manual_seed(seed)
        return self.autoencoder.decode(self.flow.draw(tokens, self.centre(tokens), generator, steps, guidance))

    def centre(self, tokens: torch.Tensor) -> torch.Tensor:
        """Where the flow starts from: latents of the mean image, (B, C, h, w); zero without a linear path."""
        if self.linear is None:
            return tokens.new_zeros(len(tokens), *self.config.latent_shape)
        return self.autoencoder.encode(self.reconstruct(tokens).clamp(0.0, 1.0))
