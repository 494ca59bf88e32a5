"""Stable Diffusion 3 as what draws an image from a state: its autoencoder, and its transformer on the tokens.

The tokens, lifted linearly, take the place of the text, a linear map of their mean that of the pooled text; both are
ours, everything else is the released model. Without a condition both are zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import nn

from wm_ros.errors import UserError
from wm_ros.nn.flow import Velocity, follow, guided
from wm_ros.nn.frozen import Frozen
from wm_ros.state.config import StateModelConfig
from wm_ros.state.folders import load_into, read_settings, take
from wm_ros.state.sd3_config import Architecture, Sd3Config


class Sd3Autoencoder(Frozen):
    """`encode`: images (B, 3, H, W) in 0..1 → latents (B, C, H/8, W/8) of about unit spread; `decode`: back."""

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        self.vae: Any = AutoencoderKL(**settings)
        self.scale, self.shift = settings["scaling_factor"], settings["shift_factor"] or 0.0
        self.requires_grad_(False).eval()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The mean of the posterior, so that the same image has the same latents."""
        latents: torch.Tensor = self.vae.encode(2.0 * images - 1.0).latent_dist.mode()
        return (latents - self.shift) * self.scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.vae.decode(latents / self.scale + self.shift).sample
        return 0.5 * images + 0.5


class Sd3Decoder(nn.Module):
    """Tokens (B, T, D) → latents (B, C, h, w)."""

    def __init__(self, config: StateModelConfig, sd3: Sd3Config) -> None:
        super().__init__()
        self.latent_shape = config.latent_shape
        self.transformer: Any = SD3Transformer2DModel(**sd3.transformer)
        self.text = nn.Linear(config.token_width, sd3.transformer["joint_attention_dim"])
        self.pooled = nn.Linear(config.token_width, sd3.transformer["pooled_projection_dim"])

    def velocity(self, tokens: torch.Tensor, kept: torch.Tensor | None = None) -> Velocity:
        """The flow of the latents, given tokens.

        Args:
            kept: (B, T) bool, false for tokens that the decoder does not get; None for all true.
        """
        kept = torch.ones_like(tokens[..., 0], dtype=torch.bool) if kept is None else kept
        text = self.text(tokens) * kept[..., None]
        pooled = self.pooled((tokens * kept[..., None]).mean(1)) * kept.any(1, keepdim=True)

        def velocity(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            # σ counts in thousandths there
            out: torch.Tensor = self.transformer(z, text, pooled, timestep=1000.0 * sigma, return_dict=False)[0]
            return out

        return velocity

    def draw(self, tokens: torch.Tensor, noise: torch.Tensor, steps: int, guidance: float) -> torch.Tensor:
        """Follow the flow from `noise` (B, C, h, w) to latents."""
        nothing = torch.zeros_like(tokens[..., 0], dtype=torch.bool)
        velocity = guided(self.velocity(tokens), self.velocity(tokens, nothing), guidance)
        return follow(velocity, noise, steps)


def keep_prefix(count: int, tokens: int, unconditional: float, nested: float) -> torch.Tensor:
    """Which tokens a training item keeps, (count, tokens) bool.

    Args:
        unconditional: share of items that keep none, for classifier-free guidance.
        nested: share of the others that keep the first 1 to `tokens`, each number equally often.
    """
    prefix = torch.where(torch.rand(count) < nested, torch.randint(1, tokens + 1, (count,)), tokens)
    prefix = torch.where(torch.rand(count) < unconditional, 0, prefix)
    return torch.arange(tokens) < prefix[:, None]


def sd3_config(given: StateModelConfig, folder: Path) -> StateModelConfig:
    """`given` with the sizes of a Stable Diffusion 3 folder. Raises UserError where they differ or do not fit."""
    transformer = read_settings(folder / "transformer", SD3Transformer2DModel)
    vae = read_settings(folder / "vae", AutoencoderKL)
    sizes = {
        "layers": transformer["num_layers"],
        "heads": transformer["num_attention_heads"],
        "head_width": transformer["attention_head_dim"],
        "patch": transformer["patch_size"],
        "text_width": transformer["joint_attention_dim"],
        "pooled_width": transformer["pooled_projection_dim"],
    }
    sd3 = (given.sd3 or Sd3Config()).model_copy(update={"transformer": transformer, "vae": vae})
    config = given.model_copy(update={"decoder": take(given.decoder, "decoder", sizes, folder), "sd3": sd3})
    if transformer["in_channels"] != vae["latent_channels"]:
        raise UserError(
            f"'{folder}': in_channels = {transformer['in_channels']} of the transformer, but the VAE has "
            f"{vae['latent_channels']}; give a folder whose parts belong together"
        )
    cell, most = sd3.latent_scale * transformer["patch_size"], transformer["pos_embed_max_size"]
    for name in ("image_height", "image_width"):
        size = getattr(config, name)
        if size % cell or size // cell > most:
            raise UserError(f"{name} = {size} does not fit '{folder}'; choose a multiple of {cell} up to {cell * most}")
    return config


def load_sd3(autoencoder: Sd3Autoencoder, decoder: Sd3Decoder, folder: Path) -> None:
    """Weights of a Stable Diffusion 3 folder. Raises UserError if they do not fit."""
    load_into(autoencoder.vae, folder / "vae")
    load_into(decoder.transformer, folder / "transformer")
