"""`wm backbones`: equal windows for every backbone, errors as defined, and what it writes."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from wm_ros.cli import app
from wm_ros.future.config import FutureConfig, TrajectoryConfig
from wm_ros.future.trajectory import Normaliser
from wm_ros.nn.language import batch_ids
from wm_ros.training import backbones
from wm_ros.training.backbones import BackbonesConfig, Data

SMALL = TrajectoryConfig(width=16, layers=2, heads=2)
CONFIG = BackbonesConfig(steps=4, batch_size=8, seeds=(0,), calls=20, trajectory=SMALL)


def swings(windows: int, seed: int, history_steps: int = 12) -> dict[str, torch.Tensor]:
    """Bodies that swing by 0.1 at a rate and a phase of their own, and go as far aside as the state says."""
    rng = np.random.default_rng(seed)
    rate, phase = rng.uniform(2, 6, (2, windows, 1, 1))
    step = np.arange(1 - history_steps, 31)[:, None] / 15
    course = torch.from_numpy(0.1 * np.sin(rate * step + phase + np.arange(32))).float()
    states = torch.from_numpy(rng.normal(size=(windows, 2, 2, 8))).float()
    return {
        "body": course[:, :history_steps],
        "states": states,
        "words": batch_ids(["swing"] * windows),
        "known": torch.ones(windows, 6, dtype=torch.bool),
        "asked": torch.zeros(windows, history_steps, 26),
        "future": course[:, history_steps:] + 0.05 * states[:, 1, :1, :1],
        "there": torch.ones(windows, 30, dtype=torch.bool),
    }


@pytest.fixture(scope="module")
def data() -> Data:
    config = FutureConfig(state_width=8, trajectory=SMALL)
    norm = Normaliser(config, 1)
    norm.step_std.fill_(0.05)
    base = backbones.TrajectoryModel(config, norm).base
    train, test = swings(200, 0), swings(40, 1)
    base.ridges[0].fit(train["body"], train["future"], 1e-2)
    return Data(config, norm, dict(base.state_dict()), train, test, np.repeat(np.arange(8), 5))


def test_the_error_is_the_mean_distance_of_the_right_wrist_in_mm_where_the_episode_lasts(data):
    test = {name: value.clone() for name, value in data.test.items()}
    test["future"] = test["body"][:, -1:].expand(-1, 30, -1).clone()
    test["future"][:, :, 3] += 0.003  # right wrist, x
    test["future"][:, :, 4] += 0.004
    test["future"][:, :, 0] += 5.0  # the left one does not count
    test["there"][0, 10:] = False
    still = backbones.baseline_errors(Data(data.config, data.norm, data.base, data.train, test, data.episode))["hold"]
    assert np.allclose(still[1:], 5.0, rtol=1e-4)
    assert np.allclose(still[0, :2], 5.0, rtol=1e-4) and np.isnan(still[0, 2:]).all()


def test_a_wrist_moves_when_it_was_faster_than_the_evaluation_asks(data):
    test = {name: value.clone() for name, value in data.test.items()}
    test["body"][:] = 0.0
    test["body"][1, -1, 5] = 0.0061  # over 0.2 s
    test["body"][2, -1, 5] = 0.0059
    test["body"][3, -1, 2] = 1.0  # the left one
    moved = backbones.moving(Data(data.config, data.norm, data.base, data.train, test, data.episode))
    assert np.flatnonzero(moved).tolist() == [1]


def test_training_beats_the_linear_path_where_the_state_says_more(data):
    config = CONFIG.model_copy(update={"steps": 150, "batch_size": 32, "modality_dropout": 0.0})
    model, taken_s = backbones.train(data, "gru", 12, config, 0)
    assert len(taken_s) == 150
    linear = backbones.baseline_errors(data)["ridge"]
    assert backbones.hand_errors(model, data)[:, 2].mean() < 0.9 * linear[:, 2].mean()


def test_what_an_arm_goes_without_it_does_not_hear(data):
    model = backbones.untrained(data, "without states", 12, 0).eval()
    torch.nn.init.normal_(model.body_out.weight, std=0.5)
    other = {**data.test, "states": data.test["states"] + 1.0}
    changed = Data(data.config, data.norm, data.base, data.train, other, data.episode)
    for arm, same in (("all_tokens", False), ("without words", False), ("without states", True)):
        errors = [backbones.hand_errors(model, each, arm) for each in (data, changed)]
        assert np.allclose(*errors) == same, arm


def test_a_shorter_past_is_the_end_of_the_long_one_and_an_untrained_model_is_the_linear_path(data):
    model = backbones.untrained(data, "s4d", 8, seed=0).eval()
    assert np.allclose(backbones.hand_errors(model, data), backbones.baseline_errors(data)["ridge"], rtol=1e-4)


def test_equal_seeds_give_equal_weights_whatever_was_trained_before(data):
    first, _ = backbones.train(data, "selective", 12, CONFIG, 3)
    torch.randn(5)
    second, _ = backbones.train(data, "selective", 12, CONFIG, 3)
    other, _ = backbones.train(data, "selective", 12, CONFIG, 4)
    one, two, three = (model.state_dict() for model in (first, second, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], three[name]) for name in one)


SOURCES = ["--data", "sim:tabletop?seeds=1-3&seconds=3", "--test", "sim:tabletop?seeds=4-5&seconds=3"]


def test_command_writes_tables_figures_and_plot(tmp_path):
    config = tmp_path / "backbones.yaml"
    arms = "backbones: [all_tokens, gru]\nwithout: [words, states]\n"
    config.write_text(arms + "history_steps: [8, 12]\nseeds: [0, 1]\nsteps: 2\ncalls: 20\n")
    given = ["backbones", *SOURCES, "--config", str(config), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "vs all_tokens" in result.output
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"backbones.json", "backbones.md", "backbones.png"}
    report = json.loads((tmp_path / "out" / "backbones.json").read_text())
    row = report["rows"][0]
    assert row["ci95"][0] <= row["hand_ade_mm"] <= row["ci95"][1]
    assert row["hand_ade_mm"] == pytest.approx(np.mean(row["seeds"]), rel=1e-4)
    assert row["gains"]["ridge"][0] == pytest.approx(row["baselines"]["ridge"] - row["hand_ade_mm"], abs=1e-3)
    assert len(report["costs"]) == 8
    assert "without states" in result.output
    assert all(0 < cost["call_p50_ms"] <= cost["call_p95_ms"] for cost in report["costs"])


@pytest.mark.parametrize(
    ("text", "said"),
    [("history_steps: [6]", "the linear path sees 8 states"), ("backbones: [lstm]", "backbones.0 = 'lstm'")],
)
def test_what_cannot_be_compared_is_refused(tmp_path, text, said):
    config = tmp_path / "backbones.yaml"
    config.write_text(text + "\n")
    given = ["backbones", *SOURCES, "--config", str(config), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code != 0
    assert said in str(result.exception or result.output)
