"""Architectures of released models as plain settings, so that a bundle is complete without the folders it came from."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from wm_ros.bundle import StrictModel

# settings of a library's class by their own names, as in the folder's `config.json`
Architecture = dict[str, Any]


class Sd3Config(StrictModel):
    """Stable Diffusion 3 as decoder, in place of the small autoencoder and transformer.

    Attributes:
        transformer: settings of diffusers' `SD3Transformer2DModel`. vae: of `AutoencoderKL`. Training fills both in
            from the folder.
        nested_dropout: share of training items that keep only a random prefix of their tokens.
        steps, guidance: of the reconstruction, a draw from the same noise for every image.
    """

    transformer: Architecture = Field(default_factory=dict)
    vae: Architecture = Field(default_factory=dict)
    nested_dropout: float = 0.0
    steps: int = 20
    guidance: float = 1.0

    @property
    def latent_scale(self) -> int:
        """Pixels per latent, along each edge."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)
