"""Folders as the libraries of released models write them, tiny and with random weights, for the tests of `paper`."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from wm_ros.state.config import StateModelConfig

SIZE = 32


def make_vae(channels: int, **more) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        latent_channels=channels,
        **more,
    )


def make_sd3(**more) -> SD3Transformer2DModel:
    sizes = {
        "sample_size": 8,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "caption_projection_dim": 16,
        "joint_attention_dim": 24,
        "pooled_projection_dim": 12,
        "pos_embed_max_size": 8,
    }
    return SD3Transformer2DModel(**(sizes | more))


def write_text(folder: Path) -> torch.Tensor:
    """A text encoder and tokenizer; returns what the encoder says of the empty prompt."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "a"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=5)
    tokenizer.save_pretrained(folder / "tokenizer")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPTextConfig(vocab_size=4, max_position_embeddings=5, bos_token_id=0, eos_token_id=1, **sizes)
    encoder = CLIPTextModel(config).eval()
    encoder.save_pretrained(folder / "text_encoder")
    with torch.no_grad():
        return encoder(torch.tensor([[0, 1, 1, 1, 1]])).last_hidden_state


def write_folders(root: Path) -> Path:
    """dinov2/, dinov2_reg/, sd3/ and sd/ (without a text encoder) in `root`."""
    torch.manual_seed(0)
    # trained at another resolution than it is used at, as the released ones
    sizes = {"image_size": 24, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, mlp_ratio=2)).save_pretrained(root / "dinov2")
    Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, num_register_tokens=4)).save_pretrained(
        root / "dinov2_reg"
    )
    make_vae(16, scaling_factor=1.5305, shift_factor=0.0609).save_pretrained(root / "sd3" / "vae")
    make_sd3().save_pretrained(root / "sd3" / "transformer")
    make_vae(4).save_pretrained(root / "sd" / "vae")
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=16,
    )
    unet.save_pretrained(root / "sd" / "unet")
    return root


def tiny(kind: str = "dinov2", **features) -> StateModelConfig:
    """Sizes that no folder says."""
    return StateModelConfig(
        image_height=SIZE,
        image_width=SIZE,
        token_width=16,
        features={"kind": kind, **features},
        compressor={
            "blocks": 1,
            "heads": 2,
            "dropout": 0.1,
            "context_width": 8,
            "stages": (16, 4, 2),
            "shortcut": 0,
        },
    )
