"""The published state model has the published shapes."""

import json
from pathlib import Path

import torch
from transformers import Dinov2WithRegistersConfig

from wm_ros.paths import CONFIG
from wm_ros.state.compressor import Compressor
from wm_ros.state.config import paper_config
from wm_ros.state.published import PublishedModel, with_folders
from wm_ros.training.state_paper import PaperTrainConfig
from wm_ros.training.task import read_config


def write_published(root: Path) -> None:
    """The settings of the released models, without weights."""
    dinov2 = Dinov2WithRegistersConfig(image_size=518, patch_size=14)
    dinov2.save_pretrained(root / "dinov2")
    config = paper_config()
    for part, kind, settings in (
        ("transformer", "SD3Transformer2DModel", config.sd3.transformer),
        ("vae", "AutoencoderKL", config.sd3.vae),
    ):
        (root / "sd3" / part).mkdir(parents=True)
        (root / "sd3" / part / "config.json").write_text(json.dumps({"_class_name": kind, **settings}))


def test_shipped_config_fits_the_released_models(tmp_path):
    write_published(tmp_path)
    config = read_config(CONFIG / "train" / "state_paper.yaml", PaperTrainConfig)
    found = with_folders(config.model, tmp_path / "dinov2", None, tmp_path / "sd3")
    published = paper_config()
    assert found.decoder == published.decoder and found.compressor == published.compressor
    assert found.features.model_copy(update={"architecture": {}}) == published.features
    assert found.sd3.transformer.items() >= published.sd3.transformer.items()
    assert (found.patches, found.token_width, found.latent_shape) == (576, 1024, (16, 42, 42))


def test_published_parameters_have_the_published_shapes(tmp_path):
    write_published(tmp_path)
    with torch.device("meta"):
        model = PublishedModel(with_folders(paper_config(), tmp_path / "dinov2", None, tmp_path / "sd3"))
        images = torch.empty(1, 3, 336, 336)
        assert model.features(images).shape == (1, 576, 768)
        tokens = model.encode(images)
        latents = model.vae.encode(images)
        assert tokens.shape == (1, 2, 1024)
        assert latents.shape == (1, 16, 42, 42)
        assert model.decoder.velocity(tokens)(latents, torch.empty(1)).shape == latents.shape
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert shapes["features.backbone.embeddings.register_tokens"] == (1, 4, 768)
    assert shapes["features.backbone.embeddings.patch_embeddings.projection.weight"] == (768, 3, 14, 14)
    assert shapes["features.backbone.embeddings.position_embeddings"] == (1, 37 * 37 + 1, 768)
    assert shapes["compressor.split.weight"] == (1024 + 512, 768)
    assert shapes["compressor.enter.weight"] == (512, 576)
    widths = [shapes[f"compressor.shrink.{stage}.weight"] for stage in range(6)]
    assert widths == [(256, 512), (64, 256), (32, 64), (8, 32), (2, 8), (2, 2)]
    assert shapes["decoder.text.weight"] == (4096, 1024)
    assert shapes["decoder.pooled.weight"] == (2048, 1024)
    assert len(model.decoder.transformer.transformer_blocks) == 24
    assert shapes["decoder.transformer.context_embedder.weight"] == (24 * 64, 4096)
    assert shapes["decoder.transformer.transformer_blocks.0.attn.to_q.weight"] == (1536, 1536)
    assert shapes["decoder.transformer.time_text_embed.text_embedder.linear_1.weight"] == (1536, 2048)
    assert shapes["decoder.transformer.proj_out.weight"] == (16 * 2 * 2, 1536)
    assert 2.0e9 < sum(p.numel() for p in model.decoder.transformer.parameters()) < 2.2e9


def test_published_compressor_gives_two_tokens_of_1024():
    config = paper_config()
    compressor = Compressor(config.compressor, config.patches, config.features.width, config.token_width).eval()
    with torch.inference_mode():
        tokens = compressor(torch.randn(1, 576, 768))
    assert tokens.shape == (1, 2, 1024) and tokens.isfinite().all()
