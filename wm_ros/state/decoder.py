"""Tokens → image: a rectified flow over autoencoder latents, drawn by Stable Diffusion 3's transformer.

The tokens, lifted linearly, take the place of the text; the pooled vector is linear in their mean; nothing else
reaches the decoder. The flow models what a linear lift of the tokens leaves of the latents. Two ways to an image:
`reconstruct` is deterministic (conditional mean in one step, corrected by a small U-Net that starts from the linear
path); `draw` follows the flow from noise and gives one sharp image of many possible ones.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import nn
from torch.nn import functional

from wm_ros.nn.autoencoder import ImageAutoencoder, ResidualBlock, zero_conv
from wm_ros.nn.flow import Velocity, conditional_mean, guided, sample
from wm_ros.state.config import StateModelConfig


class Refiner(nn.Module):
    """A correction of a coarse image (B, 3, H, W), given estimated latents (B, C, H/8, W/8); zero until trained."""

    def __init__(self, width: int, latent_channels: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, width, 3, padding=1), ResidualBlock(width))
        self.down = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.latents = nn.Conv2d(latent_channels, 2 * width, 3, padding=1)
        self.middle = nn.Sequential(ResidualBlock(2 * width), ResidualBlock(2 * width))
        self.up = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1), nn.PixelShuffle(2))
        self.leave = nn.Sequential(ResidualBlock(width), ResidualBlock(width), zero_conv(width, 48), nn.PixelShuffle(4))

    def forward(self, coarse: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        fine = self.enter(coarse - 0.5)
        deep = self.middle(self.down(fine) + self.latents(latents))
        out: torch.Tensor = self.leave(fine + self.up(deep))
        return out


class FlowDecoder(nn.Module):
    """Tokens (B, T, D) → latents (B, C, h, w) of the autoencoder."""

    lift_weight: torch.Tensor
    lift_bias: torch.Tensor
    residual_scale: torch.Tensor

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
        # a prediction of zero is the best first guess of a centred residual
        nn.init.zeros_(transformer.proj_out.weight)
        nn.init.zeros_(transformer.proj_out.bias)
        self.transformer: nn.Module = transformer
        # linear lift of the tokens to latents, fitted in closed form; zero where there is no linear path
        inputs = config.tokens * config.token_width if config.linear_path else 0
        self.register_buffer("lift_weight", torch.zeros(channels * height * width, inputs))
        self.register_buffer("lift_bias", torch.zeros(channels * height * width))
        self.register_buffer("residual_scale", torch.ones(()))

    def lift(self, tokens: torch.Tensor) -> torch.Tensor:
        """The linear estimate of the latents."""
        if self.lift_weight.shape[1] == 0:
            return tokens.new_zeros(len(tokens), *self.latent_shape)
        return functional.linear(tokens.flatten(1), self.lift_weight, self.lift_bias).unflatten(1, self.latent_shape)

    def velocity(self, tokens: torch.Tensor) -> Velocity:
        """The flow of the scaled residual latents, given tokens."""
        text, pooled = self.text(tokens), self.pooled(tokens.mean(1))

        def velocity(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            # σ counts in thousandths there, as in the released weights
            out: torch.Tensor = self.transformer(z, text, pooled, timestep=sigma * 1000.0, return_dict=False)[0]
            return out

        return velocity

    def residual(self, latents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What the flow models: the latents without their linear estimate, scaled to unit spread."""
        return (latents - self.lift(tokens)) / self.residual_scale

    def mean(self, tokens: torch.Tensor) -> torch.Tensor:
        """Conditional mean of the latents, in one step."""
        linear = self.lift(tokens)
        return linear + self.residual_scale * conditional_mean(self.velocity(tokens), linear)

    def draw(self, tokens: torch.Tensor, generator: torch.Generator, steps: int, guidance: float) -> torch.Tensor:
        """One sample of the latents. Unconditional means zero tokens for the flow; the linear estimate stays."""
        linear = self.lift(tokens)
        velocity = guided(self.velocity(tokens), self.velocity(torch.zeros_like(tokens)), guidance)
        return linear + self.residual_scale * sample(velocity, linear.shape, steps, generator)

    @torch.no_grad()
    def fit_lift(self, tokens: torch.Tensor, latents: torch.Tensor, ridge: float = 1e-3) -> None:
        """Set the linear lift by ridge regression over (M, T, D) tokens and (M, C, h, w) latents."""
        x, y = tokens.flatten(1).double(), latents.flatten(1).double()
        x_mean, y_mean = x.mean(0), y.mean(0)
        x, y = x - x_mean, y - y_mean
        penalty = ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(x.T @ x + penalty, x.T @ y).T
        self.lift_weight.copy_(weight)
        self.lift_bias.copy_(y_mean - weight @ x_mean)
        self.residual_scale.copy_((latents - self.lift(tokens)).std().clamp_min(1e-3))


class ImageDecoder(nn.Module):
    """The flow decoder with what turns its latents into pixels."""

    def __init__(self, config: StateModelConfig) -> None:
        super().__init__()
        width = config.decoder.refiner_width
        self.flow = FlowDecoder(config)
        self.refiner = Refiner(width, config.autoencoder.channels) if width else None

    def reconstruct(
        self, tokens: torch.Tensor, coarse: torch.Tensor | None, autoencoder: ImageAutoencoder
    ) -> torch.Tensor:
        """Deterministic image (B, 3, H, W). `coarse`: the linear path's image, None where there is no such path."""
        latents = self.flow.mean(tokens)
        coarse = autoencoder.decode(latents) if coarse is None else coarse
        return coarse if self.refiner is None else coarse + self.refiner(coarse, latents)
