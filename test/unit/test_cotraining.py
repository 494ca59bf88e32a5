"""Pseudo-actions: what is decoded from video is near the actions, and the joints of video are never read."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from wm_ros.cli import app
from wm_ros.paths import bundle_path
from wm_ros.training import cotraining, cotraining_run
from wm_ros.training.cotraining import CHUNK, PAST, CotrainConfig, Recording

STEP_S = 1 / 15
CONFIG = CotrainConfig(few=(2,), seeds=(0,), steps=250, width=64, head_steps=400, dropout=0.0)


def recording(episodes: int, seed: int = 0, length: int = 120) -> Recording:
    """Arms that swing at a rate and a phase of their own; the state is a fixed linear view of arm and velocity."""
    rng = np.random.default_rng(seed)
    view = np.random.default_rng(99).normal(size=(14, 16))
    tokens, arms = [], []
    for _ in range(episodes):
        time = np.arange(length)[:, None] * STEP_S
        angle = rng.uniform(2, 4, (1, 7)) * time + rng.uniform(0, 6.3, (1, 7))
        arm, velocity = np.sin(angle), np.cos(angle)
        tokens.append(np.concatenate([arm, velocity], 1) @ view)
        arms.append(arm)
    stamp_s = np.tile(np.arange(length) * STEP_S, episodes)
    joined = [torch.from_numpy(np.concatenate(parts)).float() for parts in (tokens, arms)]
    return Recording(*joined, np.repeat(np.arange(episodes), length), stamp_s)


def test_windows_lie_within_an_episode():
    found = recording(2, length=40).windows(STEP_S)
    assert found.tolist() == [*range(PAST, 40 - CHUNK), *range(40 + PAST, 80 - CHUNK)]


def test_joints_of_video_are_never_read():
    few = recording(6).without_actions(np.array([0, 1]))
    assert torch.isnan(few.arm_rad).any(1).float().mean() == pytest.approx(4 / 6)
    for arm in ("few", "latent", "decoded"):
        policy = cotraining.train_policy(few, arm, STEP_S, CONFIG.model_copy(update={"steps": 5, "head_steps": 5}), 0)
        assert all(torch.isfinite(value).all() for value in policy.state_dict().values())


def test_run_gives_video_no_joints_whatever_they_are(tmp_path, monkeypatch):
    """Joints of the episodes that keep none are garbage in one of two runs; only `all` may see them."""
    truth, unseen = recording(5, length=40), recording(2, seed=1, length=40)
    few = np.random.default_rng(0).permutation(5)[:1]
    garbage = truth.arm_rad.where(torch.from_numpy(truth.episode == few[0])[:, None], torch.tensor(1e3))
    rows = []
    for arm_rad in (truth.arm_rad, garbage):
        reads = iter([replace(truth, arm_rad=arm_rad), unseen])
        monkeypatch.setattr(cotraining_run, "_read", lambda *_, reads=reads: next(reads))
        config = CONFIG.model_copy(update={"few": (1,), "steps": 5, "head_steps": 5})
        for _ in cotraining_run.run(bundle_path("state-lite"), ["made up"], "made up", config, tmp_path):
            pass
        found = json.loads((tmp_path / "cotrain.json").read_text())["rows"]
        rows.append({(r["arm"], r["seen"], r["horizon_s"]): r["value"] for r in found})
    changed = {key[0] for key in rows[0] if rows[0][key] != rows[1][key]}
    assert changed == {"all"}


def test_windows_with_a_missing_frame_are_left_out():
    whole = recording(1, length=40)
    kept = np.delete(np.arange(40), 20)
    cut = Recording(whole.tokens[kept], whole.arm_rad[kept], whole.episode[kept], whole.stamp_s[kept])
    assert cut.windows(STEP_S).tolist() == [3, 4, *range(PAST + 20, 39 - CHUNK)]


def test_equal_seeds_give_equal_weights():
    few = recording(4).without_actions(np.array([0, 1]))
    config = CONFIG.model_copy(update={"steps": 5, "head_steps": 5})
    one, two = (cotraining.train_policy(few, "decoded", STEP_S, config, 3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_decoded_motion_is_the_change_of_joints_where_states_tell_them():
    known = recording(8)
    head = cotraining.fit_motion_head(known, STEP_S, CONFIG, 0)
    now = known.windows(STEP_S)
    chunks = cotraining.decoded_chunks(known, head, now)
    truth = known.arm_rad[now[:, None] + np.arange(1, CHUNK + 1)] - known.arm_rad[now][:, None]
    assert (chunks - truth).abs().mean() < 0.5 * truth.abs().mean()


def test_more_actions_help_and_pseudo_actions_change_what_is_learned():
    train, unseen = recording(24, length=60), recording(6, seed=1, length=60)
    now = unseen.windows(STEP_S)
    few = train.without_actions(np.array([0, 1]))
    config = CONFIG.model_copy(update={"head_steps": 50})
    error = {}
    for arm, data in (("few", few), ("latent", few), ("decoded", few), ("all", train)):
        policy = cotraining.train_policy(data, arm, STEP_S, config, 0)
        error[arm] = cotraining.chunk_errors(policy, unseen, now, joints=False).mean()
    assert error["all"] < 0.9 * error["few"]
    assert len(set(error.values())) == 4


def test_command_writes_table_figures_and_plot(tmp_path):
    config = tmp_path / "cotrain.yaml"
    config.write_text("few: [1]\nseeds: [0]\nsteps: 3\nhead_steps: 3\n")
    sources = ["--data", "sim:tabletop?seeds=1-3&seconds=2", "--test", "sim:tabletop?seeds=4&seconds=2"]
    given = ["cotrain", *sources, "--config", str(config), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "Holding still" in result.output
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"cotrain.json", "cotrain.md", "cotrain.png"}


def test_more_episodes_with_actions_than_there_are_is_refused(tmp_path):
    sources = ["--data", "sim:tabletop?seeds=1-3&seconds=2", "--test", "sim:tabletop?seeds=4&seconds=2"]
    result = CliRunner().invoke(app, ["cotrain", *sources, "--out", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert "few = 8, but only 3 episodes" in str(result.exception or result.output)
