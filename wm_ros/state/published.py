"""The published state model: frozen features, compressor, and Stable Diffusion 3 as decoder (arXiv 2510.05057)."""

from __future__ import annotations

from pathlib import Path

import torch

from wm_ros.errors import UserError
from wm_ros.state.config import StateModelConfig
from wm_ros.state.model import StateModel
from wm_ros.state.sd3 import Sd3Autoencoder, Sd3Decoder, load_sd3, sd3_config


class PublishedModel(StateModel):
    """As `StateModel`, without the parts that are ours: nothing is deterministic but by its noise."""

    def _add_decoder(self, config: StateModelConfig) -> None:
        if config.sd3 is None:
            raise UserError("sd3 is not set: the published model is drawn by Stable Diffusion 3; give its folder")
        self.sd3 = config.sd3
        self.vae = Sd3Autoencoder(config.sd3.vae)
        self.decoder = Sd3Decoder(config, config.sd3)

    def reconstruct(self, tokens: torch.Tensor) -> torch.Tensor:
        """One image of each state, not clipped; all from the same noise, so that near states give near images."""
        noise = self._noise(tokens, 1, 0).expand(len(tokens), -1, -1, -1)
        return self.vae.decode(self.decoder.draw(tokens, noise, self.sd3.steps, self.sd3.guidance))

    def draw(self, tokens: torch.Tensor, seed: int, steps: int = 20, guidance: float = 1.0) -> torch.Tensor:
        """One possible image of each state, drawn from the flow."""
        return self.vae.decode(self.decoder.draw(tokens, self._noise(tokens, len(tokens), seed), steps, guidance))

    def _noise(self, tokens: torch.Tensor, count: int, seed: int) -> torch.Tensor:
        generator = torch.Generator(tokens.device).manual_seed(seed)
        return torch.randn(count, *self.config.latent_shape, generator=generator, device=tokens.device)


def with_folders(
    config: StateModelConfig, dinov2: Path | None, diffusion: Path | None, sd3: Path | None
) -> StateModelConfig:
    """`config` with the sizes of the folders that it needs. Raises UserError: one missing, or sizes that differ."""
    kind = config.features.kind
    if kind == "dinov2":
        from wm_ros.state.features_dinov2 import dinov2_config

        features = dinov2_config(config.features, _needed(dinov2, "dinov2_folder", kind))
        config = config.model_copy(update={"features": features})
    elif kind == "diffusion":
        from wm_ros.state.features_diffusion import diffusion_config

        features = diffusion_config(config.features, _needed(diffusion, "diffusion_folder", kind))
        config = config.model_copy(update={"features": features})
    return config if sd3 is None else sd3_config(config, sd3)


def load_folders(model: StateModel, dinov2: Path | None, diffusion: Path | None, sd3: Path | None) -> None:
    """Pre-trained weights into a model whose config came from `with_folders`. Raises UserError if they do not fit."""
    folder = {"dinov2": dinov2, "diffusion": diffusion}.get(model.config.features.kind)
    if folder is not None:
        model.features.load_folder(folder)  # type: ignore[operator]
    if isinstance(model, PublishedModel) and sd3 is not None:
        load_sd3(model.vae, model.decoder, sd3)


def make_model(config: StateModelConfig) -> StateModel:
    """The model that a config describes: the published one where it names Stable Diffusion 3."""
    return StateModel(config) if config.sd3 is None else PublishedModel(config)


def _needed(folder: Path | None, name: str, kind: str) -> Path:
    if folder is None:
        raise UserError(f"features.kind = '{kind}' needs weights; set {name} to a local folder")
    return folder
