"""Rollouts on their own output: nothing of the recording enters after the start, and equal runs give equal bytes."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from wm_ros.cli import app
from wm_ros.data.simulator import tabletop_samples
from wm_ros.evaluation.imagination import Rollouts, imagine, metrics_of
from wm_ros.evaluation.replay import Pipeline
from wm_ros.paths import MODELS
from wm_ros.types import Frame

BUNDLES = {name: MODELS / f"{name}-lite" for name in ("state", "future")}
SECONDS = 2.0


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    torch.set_num_threads(1)
    return Rollouts(Pipeline(["state", "future"], BUNDLES), every_s=0.4, seconds=SECONDS)


@pytest.fixture(scope="module")
def samples():
    return list(tabletop_samples(100_000, seconds=3.5))


@pytest.fixture(scope="module")
def scored(rollouts, samples):
    return rollouts.run(samples)


def test_rollouts_start_after_a_full_window_and_go_on_at_the_frames_of_each_round(scored, samples):
    starts_s = [(each.imagined.stamp_ns - samples[0].stamp_ns) * 1e-9 for each in scored]
    assert starts_s == pytest.approx([0.8, 1.2], abs=0.01)  # two seconds of recording are left after each
    for each in scored:
        assert each.imagined.offsets_s == pytest.approx(np.arange(1, 7) / 3)
        assert each.imagined.frames.shape == (6, 96, 128, 3) and each.seen.shape == (6, 96, 128, 3)


def test_the_first_round_is_the_prediction(rollouts, scored, samples):
    """And what the first round says of the wrist is no further off than a hand is long: units and frames are right."""
    first = imagine(rollouts.future, rollouts.state, rollouts.future.moment, 1.0)
    moment = rollouts.future.moment
    assert np.array_equal(first.frames, rollouts.future.paint(moment, moment.forecast.body).rgb)
    steps = [step - 1 for step in rollouts.config.frame_steps]
    assert np.allclose(first.bodies, moment.forecast.body[0].numpy()[steps], atol=1e-6)
    assert 0 < scored[0].figures["wrist_error"]["model"][0] < 200.0


def test_the_recording_does_not_enter_after_the_start(rollouts, scored, samples):
    start_ns = scored[0].imagined.stamp_ns
    other = []
    for sample in samples:
        if isinstance(sample, Frame) and sample.stamp_ns > start_ns:
            sample = Frame(sample.stamp_ns, sample.frame_id, np.zeros_like(sample.rgb))
        other.append(sample)
    again = rollouts.run(other)[0]
    assert np.array_equal(again.imagined.frames, scored[0].imagined.frames)
    assert np.array_equal(again.imagined.bodies, scored[0].imagined.bodies)
    assert again.figures["frame_psnr"]["model"][-1] < scored[0].figures["frame_psnr"]["model"][-1]


def test_what_is_drawn_stays_a_picture_of_the_scene(scored):
    """Noise against any scene is below 12 dB, and grey below 15."""
    for each in scored:
        assert (each.figures["frame_psnr"]["model"] > 15.0).all()


def test_holding_is_scored_by_what_was_there_at_the_start(scored):
    for each in scored:
        error = (each.seen[-1].astype(float) - each.now) / 255.0
        assert each.figures["frame_psnr"]["hold"][-1] == pytest.approx(
            -10 * np.log10(np.square(error).mean()), abs=1e-3
        )


def test_every_horizon_has_its_figures_on_all_and_on_moving_starts(scored):
    found = {metric.name: metric for metric in metrics_of(scored)}
    assert len(found["wrist_error@2.00s"].statistics["model"]) == len(scored)
    moving = sum(each.moving for each in scored)
    assert len(found["frame_psnr_moving@0.33s"].statistics["hold"]) == moving > 0


def test_command_writes_the_same_bytes_twice(tmp_path):
    source = "sim:tabletop?seeds=100000&seconds=3.2"
    for name in ("one", "two"):
        given = ["imagine", source, "--out", str(tmp_path / name), "--seconds", "2"]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 0, result.output
        assert "not above holding it until" in result.output
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["best.png", "horizon.png", "median.png", "metrics.json", "worst.png"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    report = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert set(report["metrics"]["wrist_error@2.00s"]["baselines"]) == {"hold"}


def test_a_recording_that_is_too_short_is_named(tmp_path):
    given = ["imagine", "sim:tabletop?seeds=100000&seconds=1.5", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    assert "long enough" in str(result.exception)
