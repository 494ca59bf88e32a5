"""The published state model from folders that the libraries themselves wrote, tiny and with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from wm_ros.bundle import load_bundle
from wm_ros.capability import load
from wm_ros.errors import UserError
from wm_ros.paths import CONFIG
from wm_ros.state.compressor import Compressor
from wm_ros.state.config import FeatureConfig, StateModelConfig, paper_config
from wm_ros.state.features import make_features
from wm_ros.state.features_diffusion import diffusion_config
from wm_ros.state.features_dinov2 import IMAGENET_MEAN, IMAGENET_STD, dinov2_config
from wm_ros.state.published import PublishedModel, load_folders, with_folders
from wm_ros.state.sd3 import keep_prefix
from wm_ros.training import loop
from wm_ros.training.future import _state_model
from wm_ros.training.image_cache import ImageCache, Stacked
from wm_ros.training.state import StateTask, StateTrainConfig
from wm_ros.training.state_paper import PaperTask, PaperTrainConfig
from wm_ros.training.task import read_config
from wm_ros.types import Frame

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


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """dinov2/, dinov2_reg/, sd3/ and sd/ (without a text encoder)."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("released")
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


# ------------------------------------------------------------------------------------------------ features


@pytest.mark.parametrize(
    "name, kind, skipped", [("dinov2", Dinov2Model, 1), ("dinov2_reg", Dinov2WithRegistersModel, 5)]
)
def test_dinov2_gives_what_the_library_gives(folders, images, name, kind, skipped):
    config = dinov2_config(FeatureConfig(kind="dinov2"), folders / name)
    assert (config.patch, config.width, config.depth, config.registers) == (8, 16, 2, skipped - 1)
    features = make_features(config, SIZE, SIZE)
    features.load_folder(folders / name)
    found = features(images)
    assert found.shape == (2, 16, 16) and not found.requires_grad
    original = kind.from_pretrained(folders / name).eval()
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = original((images - mean) / std).last_hidden_state[:, skipped:]
    assert torch.equal(found, expected)


def diffusion(folder: Path, **options) -> torch.nn.Module:
    config = diffusion_config(
        FeatureConfig(kind="diffusion", patch=8, blocks=("down.1", "mid", "up.0"), **options), folder
    )
    features = make_features(config, SIZE, SIZE)
    features.load_folder(folder)
    return features


def test_diffusion_features_are_the_outputs_of_the_blocks(folders, images):
    features = diffusion(folders / "sd")
    found = features(images)
    assert found.shape == (2, 16, 16 + 16 + 16) and features.config.width == 48
    vae = AutoencoderKL.from_pretrained(folders / "sd" / "vae")
    unet = UNet2DConditionModel.from_pretrained(folders / "sd" / "unet")
    seen = []
    unet.mid_block.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        latents = vae.encode(2 * images - 1).latent_dist.mean * 0.18215
        unet(latents, 0, torch.zeros(2, 1, 16))
    grid = torch.nn.functional.interpolate(seen[0], (4, 4), mode="bilinear", antialias=True)
    assert torch.allclose(found[..., 16:32], grid.flatten(2).transpose(1, 2), atol=1e-4)


def test_diffusion_features_see_one_fixed_noise_at_a_timestep(folders, images):
    clean, noisy = diffusion(folders / "sd"), diffusion(folders / "sd", timestep=50)
    assert torch.equal(noisy(images), diffusion(folders / "sd", timestep=50)(images))
    assert torch.allclose(noisy(images)[:1], noisy(images[:1]), atol=1e-5)
    assert not torch.allclose(noisy(images), clean(images), atol=1e-3)
    # ᾱ of the scaled-linear schedule of Stable Diffusion
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert noisy.signal.item() == pytest.approx((1 - betas).cumprod(0)[50].item(), rel=1e-4)
    with pytest.raises(UserError, match="timestep = 1000"):
        diffusion(folders / "sd", timestep=1000)


def test_empty_prompt_comes_from_the_text_encoder_and_is_zero_without(folders, tmp_path, caplog):
    assert not diffusion(folders / "sd").prompt.any()
    assert "embedding is zero" in caplog.text
    for part in ("vae", "unet"):
        (tmp_path / part).symlink_to(folders / "sd" / part)
    expected = write_text(tmp_path)
    features = diffusion(tmp_path)
    assert features.config.prompt_tokens == 5
    assert torch.allclose(features.prompt, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["dinov2", "diffusion"])
def test_features_stay_frozen_when_the_model_trains(folders, kind):
    config = (
        with_folders(tiny(kind), folders / "dinov2", folders / "sd", folders / "sd3")
        if kind == "dinov2"
        else (with_folders(tiny(kind, patch=8, blocks=("mid",)), None, folders / "sd", folders / "sd3"))
    )
    model = PublishedModel(config).train()
    assert model.compressor.training and model.decoder.training
    for frozen in (model.features, model.vae):
        assert not any(module.training for module in frozen.modules())
        assert not any(p.requires_grad for p in frozen.parameters())
    images = torch.rand(1, 3, SIZE, SIZE)
    assert model.encode(images).shape == (1, 2, 16)
    assert torch.equal(model.features(images), model.features(images))


# ------------------------------------------------------------------------------------------------ decoder


def test_autoencoder_scales_and_shifts_as_released(folders, model, images):
    vae = AutoencoderKL.from_pretrained(folders / "sd3" / "vae")
    with torch.no_grad():
        latents = (vae.encode(2 * images - 1).latent_dist.mean - 0.0609) * 1.5305
        assert torch.allclose(model.vae.encode(images), latents, atol=1e-6)
        expected = vae.decode(latents / 1.5305 + 0.0609).sample / 2 + 0.5
        assert torch.allclose(model.vae.decode(latents), expected, atol=1e-6)
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
        _state_model(bundle)
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


# ------------------------------------------------------------------------------------------------ mistakes


def one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    said = str(error.value)
    assert "\n" not in said
    for part in parts:
        assert part in said


def test_wrong_folders_are_named(folders, tmp_path):
    good = {"dinov2": folders / "dinov2", "diffusion": None, "sd3": folders / "sd3"}
    with pytest.raises(UserError) as error:
        with_folders(tiny(), **good | {"dinov2": None})
    one_line(error, "dinov2_folder")
    with pytest.raises(UserError) as error:
        with_folders(tiny(), **good | {"dinov2": tmp_path / "nowhere"})
    one_line(error, "nowhere", "save_pretrained")
    with pytest.raises(UserError) as error:
        with_folders(tiny(), **good | {"dinov2": folders / "sd3" / "vae"})
    one_line(error, "model_type", "dinov2")
    with pytest.raises(UserError) as error:
        with_folders(tiny(), **good | {"sd3": folders / "sd"})
    one_line(error, "transformer", "save_pretrained")
    with pytest.raises(UserError) as error:
        with_folders(tiny("diffusion", patch=8, blocks=("mid",)), **good | {"diffusion": folders / "sd3"})
    one_line(error, "unet")


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"decoder": {"text_width": 4096}}, ("decoder.text_width = 4096", "has 24")),
        ({"decoder": {"pooled_width": 2048}}, ("decoder.pooled_width = 2048", "has 12")),
        ({"features": {"kind": "dinov2", "width": 768}}, ("features.width = 768", "has 16")),
        ({"image_width": 40}, ("image_width = 40", "multiple of 16")),
        ({"image_width": 160}, ("image_width = 160", "up to 128")),
    ],
)
def test_sizes_that_differ_from_the_folder_are_named(folders, changes, parts):
    raw = tiny().model_dump(mode="json", exclude_unset=True) | changes
    with pytest.raises(UserError) as error:
        with_folders(StateModelConfig.model_validate(raw), folders / "dinov2", None, folders / "sd3")
    one_line(error, *parts)


def test_block_that_the_unet_has_not_is_named(folders):
    with pytest.raises(UserError) as error:
        diffusion_config(FeatureConfig(kind="diffusion", blocks=("down.7",)), folders / "sd")
    one_line(error, "down.7", "down.1")


@pytest.mark.parametrize(
    "other, said",
    [
        ({"num_layers": 1}, "no fitting weights for transformer_blocks.0"),
        ({"pooled_projection_dim": 13}, "no fitting weights for time_text_embed.text_embedder.linear_1.weight"),
    ],
)
def test_folder_with_other_weights_than_its_config_is_refused(folders, tmp_path, other, said):
    config = with_folders(tiny(), folders / "dinov2_reg", None, folders / "sd3")
    broken = tmp_path / "sd3"
    broken.mkdir()
    (broken / "vae").symlink_to(folders / "sd3" / "vae")
    make_sd3(**other).save_pretrained(broken / "transformer")
    (broken / "transformer" / "config.json").write_bytes((folders / "sd3" / "transformer" / "config.json").read_bytes())
    with pytest.raises(UserError) as error:
        load_folders(PublishedModel(config), folders / "dinov2_reg", None, broken)
    one_line(error, said)


def test_dinov2_folder_with_weights_of_another_size_is_refused(folders, tmp_path):
    config = with_folders(tiny(), folders / "dinov2", None, folders / "sd3")
    other = Dinov2Config(image_size=24, patch_size=8, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    Dinov2Model(other).save_pretrained(tmp_path)
    with pytest.raises(UserError) as error:
        load_folders(PublishedModel(config), tmp_path, None, None)
    one_line(error, "weights", str(tmp_path))


def test_pickled_weights_are_refused(folders, tmp_path):
    config = with_folders(tiny(), folders / "dinov2", None, folders / "sd3")
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((folders / "dinov2" / "config.json").read_bytes())
    with pytest.raises(UserError) as error:
        load_folders(PublishedModel(config), tmp_path, None, None)
    one_line(error, "safetensors", str(tmp_path))


# ------------------------------------------------------------------------------------------------ published sizes


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
