"""Diffusion features: what chosen blocks of a frozen Stable Diffusion U-Net make of an image.

After Stable Control Representations (arXiv 2405.05852): latents of the image, noised a little or not at all, go through
the U-Net once with the empty prompt; outputs of several blocks are brought to one grid and put side by side.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn import functional

from wm_ros.errors import UserError
from wm_ros.nn.frozen import Frozen
from wm_ros.state.config import FeatureConfig
from wm_ros.state.folders import load_into, read_json, read_settings, take

log = logging.getLogger(__name__)

# the noise schedule of Stable Diffusion 1 and 2, for folders without `scheduler/`
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
NOISE_SEED = 0


class DiffusionFeatures(Frozen):
    """Features of (H / patch) × (W / patch) places, of all `blocks` together `width` numbers.

    The sizes come from the config; the weights, the prompt's embedding and the noise from the bundle, or from
    `load_folder`. The same noise is added to every image.
    """

    prompt: torch.Tensor
    noise: torch.Tensor
    signal: torch.Tensor

    def __init__(self, config: FeatureConfig, height: int, width: int) -> None:
        super().__init__()
        unet, vae = config.architecture["unet"], config.architecture["vae"]
        self.config = config
        self.grid = (height // config.patch, width // config.patch)
        self.vae: Any = AutoencoderKL(**vae)
        self.unet: Any = UNet2DConditionModel(**unet)
        self.tapped = [_block(self.unet, name) for name in config.blocks]
        scale = 2 ** (len(vae["block_out_channels"]) - 1)
        generator = torch.Generator().manual_seed(NOISE_SEED)
        noise = torch.randn(1, vae["latent_channels"], height // scale, width // scale, generator=generator)
        self.register_buffer("noise", noise.to(torch.get_default_device()))
        # share of the image's variance at the timestep, 1 for no noise
        self.register_buffer("signal", torch.ones(()))
        self.register_buffer("prompt", torch.zeros(1, max(1, config.prompt_tokens), unet["cross_attention_dim"]))
        self.requires_grad_(False).eval()

    def load_folder(self, folder: Path) -> None:
        """Take weights, noise schedule and the empty prompt's embedding. Raises UserError if they do not fit."""
        load_into(self.vae, folder / "vae")
        load_into(self.unet, folder / "unet")
        if self.config.timestep:
            self.signal.copy_(_signal(folder, self.config.timestep))
        if self.config.prompt_tokens:
            self.prompt.copy_(_empty_prompt(folder))
        else:
            log.warning("'%s' has no text_encoder and tokenizer: the prompt's embedding is zero", folder)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        latents = self.vae.encode(2.0 * images - 1.0).latent_dist.mode() * self.vae.config.scaling_factor
        if self.config.timestep:
            latents = self.signal.sqrt() * latents + (1.0 - self.signal).sqrt() * self.noise
        outputs: dict[nn.Module, torch.Tensor] = {}

        def keep(block: nn.Module, _: object, output: Any) -> None:
            # blocks on the way down also give what is carried across
            outputs[block] = output[0] if isinstance(output, tuple) else output

        hooks = [block.register_forward_hook(keep) for block in set(self.tapped)]
        try:
            self.unet(latents, self.config.timestep, self.prompt.expand(len(images), -1, -1))
        finally:
            for hook in hooks:
                hook.remove()
        parts = [
            functional.interpolate(outputs[block], self.grid, mode="bilinear", antialias=True) for block in self.tapped
        ]
        return torch.cat(parts, 1).flatten(2).transpose(1, 2)


def diffusion_config(given: FeatureConfig, folder: Path) -> FeatureConfig:
    """`given` with the sizes of a Stable Diffusion folder. Raises UserError: parts missing, or an unknown U-Net."""
    unet, vae = read_settings(folder / "unet", UNet2DConditionModel), read_settings(folder / "vae", AutoencoderKL)
    for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type"):
        if unet[name] is not None:
            raise UserError(
                f"'{folder}': {name} = {unet[name]!r} needs more than a prompt; give Stable Diffusion 1 or 2"
            )
    if unet["in_channels"] != vae["latent_channels"]:
        raise UserError(
            f"'{folder}': in_channels = {unet['in_channels']} of the U-Net, but the VAE has {vae['latent_channels']}; "
            "give a text-to-image model"
        )
    has_text = (folder / "text_encoder").is_dir() and (folder / "tokenizer").is_dir()
    sizes = {
        "width": sum(_channels(unet, name) for name in given.blocks),
        "prompt_tokens": _empty_prompt(folder).shape[1] if has_text else 0,
        "architecture": {"unet": unet, "vae": vae},
    }
    return take(given, "features", sizes, folder)


def _channels(unet: dict[str, Any], name: str) -> int:
    """Channels of a block's output. Raises UserError if there is no such block."""
    channels: list[int] = unet["block_out_channels"]
    known = {"mid": channels[-1]}
    for index, count in enumerate(channels):
        known[f"down.{index}"] = count
        known[f"up.{len(channels) - 1 - index}"] = count
    if name not in known:
        raise UserError(f"features.blocks: '{name}' is not one of {', '.join(sorted(known))}; name blocks of the U-Net")
    return known[name]


def _block(unet: Any, name: str) -> nn.Module:
    place, _, index = name.partition(".")
    blocks = {"down": unet.down_blocks, "mid": [unet.mid_block], "up": unet.up_blocks}[place]
    block: nn.Module = blocks[int(index or 0)]
    return block


def _signal(folder: Path, timestep: int) -> torch.Tensor:
    """Share of the image's variance at a timestep of the folder's schedule. Raises UserError."""
    file = folder / "scheduler" / "scheduler_config.json"
    said = read_json(file) if file.is_file() else {}
    scheduler: Any = DDPMScheduler(**{k: said.get(k, v) for k, v in SCHEDULE.items()})
    shares: torch.Tensor = scheduler.alphas_cumprod
    if not 0 <= timestep < len(shares):
        raise UserError(f"features.timestep = {timestep} is not within 0 and {len(shares) - 1}; choose one that is")
    return shares[timestep]


def _empty_prompt(folder: Path) -> torch.Tensor:
    """(1, tokens, width): the text encoder's output for the empty prompt. Raises UserError."""
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True, use_safetensors=True)
        ids = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
        with torch.no_grad():
            embedding: torch.Tensor = encoder.eval().float()(ids).last_hidden_state
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"text encoder at '{folder}': {reason:.200}; give a whole Stable Diffusion folder") from None
    return embedding
