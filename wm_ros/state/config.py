"""What a state model is made of: typed, part of every bundle's `config.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wm_ros.bundle import StrictModel
from wm_ros.nn.autoencoder import PATCH, AutoencoderConfig
from wm_ros.state.sd3_config import Architecture, Sd3Config


class FeatureConfig(StrictModel):
    """Patch features of an image: small networks trained here (`conv`, `vit`), or frozen ones from a folder: DINOv2, or
    blocks of Stable Diffusion's U-Net (`diffusion`).

    Attributes:
        patch: edge of a patch in pixels, 16 for `conv`. width, depth, heads: of the transformer; `conv` has `width`
            channels at the end, a third and two thirds of them before, and `depth` residual blocks at the end.
        registers: extra tokens of DINOv2 with registers; they are dropped from the features.
        blocks: of the U-Net, whose outputs are put side by side: `down.<index>`, `mid`, `up.<index>`.
        timestep: how noisy the U-Net sees the image, in steps of its scheduler; 0 for no noise.
        prompt_tokens: length of the empty prompt's embedding; 0 where the folder has no text encoder.
        architecture: settings of each part of the folder (`dinov2`, or `unet` and `vae`), filled in from it.
    """

    kind: Literal["conv", "vit", "dinov2", "diffusion"] = "conv"
    patch: int = 16
    width: int = 144
    depth: int = 2
    heads: int = 4
    registers: int = 0
    blocks: tuple[str, ...] = ("down.1", "down.2", "down.3", "mid")
    timestep: int = 0
    prompt_tokens: int = 0
    architecture: dict[str, Architecture] = Field(default_factory=dict)


class CompressorConfig(StrictModel):
    """The staged reduction of StaMo (see `compressor.py`).

    Attributes:
        blocks: transformer blocks before the split. heads: of every attention. dropout: in every block.
        context_width: width of the key/value half that all stages attend to.
        stages: widths of the patch axis, powers of two, the last is the number of tokens.
        shortcut: channels per patch of a linear map from all features to the tokens beside the stages, 0 for none as
            in the published model.
    """

    blocks: int = 1
    heads: int = 4
    dropout: float = 0.0
    context_width: int = 64
    stages: tuple[int, ...] = (32, 8, 2)
    shortcut: int = 48


class DecoderConfig(StrictModel):
    """The rectified-flow decoder: a Stable Diffusion 3 transformer (MMDiT) on latents, conditioned on the tokens.

    Attributes:
        text_width: the tokens are lifted linearly to this width and take the place of the text.
        pooled_width: of the vector that modulates every block, linear in the mean of the tokens.
        token_dropout: share of training items without condition, for classifier-free guidance.
        mean_width: channels of the deterministic decoder that comes with a linear path.
        mean_lift: channels at its coarsest grid, which the tokens are lifted to linearly.
    """

    layers: int = 2
    heads: int = 4
    head_width: int = 32
    patch: int = 2
    text_width: int = 256
    pooled_width: int = 128
    token_dropout: float = 0.1
    mean_width: int = 48
    mean_lift: int = 64


class StateModelConfig(StrictModel):
    """Sizes of a state model; images are resized to `image_height` × `image_width` by area, values 0..1.

    Attributes:
        token_width: numbers per token; a state is `compressor.stages[-1]` tokens.
        linear_path: tokens and image are also joined linearly (see `linear.py`), so that training starts near the
            quality of principal components; with it comes the deterministic decoder. The published model has none.
        step_s: seconds per step of k in `action_r2@k`, the frame interval of the training recordings.
        sd3: Stable Diffusion 3 as autoencoder and decoder, as published; None for the small ones trained here.
    """

    image_height: int = 96
    image_width: int = 128
    token_width: int = 128
    linear_path: bool = True
    step_s: float = 1.0 / 15.0
    features: FeatureConfig = FeatureConfig()
    compressor: CompressorConfig = CompressorConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig(width=32)
    decoder: DecoderConfig = DecoderConfig()
    sd3: Sd3Config | None = None

    @property
    def tokens(self) -> int:
        """Tokens of a state."""
        return self.compressor.stages[-1]

    @property
    def patches(self) -> int:
        """Patch features of an image."""
        return (self.image_height // self.features.patch) * (self.image_width // self.features.patch)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the autoencoder's latents."""
        if self.sd3 is not None:
            scale = self.sd3.latent_scale
            return self.sd3.vae["latent_channels"], self.image_height // scale, self.image_width // scale
        return self.autoencoder.channels, self.image_height // PATCH, self.image_width // PATCH


def paper_config() -> StateModelConfig:
    """The published sizes: DINOv2 ViT-B/14 with 4 registers at 336 px, 2 × 1024 tokens, SD3-medium's transformer."""
    return StateModelConfig(
        image_height=336,
        image_width=336,
        token_width=1024,
        linear_path=False,
        features=FeatureConfig(kind="dinov2", patch=14, width=768, depth=12, heads=12, registers=4),
        compressor=CompressorConfig(
            blocks=6, heads=8, dropout=0.1, context_width=512, stages=(512, 256, 64, 32, 8, 2), shortcut=0
        ),
        decoder=DecoderConfig(layers=24, heads=24, head_width=64, patch=2, text_width=4096, pooled_width=2048),
        sd3=Sd3Config(
            transformer={
                "sample_size": 128,
                "in_channels": 16,
                "out_channels": 16,
                "patch_size": 2,
                "num_layers": 24,
                "num_attention_heads": 24,
                "attention_head_dim": 64,
                "caption_projection_dim": 1536,
                "joint_attention_dim": 4096,
                "pooled_projection_dim": 2048,
                "pos_embed_max_size": 192,
            },
            vae={
                "down_block_types": ["DownEncoderBlock2D"] * 4,
                "up_block_types": ["UpDecoderBlock2D"] * 4,
                "block_out_channels": [128, 256, 512, 512],
                "layers_per_block": 2,
                "latent_channels": 16,
                "sample_size": 1024,
                "scaling_factor": 1.5305,
                "shift_factor": 0.0609,
                "use_quant_conv": False,
                "use_post_quant_conv": False,
            },
        ),
    )
