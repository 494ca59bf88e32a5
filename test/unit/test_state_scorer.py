"""The state scorer: what it scores, what it leaves out, and that its figures are what they say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from state_parts import write_bundle

from wm_ros.capability import load
from wm_ros.evaluation.state import StateScorer, changing
from wm_ros.evaluation.state_heads import ActionHeads, change_rows, r_squared
from wm_ros.kinematics import G1_JOINTS
from wm_ros.nn.image_quality import psnr
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.state.action import METHODS, STEPS, ActionHead
from wm_ros.state.baselines import load_baselines
from wm_ros.state.kinds import Kinds
from wm_ros.types import Frame, Joints

FRAMES = 20


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A tiny untrained bundle with untrained heads."""
    torch.manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    inputs = {"model": 32, "pca": 32, "pixels": 144}
    states = [centre + torch.randn(20, 32) for centre in (0.0, 1000.0)]
    tensors |= {f"baseline.action.kinds.{name}": value for name, value in Kinds.fit(states).state_dict().items()}
    for kind in (0, 1):
        for method in METHODS:
            head = ActionHead(inputs[method])
            tensors |= {f"baseline.action.{kind}.{method}.{n}": v for n, v in head.state_dict().items()}
    return write_bundle(tmp_path_factory.mktemp("scored") / "tiny", tensors)


def scored(bundle: Path, joints: bool = True, wanted: bool = True):
    """Scores of a made-up episode of `FRAMES` images at 15 Hz in which the right shoulder turns."""
    state, scorer = load("state", bundle), StateScorer(bundle)
    state.wanted = {"reconstruction"} if wanted else set()
    rng = np.random.default_rng(0)
    for number in range(FRAMES):
        stamp_ns = round(number / 15 * 1e9)
        if joints:
            position = np.zeros(len(G1_JOINTS))
            position[G1_JOINTS.index("kRightShoulderPitch")] = 0.05 * number
            scorer.observe(Joints(stamp_ns, "", G1_JOINTS, position))
        frame = Frame(stamp_ns, "camera", rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
        scorer.observe(frame)
        scorer.predict(state.step(frame))
    return scorer.finish()


def test_all_required_figures_with_their_baselines(bundle):
    metrics = {metric.name: metric for metric in scored(bundle).metrics}
    reconstruction, interpolation = {"model", "pca", "mean_image"}, {"model", "first", "pca", "pixel_mean"}
    assert set(metrics["reconstruction_psnr"].statistics) == reconstruction
    assert set(metrics["reconstruction_ssim"].statistics) == reconstruction
    assert set(metrics["interpolation_psnr"].statistics) == interpolation
    assert set(metrics["interpolation_ssim_hand"].statistics) == interpolation
    assert set(metrics["sample_distance"].statistics) == {"model", "mean", "pca"}
    for k in STEPS:
        assert set(metrics[f"action_r2@k{k}"].statistics) == set(METHODS)
        assert len(metrics[f"action_r2@k{k}"].statistics["model"]) == FRAMES - k


def test_without_joints_only_actions_are_absent(bundle):
    names = {metric.name for metric in scored(bundle, joints=False).metrics}
    assert {"reconstruction_psnr", "interpolation_psnr"} <= names
    assert not any(name.startswith("action_r2") for name in names)


def test_without_reconstructions_those_figures_are_absent(bundle):
    names = {metric.name for metric in scored(bundle, wanted=False).metrics}
    assert not any(name.startswith("reconstruction") for name in names)


def test_an_empty_episode_gives_no_figures(bundle):
    scores = StateScorer(bundle).finish()
    assert (scores.metrics, scores.rows, scores.pictures) == ([], [], {})


def test_every_prediction_has_a_row_and_the_mean_of_rows_is_the_figure(bundle):
    scores = scored(bundle)
    assert len(scores.rows) == FRAMES
    figure = next(m for m in scores.metrics if m.name == "reconstruction_psnr").statistics["model"].mean()
    assert np.mean([row["reconstruction_psnr"] for row in scores.rows]) == pytest.approx(figure)


def test_pictures_are_images(bundle):
    pictures = scored(bundle).pictures
    assert len(pictures) == 2
    assert all(p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 for p in pictures.values())


def test_r_squared_is_one_for_truth_and_zero_for_the_mean():
    truth = np.random.default_rng(0).normal(1.0, 2.0, (50, 7))
    assert r_squared(change_rows(truth, truth).sum(0)) == pytest.approx(1.0)
    assert r_squared(change_rows(np.broadcast_to(truth.mean(0), truth.shape), truth).sum(0)) == pytest.approx(0.0)


def test_the_changing_region_is_what_moved_and_around_it():
    first = np.full((1, 40, 60, 3), 100, np.uint8)
    last = first.copy()
    last[0, 10:20, 10:20] = 200
    last[0, 30, 50] = 200  # one noisy pixel is no motion
    region = changing(first, last)[0]
    assert region[8:22, 8:22].all() and not region[:5].any() and not region[26:, 40:].any()


def test_interpolation_is_compared_with_the_image_drawn_from_the_first_state(bundle):
    metrics = {metric.name: metric for metric in scored(bundle).metrics}
    baselines, state = load_baselines(bundle), load("state", bundle)
    rng = np.random.default_rng(0)
    images = np.stack([state.preprocess(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)) for _ in range(FRAMES)])
    drawn = baselines.render(state.tokenize(images))
    expected = psnr(to_tensor(drawn[:-4]), to_tensor(images[2:-2]))
    first = metrics["interpolation_psnr@gap4"].statistics["first"][:, 0]
    assert np.allclose(first, expected.numpy(), atol=1e-4)


def test_heads_are_those_of_the_kind_of_recording(bundle):
    heads = ActionHeads(load_baselines(bundle).tensors)
    assert heads.kind(np.zeros((5, 2, 16), np.float32)) == 0
    assert heads.kind(np.full((5, 2, 16), 900.0, np.float32)) == 1
    assert not ActionHeads({})
