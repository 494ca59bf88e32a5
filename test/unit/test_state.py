"""State tokens: shapes, determinism, and a capability that no image can take down."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from state_parts import write_bundle

from wm_ros.capability import load
from wm_ros.errors import BundleError, UserError
from wm_ros.nn.attention import TransformerBlock
from wm_ros.state import StateCapability
from wm_ros.state.action import STEPS, fit_head, step_pairs
from wm_ros.state.compressor import Compressor
from wm_ros.state.config import FeatureConfig, StateModelConfig, paper_config
from wm_ros.state.familiarity import Familiarity
from wm_ros.state.features import make_features
from wm_ros.state.features_dinov2 import Dinov2Features
from wm_ros.state.kinds import Kinds
from wm_ros.state.linear import LinearPath, hadamard
from wm_ros.state.model import StateModel
from wm_ros.state.motion import difference, interpolate, transfer
from wm_ros.state.pca import PrincipalComponents
from wm_ros.types import EgoPose, Frame


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("state") / "tiny")


@pytest.fixture
def state(bundle) -> StateCapability:
    return load("state", bundle)


def frame(stamp_ns: int, height: int = 32, width: int = 48, seed: int = 0) -> Frame:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Frame(stamp_ns, "camera", rgb)


# ------------------------------------------------------------------------------------------------ model


def test_lite_state_is_two_tokens_of_128_numbers():
    config = StateModelConfig()
    assert (config.tokens, config.token_width) == (2, 128)
    with torch.inference_mode():
        model = StateModel(config).eval()
        tokens = model.encode(torch.rand(1, 3, 96, 128))
        assert tokens.shape == (1, 2, 128)
        assert model.reconstruct(tokens).shape == (1, 3, 96, 128)
        assert model.draw(tokens, seed=0, steps=2).shape == (1, 3, 96, 128)


def test_stages_shrink_the_patch_axis_by_powers_of_two():
    compressor = Compressor(paper_config().compressor, 576, 768, 1024)
    assert [layer.in_features for layer in compressor.shrink] == [512, 256, 64, 32, 8, 2]
    assert compressor.shrink[-1].out_features == 2
    assert all(isinstance(stage, TransformerBlock) for stage in compressor.stages)


def test_only_the_tokens_reach_the_decoder(bundle, state):
    model = state.model
    tokens = torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model.reconstruct(tokens)
        model.encode(torch.rand(3, 3, 32, 48))
        assert torch.equal(model.reconstruct(tokens), before)
        assert not torch.allclose(model.reconstruct(tokens + 1), before)


def test_untrained_model_reconstructs_as_its_linear_path(state):
    images = torch.rand(4, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = state.model.reconstruct(state.model.encode(images))
        linear = state.model.linear.decode(state.model.linear.encode(images))
    assert torch.allclose(made, linear, atol=1e-4)


def test_principal_components_are_those_of_the_images():
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    path = PrincipalComponents(12, 8, 8)
    path.fit(images)
    flat = images.transpose(0, 3, 1, 2).reshape(60, -1) / 255.0
    _, _, basis = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    expected = (flat - flat.mean(0)) @ basis[:12].T @ basis[:12] + flat.mean(0)
    with torch.inference_mode():
        pixels = torch.from_numpy(flat).float().view(60, 3, 8, 8)
        made = path.decode(path.encode(pixels)).flatten(1).numpy()
    error, best = np.square(made - flat).mean(), np.square(expected - flat).mean()
    assert error == pytest.approx(best, rel=1e-3)


def test_fewer_images_than_components_are_refused():
    with pytest.raises(ValueError, match="more than 5 images"):
        PrincipalComponents(12, 8, 8).fit(np.zeros((5, 8, 8, 3), np.uint8))


def test_mixing_is_orthogonal_and_gives_every_number_the_same_spread():
    matrix = hadamard(32)
    assert torch.allclose(matrix @ matrix, torch.eye(32), atol=1e-6)
    components = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0)) * torch.logspace(1, -2, 32)
    spread = (components @ matrix).std(0)
    assert spread.max() / spread.min() < 1.2
    assert torch.equal(hadamard(6), torch.eye(6))


def smooth_images(count: int) -> np.ndarray:
    """Random images (count, 32, 48, 3) with more in them than 32 numbers can hold."""
    coarse = np.random.default_rng(0).uniform(0, 255, (count, 8, 12, 3))
    return coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8)


def test_the_linear_path_without_emphasis_is_that_of_the_principal_components():
    images, path = smooth_images(200), LinearPath(32, 32, 48)
    path.fit(images, emphasis=0.0)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    numbers = path.encode(pixels)
    lost, best = (
        (made - pixels).square().mean() for made in (path.decode(numbers), path.pca.decode(path.pca.encode(pixels)))
    )
    assert float(lost) == pytest.approx(float(best), rel=0.01)
    assert float(numbers.square().mean()) == pytest.approx(1.0, rel=0.05)


def test_emphasis_keeps_more_of_the_means_of_patches_and_less_of_the_rest():
    images = smooth_images(400)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    errors = {}
    for emphasis in (0.0, 3.0):
        path = LinearPath(32, 32, 48)
        path.fit(images, emphasis)
        lost = path.decode(path.encode(pixels)) - pixels
        means = torch.nn.functional.avg_pool2d(lost, 16)
        errors[emphasis] = (float(lost.square().mean()), float(means.square().mean()))
    assert errors[3.0][1] < 0.3 * errors[0.0][1]
    assert errors[0.0][0] < errors[3.0][0] < 1.2 * errors[0.0][0]


def test_samples_are_seeded(state):
    tokens = torch.zeros(1, 2, 16)
    with torch.inference_mode():
        first, again, other = (state.model.draw(tokens, seed=seed, steps=2) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_dinov2_gives_one_feature_per_patch_and_stays_frozen(tmp_path):
    config = FeatureConfig(kind="dinov2", patch=8, width=16, depth=1, heads=2, registers=4)
    features = make_features(config, 32, 48)
    assert isinstance(features, Dinov2Features)
    assert features(torch.rand(2, 3, 32, 48)).shape == (2, 24, 16)
    assert not any(p.requires_grad for p in features.parameters())
    features.backbone.save_pretrained(tmp_path / "weights")
    other = make_features(config, 32, 48)
    other.load_folder(tmp_path / "weights")
    image = torch.rand(1, 3, 32, 48)
    assert torch.allclose(features.eval()(image), other.eval()(image))
    with pytest.raises(UserError, match="nowhere"):
        other.load_folder(tmp_path / "nowhere")


def test_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(UserError, match="patch = 7"):
        make_features(FeatureConfig(kind="vit", patch=7), 32, 48)
    with pytest.raises(UserError, match="patch = 8: the features of kind conv"):
        make_features(FeatureConfig(patch=8), 32, 48)


def test_small_vision_transformer_gives_one_feature_per_patch():
    features = make_features(FeatureConfig(kind="vit", patch=8, width=16, depth=1, heads=2), 32, 48)
    assert features(torch.rand(2, 3, 32, 48)).shape == (2, 24, 16)


# ------------------------------------------------------------------------------------------------ capability


def test_kinds_of_recordings_are_told_apart_by_what_differs_not_by_the_nearest_centre():
    torch.manual_seed(0)
    narrow, wide = 0.1 * torch.randn(4000, 8), 3.0 * torch.randn(400, 8)
    wide[:, 0] += 4.0  # on average elsewhere, but often not
    wide[:, 2] = 2.0 + 0.1 * torch.randn(400)  # always
    centres = torch.stack([narrow.mean(0), wide.mean(0)])
    assert (torch.cdist(wide, centres).argmin(1) == 0).float().mean() > 0.1
    kinds = Kinds.fit([narrow[:3000], wide[:300]])
    assert (kinds(narrow[3000:]).argmax(1) == 0).all() and (kinds(wide[300:]).argmax(1) == 1).all()


def test_first_image_has_no_motion_and_the_second_has_the_difference(state):
    first = state.step(frame(10, seed=1))
    second = state.step(frame(20, seed=2))
    assert first.motion is None
    assert np.array_equal(second.motion.tokens, second.tokens.tokens - first.tokens.tokens)
    assert (second.stamp_ns, second.frame_id, second.tokens.stamp_ns) == (20, "camera", 20)


def test_clock_that_jumps_back_clears_the_history(state):
    state.step(frame(20))
    assert state.step(frame(10)).motion is None
    assert state.step(frame(11)).motion is not None


def test_equal_images_give_equal_bytes(bundle):
    predictions = [load("state", bundle).step(frame(5, seed=3)) for _ in range(2)]
    assert predictions[0].tokens.tokens.tobytes() == predictions[1].tokens.tokens.tobytes()
    assert np.array_equal(predictions[0].reconstruction, predictions[1].reconstruction)


def test_reconstruction_is_drawn_only_when_wanted(state):
    state.wanted = set()
    assert state.step(frame(0)).reconstruction is None
    state.wanted = {"reconstruction"}
    picture = state.step(frame(1)).reconstruction
    assert picture.shape == (32, 48, 3) and picture.dtype == np.uint8
    assert set(state.timings_ms) == {"preprocess", "encode", "reconstruct"}
    assert set(state.measures) == {"token_rms", "reconstruction_psnr_db"}


def test_reconstruction_error_is_measured_every_few_seconds_while_nobody_looks(state):
    state.wanted = set()
    drawn = []
    for stamp_ns in (0, 2_500_000_000, 5_000_000_000, 7_000_000_000):
        assert state.step(frame(stamp_ns)).reconstruction is None
        drawn.append("reconstruct" in state.timings_ms)
    assert drawn == [True, False, True, False]


def test_an_image_unlike_the_training_data_is_named_so(state):
    state.familiarity = Familiarity.fit(torch.linspace(0.9, 1.1, 100), torch.linspace(20.0, 30.0, 100))
    assert state.familiarity.judge({"token_rms": 1.0, "reconstruction_psnr_db": 25.0}) == ""
    assert "token norm 3.00" in state.familiarity.judge({"token_rms": 3.0})
    state.step(frame(0))
    assert "dB below 20.1 dB" in state.unfamiliar
    state.reset()
    assert state.unfamiliar == "" and state.measures == {}


def test_limits_of_the_familiar_travel_in_a_bundle():
    limits = Familiarity.fit(torch.linspace(0.9, 1.1, 100), torch.linspace(20.0, 30.0, 100))
    read = Familiarity.read(limits.tensors())
    assert read.token_rms == pytest.approx(limits.token_rms) and read.psnr_db == pytest.approx(limits.psnr_db)
    assert Familiarity.read({}) is None


@pytest.mark.parametrize("height, width", [(1, 1), (480, 640), (33, 97), (2000, 3)])
def test_images_of_odd_sizes_are_taken(state, height, width):
    assert state.step(frame(0, height, width)).tokens.tokens.shape == (2, 16)


@pytest.mark.parametrize(
    "rgb",
    [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))],
)
def test_unusable_image_is_refused_and_the_next_one_taken(state, rgb):
    assert state.step(Frame(0, "camera", rgb)) is None
    assert "(H, W, 3) uint8" in state.withheld
    assert state.step(frame(1)) is not None and state.withheld == ""


def test_tokens_that_are_not_finite_are_withheld(state):
    with torch.no_grad():
        state.model.compressor.shrink[-1].bias.fill_(float("nan"))
    assert state.step(frame(0)) is None
    assert "not finite" in state.withheld


def test_other_samples_are_ignored(state):
    assert state.step(EgoPose(0, "odom", "base_link", np.eye(4))) is None


def test_warm_up_leaves_no_history_and_keeps_what_is_wanted(state):
    state.wanted = set()
    state.warm_up()
    assert state.wanted == set()
    assert state.step(frame(1)).motion is None


def test_batches_give_the_tokens_of_single_steps(state):
    images = np.stack([frame(0, seed=seed).rgb for seed in range(3)])
    stepped = np.stack([state.step(Frame(0, "", image)).tokens.tokens for image in images])
    assert np.allclose(state.tokenize(images), stepped, atol=1e-5)
    assert state.render(stepped).shape == images.shape


def test_bundle_with_another_architecture_is_refused_by_name(bundle, tmp_path):
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["token_width"] = 32
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="the model config asks for"):
        load("state", tmp_path)


# ------------------------------------------------------------------------------------------------ motion, actions


def test_motion_carries_one_scene_into_another():
    start, end, other = (np.full((2, 4), value, np.float32) for value in (1.0, 3.0, 10.0))
    assert np.array_equal(difference(start, end), np.full((2, 4), 2.0))
    assert np.array_equal(interpolate(start, end, 0.25), np.full((2, 4), 1.5))
    assert np.array_equal(transfer(start, end, other), np.full((2, 4), 12.0))


def test_pairs_are_of_one_episode_and_the_right_time_apart():
    episode = np.repeat([0, 1], 5)
    stamp_s = np.tile(np.arange(5) * 0.1, 2)
    first, second = step_pairs(episode, stamp_s, 0.2)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (1, 3), (2, 4), (5, 7), (6, 8), (7, 9)]
    assert len(step_pairs(episode, stamp_s, 0.15)[0]) == 0
    assert len(step_pairs(episode[:0], stamp_s[:0], 0.1)[0]) == 0


def test_head_learns_a_linear_relation_for_each_k():
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(600, 10, generator=generator)
    relation = torch.randn(10, 7, generator=generator)
    joints = {k: change @ relation * k for k in STEPS}
    head = fit_head({k: (change[:500], joints[k][:500]) for k in STEPS}, steps=300)
    for k in STEPS:
        error = (head(change[500:], k) - joints[k][500:]).square().sum() / joints[k][500:].square().sum()
        assert error < 0.15
