"""Changes of light: what they do to an image, and that no change is no drift."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from wm_ros.cli import app
from wm_ros.evaluation.illumination import CHANGES, Clips, gain, measure, shadow
from wm_ros.paths import MODELS


def test_changes_stay_images_and_the_neutral_value_changes_nothing():
    images = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    neutral = {"gain": 1.0, "gamma": 1.0, "shadow": 0.0, "colour": 0.0}
    for name, (change, values) in CHANGES.items():
        assert torch.equal(change(images, neutral[name]), images)
        for value in values:
            assert change(images, value).min() >= 0 and change(images, value).max() <= 1


def test_a_shadow_covers_the_right_half_only():
    image = torch.ones(1, 3, 4, 40)
    dark = shadow(image, 0.4)
    assert torch.equal(dark[..., :16], image[..., :16])
    assert torch.allclose(dark[..., 24:], torch.tensor(0.6))


def test_gain_clips_as_a_camera_does():
    assert gain(torch.tensor([0.2, 0.8]), 2.0).tolist() == pytest.approx([0.4, 1.0])


def test_no_change_is_no_drift_and_a_larger_one_drifts_further():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 6, 8, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    curves = measure(MODELS / "state-lite", Clips(images[:3], images[3:]))
    for change in ("gain", "gamma", "shadow", "colour"):
        drift = dict(zip(curves[change]["values"], curves[change]["token_drift"], strict=True))
        neutral = 1.0 if change in ("gain", "gamma") else 0.0
        assert drift[neutral] == pytest.approx(0.0, abs=1e-3)
        assert drift[max(drift)] > 0.02
        assert len(curves[change]["action_drift"]) == len(drift)


def test_command_writes_curves(tmp_path):
    out = tmp_path / "out"
    given = ["illumination", "--data", "sim:tabletop?seeds=100000&seconds=1", "--out", str(out)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert set(json.loads((out / "illumination.json").read_text())["state-lite"]) == set(CHANGES)
    assert "| gain 2 |" in (out / "illumination.md").read_text() and (out / "illumination.png").is_file()
