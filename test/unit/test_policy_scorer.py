"""The policy's figures: what counts as truth, what each baseline gets, which predictions are left out."""

from pathlib import Path

import numpy as np
import pytest
from policy_parts import CONFIG, NAMES, at, joints, tokens, write_bundle

from wm_ros.evaluation.policy import COMMANDED, METHODS, PolicyScorer
from wm_ros.evaluation.scorer import Scores
from wm_ros.policy import baselines
from wm_ros.policy.config import PastConfig
from wm_ros.types import ActionChunk, JointCommand, Joints, PolicyPrediction

STEPS = 30
SPEED = 0.01  # rad per step


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("policy") / "bundle")


def chunk_of(step: int, error: float) -> PolicyPrediction:
    """A chunk that is right about the ramp but for `error` on every joint."""
    offsets = np.arange(1, 16) / 15
    position = np.repeat(SPEED * (step + np.arange(1, 16))[:, None] + error, 3, 1).astype(np.float32)
    return PolicyPrediction(at(step), "", ActionChunk(at(step), "", NAMES, offsets, position))


def scores(bundle: Path, error: float = 0.0, commands: bool = True, shuffle: bool = False) -> Scores:
    """An episode in which all joints and commands move along one ramp."""
    scorer = PolicyScorer(bundle)
    names = NAMES[::-1] if shuffle else NAMES
    for step in range(STEPS):
        scorer.observe(joints(step, (SPEED * step,) * 3))
        if commands:
            scorer.observe(JointCommand(at(step), "", names, np.full(3, SPEED * step)))
        scorer.observe(tokens(step))
        scorer.predict(chunk_of(step, error))
    return scorer.finish()


def test_figures_are_mean_errors_up_to_the_horizon(bundle: Path) -> None:
    found = {metric.name: metric for metric in scores(bundle, error=0.02).metrics}
    assert set(found) == {"action_mae@0.2s", "action_mae@0.5s", "action_mae@1.0s"}
    for name, steps in (("action_mae@0.2s", 3), ("action_mae@0.5s", 7), ("action_mae@1.0s", 15)):
        metric = found[name]
        assert set(metric.statistics) == set(METHODS) and metric.unit == "rad" and metric.better == "lower"
        assert metric.statistics["model"].mean() == pytest.approx(0.02, abs=1e-6)
        # Holding still on a ramp is wrong by the way to each step.
        assert metric.statistics["hold"].mean() == pytest.approx(SPEED * (steps + 1) / 2, abs=1e-6)
        assert metric.statistics["hold_command"].mean() == pytest.approx(SPEED * (steps + 1) / 2, abs=1e-6)
        assert len(metric.statistics["model"]) == STEPS - steps  # the rest reaches beyond the last command


def test_constant_velocity_is_damped(bundle: Path) -> None:
    metric = scores(bundle).metrics[0]
    expected = np.mean([SPEED * (k - sum(0.9**i for i in range(1, k + 1))) for k in (1, 2, 3)])
    assert metric.statistics["constant_velocity"][5:].mean() == pytest.approx(expected, rel=1e-3)


def test_commands_are_read_by_name(bundle: Path) -> None:
    scorer = PolicyScorer(bundle)
    for step in range(STEPS):
        scorer.observe(joints(step, (1.0, 2.0, 3.0)))
        scorer.observe(JointCommand(at(step), "", ("x", *NAMES[::-1]), np.asarray([9.0, 3.0, 2.0, 1.0])))
        scorer.predict(chunk_of(step, 0.0))
    for metric in scorer.finish().metrics:
        assert metric.statistics["hold"].max() == pytest.approx(0.0, abs=1e-7)


def test_rows_carry_stamp_and_error_of_each_scored_prediction(bundle: Path) -> None:
    rows = scores(bundle, error=0.02).rows
    assert [row["stamp_ns"] for row in rows] == [at(step) for step in range(STEPS - 3)]
    assert set(rows[0]) == {"stamp_ns", "action_mae@0.2s", "action_mae@0.5s", "action_mae@1.0s"}
    assert set(rows[-1]) == {"stamp_ns", "action_mae@0.2s"}


def test_without_commands_there_is_nothing_to_score(bundle: Path) -> None:
    assert scores(bundle, commands=False) == Scores()


def test_commands_of_another_robot_are_not_truth(bundle: Path) -> None:
    scorer = PolicyScorer(bundle)
    for step in range(STEPS):
        scorer.observe(joints(step))
        scorer.observe(JointCommand(at(step), "", ("left_wheel",), np.zeros(1)))
        scorer.predict(chunk_of(step, 0.0))
    assert scorer.finish() == Scores()


def test_a_command_is_in_force_until_the_next(bundle: Path) -> None:
    scorer = PolicyScorer(bundle)
    for step in range(STEPS):
        scorer.observe(Joints(at(step), "", NAMES, np.zeros(3)))
        if step % 10 == 0:
            scorer.observe(JointCommand(at(step), "", NAMES, np.full(3, float(step))))
        scorer.predict(chunk_of(step, 0.0))
    metric = scorer.finish().metrics[0]
    # Holding zero: wrong by the command in force at the next three steps.
    expected = [np.mean([(step + k) // 10 * 10 for k in (1, 2, 3)]) for step in range(len(metric.statistics["hold"]))]
    assert metric.statistics["hold"][:, 0] == pytest.approx(expected)


def test_a_bundle_that_hears_commands_stands_beside_baselines_that_see_them(tmp_path: Path) -> None:
    hears = CONFIG.model_copy(update={"past": PastConfig(commands=3, members=2, width=8)})
    bundle = write_bundle(tmp_path / "bundle", hears)
    for commands_ahead in (0.0, 1.0):
        scorer = PolicyScorer(bundle)
        for step in range(STEPS):
            scorer.observe(joints(step, (SPEED * step,) * 3))
            scorer.observe(JointCommand(at(step), "", NAMES, np.full(3, SPEED * step + commands_ahead)))
            scorer.predict(chunk_of(step, commands_ahead))
        statistics = scorer.finish().metrics[0].statistics
        assert set(statistics) == {*METHODS, *COMMANDED}
        # Commands go on by their own speed from where they are, joints from where they are.
        damped = np.mean([SPEED * (k - sum(0.8**i for i in range(1, k + 1))) for k in (1, 2, 3)])
        assert statistics["constant_velocity_commands"][5:].mean() == pytest.approx(damped, rel=1e-3)
        assert statistics["constant_velocity"][5:].mean() == pytest.approx(commands_ahead, abs=0.02)
        # Coefficients of 0 hold still, whatever they see.
        for method in ("ridge", "ridge_commands"):
            np.testing.assert_allclose(statistics[method], statistics["hold"], atol=1e-6)


def test_picture_is_an_image(bundle: Path) -> None:
    (picture,) = scores(bundle).pictures.values()
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.std() > 1


def test_the_mean_episode_stretches_short_and_long_ones_alike() -> None:
    short, long = np.linspace(0, 1, 12)[:, None], np.linspace(0, 3, 170)[:, None]
    assert baselines.fit_phase([short, long])[:, 0] == pytest.approx(np.linspace(0, 2, baselines.PHASES))
    way = baselines.phase_way(
        np.array([[5.0]]), np.array([0.5]), np.array([[0.75, 1.5]]), *[np.linspace(0, 2, 101)[:, None]] * 2
    )
    assert way[0, :, 0] == pytest.approx([5.5, 6.0])  # moves as the mean does, and stops at its end
