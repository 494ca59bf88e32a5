"""Tokens → image, in two ways.

The mean of the images that a state may stand for is deterministic: their linear estimate and `MeanDecoder`, a network
that corrects it. `FlowDecoder` is the
published one: a rectified flow over autoencoder latents by Stable Diffusion 3's transformer; the tokens, lifted
linearly, take the place of the text, the pooled vector is linear in their mean, and nothing else reaches the decoder.
Where both are there, the flow draws what the mean image leaves of the latents.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from wm_ros.nn.autoencoder import ResidualBlock, zero_conv
from wm_ros.nn.flow import Velocity, conditional_mean, guided, sample
from wm_ros.state.config import StateModelConfig

COARSEST = 16  # the mean decoder begins at a sixteenth of the image


class MeanDecoder(nn.Module):
    """What to add to a coarse image of each state, (B, T, D) and (B, 3, H, W) → (B, 3, H, W); zero until trained.

    A small U-Net over the coarse image; at its bottom the tokens come in, lifted linearly.
    """

    def __init__(self, config: StateModelConfig) -> None:
        super().__init__()
        width, lift, inputs = config.decoder.mean_width, config.decoder.mean_lift, config.tokens * config.token_width
        rows, columns = config.image_height // COARSEST, config.image_width // COARSEST
        self.lift = nn.Sequential(
            nn.Linear(inputs, lift * rows * columns),
            nn.Unflatten(1, (lift, rows, columns)),
            nn.Conv2d(lift, 3 * width, 1),
        )
        self.quarter = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, width, 3, padding=1), ResidualBlock(width))
        self.eighth = nn.Sequential(_halve(width, 2 * width), ResidualBlock(2 * width))
        self.sixteenth = _halve(2 * width, 3 * width)
        self.bottom = nn.Sequential(ResidualBlock(3 * width), ResidualBlock(3 * width), _double(3 * width, 2 * width))
        self.up = nn.Sequential(ResidualBlock(2 * width), ResidualBlock(2 * width), _double(2 * width, width))
        self.pixels = nn.Sequential(
            ResidualBlock(width), ResidualBlock(width), zero_conv(width, 48), nn.PixelShuffle(4)
        )

    def forward(self, tokens: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        quarter = self.quarter(coarse - 0.5)
        eighth = self.eighth(quarter)
        deep = self.bottom(self.sixteenth(eighth) + self.lift(tokens.flatten(1)))
        out: torch.Tensor = self.pixels(quarter + self.up(eighth + deep))
        return out


def _halve(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 4, stride=2, padding=1)


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, 4 * after, 1), nn.PixelShuffle(2))


class FlowDecoder(nn.Module):
    """Tokens (B, T, D) → latents (B, C, h, w) of the autoencoder.

    The flow models latents minus a `centre` (the latents of the mean image, zero where there is none), in units of
    `spread`, the standard deviation of that difference.
    """

    spread: torch.Tensor

    def __init__(self, config: StateModelConfig) -> None:
        super().__init__()
        decoder, (channels, height, width) = config.decoder, config.latent_shape
        self.latent_shape = config.latent_shape
        inner = decoder.heads * decoder.head_width
        self.text = nn.Linear(config.token_width, decoder.text_width)
        self.pooled = nn.Linear(config.token_width, decoder.pooled_width)
        transformer: Any = SD3Transformer2DModel(
            sample_size=max(height, width),
            patch_size=decoder.patch,
            in_channels=channels,
            out_channels=channels,
            num_layers=decoder.layers,
            attention_head_dim=decoder.head_width,
            num_attention_heads=decoder.heads,
            joint_attention_dim=decoder.text_width,
            caption_projection_dim=inner,
            pooled_projection_dim=decoder.pooled_width,
            pos_embed_max_size=max(height, width) // decoder.patch,
        )
        # a prediction of zero is the best first guess of something centred
        nn.init.zeros_(transformer.proj_out.weight)
        nn.init.zeros_(transformer.proj_out.bias)
        self.transformer: nn.Module = transformer
        self.register_buffer("spread", torch.ones(()))

    def velocity(self, tokens: torch.Tensor) -> Velocity:
        """The flow of the centred and scaled latents, given tokens."""
        text, pooled = self.text(tokens), self.pooled(tokens.mean(1))

        def velocity(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            # σ counts in thousandths there, as in the released weights
            out: torch.Tensor = self.transformer(z, text, pooled, timestep=sigma * 1000.0, return_dict=False)[0]
            return out

        return velocity

    def mean(self, tokens: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
        """Conditional mean of the latents, in one step."""
        return centre + self.spread * conditional_mean(self.velocity(tokens), centre)

    def draw(
        self, tokens: torch.Tensor, centre: torch.Tensor, generator: torch.Generator, steps: int, guidance: float
    ) -> torch.Tensor:
        """One sample of the latents. Unconditional means zero tokens for the flow; the centre stays."""
        velocity = guided(self.velocity(tokens), self.velocity(torch.zeros_like(tokens)), guidance)
        return centre + self.spread * sample(velocity, centre.shape, steps, generator)
