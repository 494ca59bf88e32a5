"""Features of released models, and what is said of folders that do not fit."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from paper_parts import SIZE, make_sd3, tiny, write_text
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersModel

from wm_ros.errors import UserError
from wm_ros.state.config import FeatureConfig, StateModelConfig
from wm_ros.state.features import make_features
from wm_ros.state.features_diffusion import diffusion_config
from wm_ros.state.features_dinov2 import IMAGENET_MEAN, IMAGENET_STD, dinov2_config
from wm_ros.state.published import PublishedModel, load_folders, with_folders


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


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
