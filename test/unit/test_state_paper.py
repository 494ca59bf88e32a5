"""The published decoder and its training, from folders that the libraries themselves wrote."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, SD3Transformer2DModel
from paper_parts import SIZE, tiny
from transformers import Dinov2Model

from wm_ros.bundle import load_bundle
from wm_ros.capability import load
from wm_ros.errors import UserError
from wm_ros.evaluation.state_heads import ActionHeads
from wm_ros.state.action import fit_head
from wm_ros.state.baselines import load_baselines
from wm_ros.state.config import StateModelConfig
from wm_ros.state.published import PublishedModel, load_folders, with_folders
from wm_ros.state.sd3 import keep_prefix
from wm_ros.training import loop
from wm_ros.training.future import state_model
from wm_ros.training.image_cache import ImageCache, Stacked
from wm_ros.training.state import StateTask, StateTrainConfig
from wm_ros.training.state_paper import PaperTask, PaperTrainConfig
from wm_ros.training.task import RunInfo, read_config
from wm_ros.types import Frame


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model(folders) -> PublishedModel:
    paths = folders / "dinov2_reg", None, folders / "sd3"
    torch.manual_seed(0)
    model = PublishedModel(with_folders(tiny(), *paths))
    load_folders(model, *paths)
    return model.eval()


# ------------------------------------------------------------------------------------------------ decoder


def test_autoencoder_scales_and_shifts_as_released(folders, model, images):
    vae = AutoencoderKL.from_pretrained(folders / "sd3" / "vae")
    with torch.no_grad():
        latents = (vae.encode(2 * images - 1).latent_dist.mean - 0.0609) * 1.5305
        assert torch.allclose(model.vae.encode(images), latents, atol=1e-6)
        expected = vae.decode(latents / 1.5305 + 0.0609).sample / 2 + 0.5
        # A deep network: processors round its sums in another order, by up to 2e-6 so far.
        assert torch.allclose(model.vae.decode(latents), expected, atol=1e-5)
    assert latents.shape[1:] == model.config.latent_shape == (16, 4, 4)


def test_velocity_is_that_of_the_released_transformer(folders, model):
    transformer = SD3Transformer2DModel.from_pretrained(folders / "sd3" / "transformer").eval()
    tokens, z = torch.randn(1, 2, 16), torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        found = model.decoder.velocity(tokens)(z, torch.full((1,), 0.3))
        text, pooled = model.decoder.text(tokens), model.decoder.pooled(tokens.mean(1))
        assert text.shape == (1, 2, 24) and pooled.shape == (1, 12)
        expected = transformer(z, text, pooled, timestep=torch.tensor([300.0])).sample
    assert torch.allclose(found, expected, atol=1e-6)


def test_no_condition_means_zero_embeddings(folders, model):
    transformer = SD3Transformer2DModel.from_pretrained(folders / "sd3" / "transformer").eval()
    tokens, z = torch.randn(1, 2, 16), torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        found = model.decoder.velocity(tokens, torch.zeros(1, 2, dtype=torch.bool))(z, torch.full((1,), 0.3))
        expected = transformer(z, torch.zeros(1, 2, 24), torch.zeros(1, 12), timestep=torch.tensor([300.0])).sample
    assert torch.allclose(found, expected, atol=1e-6)


def test_draws_are_seeded(model):
    tokens = torch.randn(2, 2, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, again, other = (model.draw(tokens, seed, steps=2, guidance=2.0) for seed in (1, 1, 2))
        assert first.shape == (2, 3, SIZE, SIZE)
        assert torch.equal(first, again) and not torch.equal(first, other)
        together, alone = model.reconstruct(tokens), model.reconstruct(tokens[1:])
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_nested_dropout_keeps_prefixes():
    torch.manual_seed(0)
    kept = keep_prefix(4000, 4, unconditional=0.25, nested=0.5)
    assert (kept.int().diff(dim=1) <= 0).all()
    # a quarter none; of the rest half have 1 to 4 of equal frequency, half all four
    shares = torch.bincount(kept.sum(1), minlength=5) / 4000
    expected = torch.tensor([0.25, *[0.75 * 0.5 / 4] * 3, 0.75 * (0.5 + 0.5 / 4)])
    assert torch.allclose(shares, expected, atol=0.03)
    assert keep_prefix(100, 2, 0.0, 0.0).all()


# ------------------------------------------------------------------------------------------------ training


SOURCE = "sim:tabletop?seeds=0-2"


@pytest.fixture
def pictures(monkeypatch, tmp_path) -> None:
    """Three episodes of four random images in place of a rendered simulation."""
    rng = np.random.default_rng(0)
    cache = ImageCache(
        images=Stacked([rng.integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8)]),
        episode=np.repeat(np.arange(3), 4),
        source=np.zeros(12, np.int64),
        stamp_s=np.tile(np.arange(4) / 15, 3),
        arm_rad=np.full((12, 7), np.nan),
    )
    monkeypatch.setattr("wm_ros.training.state_paper.build_cache", lambda *_: cache)


def write_config(path: Path, folders: Path, **changes) -> Path:
    raw = {
        "variant": "paper",
        "steps": 2,
        "batch_size": 2,
        "validation_images": 2,
        "dinov2_folder": str(folders / "dinov2_reg"),
        "sd3_folder": str(folders / "sd3"),
        "model": {**tiny().model_dump(mode="json", exclude_unset=True), "sd3": {"steps": 2, "nested_dropout": 0.5}},
    }
    (path / "paper.yaml").write_text(yaml.safe_dump(raw | changes))
    return path / "paper.yaml"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_step_trains_compressor_and_transformer_alone(folders, tmp_path, pictures, checkpointing):
    file = write_config(tmp_path, folders, gradient_checkpointing=checkpointing)
    torch.manual_seed(0)
    task = PaperTask(read_config(file, PaperTrainConfig), tmp_path)
    train, _ = task.prepare([SOURCE], 0)
    assert task.model.decoder.transformer.gradient_checkpointing is checkpointing
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    optimiser = torch.optim.AdamW(task.trainable(), lr=1e-3)
    task.modules.train()
    torch.manual_seed(3)
    loss = task.loss(torch.stack([train[0], train[5], train[6]]), 0)["loss"]
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss) and 0.1 < loss.item() < 100
    changed = {name for name, value in task.model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(("vae.", "features.")) for name in changed)
    blocks = ("compressor.blocks.0", "compressor.enter", "compressor.shrink.2", "decoder.text", "decoder.pooled")
    layers = ("pos_embed.proj", "context_embedder", "transformer_blocks.0", "transformer_blocks.1", "proj_out")
    for part in (*blocks, *(f"decoder.transformer.{layer}" for layer in layers)):
        assert any(name.startswith(part) for name in changed), part


def test_training_drops_conditions_as_configured(folders, tmp_path, pictures, monkeypatch):
    task = PaperTask(read_config(write_config(tmp_path, folders), PaperTrainConfig), tmp_path)
    train, _ = task.prepare([SOURCE], 0)
    asked = []
    losses = []
    for kept in ([True, True], [True, False]):
        monkeypatch.setattr(
            "wm_ros.training.state_paper.keep_prefix",
            lambda *args, kept=kept: (asked.append(args), torch.tensor([kept]))[1],
        )
        torch.manual_seed(3)
        task.modules.eval()
        losses.append(task.loss(train[0][None], 0)["loss"].item())
    assert asked == [(1, 2, 0.1, 0.5)] * 2 and losses[0] != losses[1]


def test_checkpointing_changes_nothing_but_memory(folders, tmp_path, pictures):
    gradients = []
    for checkpointing in (False, True):
        file = write_config(tmp_path, folders, gradient_checkpointing=checkpointing)
        torch.manual_seed(0)
        task = PaperTask(read_config(file, PaperTrainConfig), tmp_path)
        train, _ = task.prepare([SOURCE], 0)
        task.modules.train()
        torch.manual_seed(3)
        task.loss(torch.stack([train[0], train[5]]), 0)["loss"].backward()
        gradients.append([p.grad for p in task.trainable()])
    for plain, again in zip(*gradients, strict=True):
        assert (plain is None) == (again is None)
        assert plain is None or torch.allclose(plain, again, atol=1e-6)


def test_training_writes_a_bundle_that_needs_no_folder(folders, tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("wm_ros.training.loop.episodes", lambda _: [])
    bundle = loop.train("state", [SOURCE], tmp_path / "run", config_file=write_config(tmp_path, folders))
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2 and {"loss", "val_flow", "val_picture_psnr", "val_autoencoder_ssim"} <= rows[-1].keys()
    config, tensors = load_bundle(bundle, "state", StateModelConfig)
    assert config.model.decoder.text_width == 24 and config.model.features.architecture["dinov2"]["image_size"] == 24
    assert str(folders) not in (bundle / "config.json").read_text()
    licences = "Apache-2.0 (DINOv2); Stability AI Community License (Stable Diffusion 3)"
    assert config.training.data_licence == licences and licences in (bundle / "CARD.md").read_text()
    with pytest.raises(UserError, match="small autoencoder"):
        state_model(bundle)
    state = load("state", bundle)
    assert isinstance(state.model, PublishedModel)
    # the weights are those of the folder, at half precision
    original = SD3Transformer2DModel.from_pretrained(folders / "sd3" / "transformer").state_dict()
    kept = tensors["model.decoder.transformer.pos_embed.pos_embed"]
    assert torch.equal(kept, original["pos_embed.pos_embed"].half())
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    predictions = [load("state", bundle).step(Frame(0, "camera", rgb)) for _ in range(2)]
    assert predictions[0].tokens.tokens.shape == (2, 16)
    assert predictions[0].reconstruction.shape == (SIZE, SIZE, 3)
    assert np.array_equal(predictions[0].reconstruction, predictions[1].reconstruction)


def test_baseline_and_heads_come_with_pca_images(folders, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    cache = ImageCache(
        images=Stacked([rng.integers(0, 256, (240, SIZE, SIZE, 3), dtype=np.uint8)]),
        episode=np.repeat(np.arange(2), 120),
        source=np.zeros(240, np.int64),
        stamp_s=np.tile(np.arange(120) / 15, 2),
        arm_rad=rng.normal(size=(240, 7)),
    )
    monkeypatch.setattr("wm_ros.training.state_paper.build_cache", lambda *_: cache)
    monkeypatch.setattr("wm_ros.training.state_heads.fit_head", partial(fit_head, steps=2))
    file = write_config(tmp_path, folders, pca_images=100)
    task = PaperTask(read_config(file, PaperTrainConfig), tmp_path)
    task.prepare([SOURCE], 0)
    task.export(tmp_path / "bundle", RunInfo("wm train state", [SOURCE], [], 0, 2, {}))
    heads = ActionHeads(load_baselines(tmp_path / "bundle").tensors)
    tokens = rng.normal(size=(5, 2, 16)).astype(np.float32)
    assert heads.kind(tokens) == 0
    assert heads.predict(0, "model", 4, torch.from_numpy(tokens).flatten(1)).shape == (5, 7)


def test_frozen_features_go_before_the_small_decoder_too(folders, tmp_path, images):
    config = StateTrainConfig(steps=1, batch_size=1, model=tiny(), dinov2_folder=folders / "dinov2")
    task = StateTask(config, tmp_path)
    load_folders(task.model, *task.folders)
    original = Dinov2Model.from_pretrained(folders / "dinov2").state_dict()
    weights = task.model.features.backbone.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in original.items())
    assert task.model.encode(images).shape == (2, 2, 16)
    assert not any(p.requires_grad for p in task.model.features.parameters())


def test_unknown_variant_is_refused(folders, tmp_path):
    with pytest.raises(UserError, match="variant = 'papr'; state has paper"):
        loop.train("state", [SOURCE], tmp_path / "run", config_file=write_config(tmp_path, folders, variant="papr"))
