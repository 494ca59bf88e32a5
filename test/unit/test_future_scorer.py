"""The scorer against motions whose errors are known by hand."""

import numpy as np
import pytest
import torch

from wm_ros.bundle import TrainingRecord
from wm_ros.evaluation.future import SCORER
from wm_ros.future import CAPABILITY
from wm_ros.future import model as bundles
from wm_ros.future.config import FramesConfig, FutureConfig, TrajectoryConfig
from wm_ros.kinematics import G1_JOINTS
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.types import Frame, HandTrajectory, JointCommand, Joints, StateTokens

CONFIG = FutureConfig(
    state_width=16,
    image_height=32,
    image_width=64,
    trajectory=TrajectoryConfig(width=32, layers=1, heads=2),
    frames=FramesConfig(width=32, layers=1, heads=2),
    autoencoder=AutoencoderConfig(channels=4, width=16, blocks=1),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bundle") / "b"
    record = TrainingRecord(command="-", data=[], data_licence="-", seed=0, steps=0)
    bundles.save(path, "tiny", bundles.FutureModel(CONFIG), record, "# card")
    return path


def scored(bundle, right_m, left_m=lambda t: np.array([0.3, 0.2, 0.1]), steps=45):
    """Scores of an episode whose wrists are at right_m(t), left_m(t); no joints, so that they are as given."""
    capability, scorer = CAPABILITY.from_bundle(bundle), SCORER(bundle)
    rng = np.random.default_rng(0)
    for step in range(steps):
        stamp, t = 10**12 + round(step * 1e9 / 15), step / 15
        hands = [
            HandTrajectory(stamp, "torso", side, np.zeros(1), np.float32(path(t))[None], np.ones(1, bool))
            for side, path in (("left", left_m), ("right", right_m))
        ]
        shade = np.full((32, 64, 3), 60 + 2 * step, np.uint8)
        command = JointCommand(stamp, "", G1_JOINTS, rng.normal(size=26))
        tokens = StateTokens(stamp, "camera", np.zeros((2, 16), np.float32))
        for sample in (command, *hands, Frame(stamp, "camera", shade), tokens):
            scorer.observe(sample)
            prediction = capability.step(sample)
            if prediction is not None:
                scorer.predict(prediction)
    return scorer.finish()


@pytest.fixture(scope="module")
def moving_right(bundle):
    return scored(bundle, lambda t: np.array([0.3 + 0.1 * t, -0.2, 0.1]))


def figure(scores, name, method):
    return next(metric.statistics[method] for metric in scores.metrics if metric.name == name)


def test_hold_is_off_by_the_distance_travelled(moving_right):
    assert figure(moving_right, "hand_fde@0.5s", "hold") == pytest.approx(50.0, abs=0.01)
    # The seven steps up to 0.5 s: 1/15 … 7/15 s, four of them on average.
    assert figure(moving_right, "hand_ade@0.5s", "hold") == pytest.approx(100 * 4 / 15, abs=0.01)


def test_only_predictions_whose_time_came_are_scored(moving_right):
    assert len(figure(moving_right, "hand_ade@2.0s", "model")) == 45 - 30
    assert len(figure(moving_right, "hand_ade@0.2s", "model")) == 45 - 3


def test_moving_counts_only_moving_frames(moving_right):
    everything, moving = (figure(moving_right, f"hand_ade{s}@0.5s", "hold") for s in ("", "_moving"))
    assert 0 < len(everything) - len(moving) < 4  # the first frames have no past to move in


def test_a_still_right_wrist_gives_way_to_a_moving_left_one(bundle):
    still = lambda t: np.array([0.3, -0.2, 0.1])  # noqa: E731
    scores = scored(bundle, still, lambda t: np.array([0.3, 0.2, 0.1 + 0.2 * t]))
    assert scores.rows[0]["side"] == "left"
    assert figure(scores, "hand_fde@1.0s", "hold") == pytest.approx(200.0, abs=0.01)
    assert scored(bundle, still).rows[0]["side"] == "right"


def test_all_baselines_and_controls_are_there(moving_right):
    names = {metric.name: set(metric.statistics) for metric in moving_right.metrics}
    for horizon in ("0.2s", "0.5s", "1.0s", "2.0s"):
        assert names[f"hand_ade@{horizon}"] == {"model", "hold", "constant_velocity", "phase", "ridge"}
    for horizon in ("0.33s", "0.67s", "1.0s"):
        for key in ("frame_psnr", "frame_ssim", "frame_psnr_true", "frame_ssim_true"):
            assert names[f"{key}@{horizon}"] == {"model", "copy_last", "no_trajectory", "shuffled"}


def test_the_hand_in_a_frame_is_looked_for_and_a_sample_is_compared_with_the_mean(moving_right):
    names = {metric.name: set(metric.statistics) for metric in moving_right.metrics}
    for horizon in ("0.33s", "0.67s", "1.0s"):
        assert names[f"hand_in_frame@{horizon}"] == names[f"hand_in_frame_seen@{horizon}"] == {"model"}
        assert names[f"hand_in_frame_true@{horizon}"] == {"model", "copy_last", "no_trajectory"}
        assert names[f"frame_texture_sample@{horizon}"] == {"model", "predicted", "copy_last"}
    # In the frame of now the hand has not moved, so it is as far from the true wrist as that has gone.
    assert figure(moving_right, "hand_in_frame_true@1.0s", "copy_last") == pytest.approx(100.0, abs=2.0)


def test_without_joints_no_joint_figure_is_made_up(moving_right):
    assert not any(metric.name.startswith("joint") for metric in moving_right.metrics)


def test_samples_are_scored_beside_equal_gaussian_and_central_ones(moving_right):
    names = {"model", "equal", "ridge_gaussian", "central"}
    found = next(metric for metric in moving_right.metrics if metric.name == "hand_energy_score@1.0s")
    assert set(found.statistics) == names
    # Of one path the energy score is its mean error, as `hand_ade` counts it.
    known = len(found.statistics["model"])
    assert np.allclose(found.statistics["central"], figure(moving_right, "hand_ade@1.0s", "model")[:known], atol=0.05)
    inside = figure(moving_right, "hand_region90@1.0s", "model")
    assert set(np.unique(inside)) <= {0.0, 1.0}
    assert 0 <= figure(moving_right, "hand_plausibility", "model").mean() <= 1


def test_commands_make_figures_of_their_own_where_they_were_recorded(bundle, moving_right):
    assert not [metric for metric in moving_right.metrics if "_commands" in metric.name]
    capability, scorer = CAPABILITY.from_bundle(bundle), SCORER(bundle)
    for step in range(25):
        stamp, angle = 10**12 + round(step * 1e9 / 15), np.full(26, 0.02 * step)
        tokens = StateTokens(stamp, "camera", np.zeros((2, 16), np.float32))
        command = JointCommand(stamp, "", G1_JOINTS, angle + 0.1)
        for sample in (Joints(stamp, "", G1_JOINTS, angle), command, tokens):
            scorer.observe(sample)
            prediction = capability.step(sample)
            if prediction is not None:
                scorer.predict(prediction)
    scores = scorer.finish()
    found = next(metric for metric in scores.metrics if metric.name == "hand_ade_commands@0.5s")
    assert set(found.statistics) == {"model", "ridge", "hold", "constant_velocity", "phase", "state_only"}
    assert np.allclose(found.statistics["state_only"], figure(scores, "hand_ade@0.5s", "model"))


def test_the_true_body_is_held_where_the_recording_ends(bundle):
    scorer = SCORER(bundle)
    for step in range(20):
        angle = np.full(26, 0.02 * step)
        scorer.observe(Joints(10**12 + round(step * 1e9 / 15), "", G1_JOINTS, angle))
    late = scorer._true_body(10**12 + round(15 * 1e9 / 15))[0]
    assert torch.allclose(late[:4, 6], 0.02 * torch.arange(16, 20), atol=1e-4)
    assert torch.allclose(late[4:], late[3].expand(26, -1), atol=1e-5)


def test_copy_last_is_compared_with_the_frame_that_came(moving_right):
    # Brightness rises by 2 levels per step, 10 per third of a second.
    expected = -20 * np.log10(10 / 255)
    assert figure(moving_right, "frame_psnr@0.33s", "copy_last") == pytest.approx(expected, abs=0.01)


def test_pictures_show_frames_and_the_wrist(moving_right):
    assert len(moving_right.pictures) == 2
    assert all(image.ndim == 3 and image.dtype == np.uint8 for image in moving_right.pictures.values())


def test_an_episode_without_predictions_has_no_metrics(bundle):
    assert SCORER(bundle).finish().metrics == []
