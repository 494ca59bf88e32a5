"""Training of the small state model: what is learned, what is frozen, and what a bundle then holds."""

import numpy as np
import pytest
import torch
from state_parts import CONFIG
from torch.utils.data import default_collate

from wm_ros.bundle import load_bundle, tokens_checksum
from wm_ros.state.action import STEPS, fit_head
from wm_ros.state.config import StateModelConfig
from wm_ros.training.clips import Clips
from wm_ros.training.image_cache import build_cache
from wm_ros.training.state import StateTask, StateTrainConfig
from wm_ros.training.state_heads import dense_rows
from wm_ros.training.task import RunInfo

SOURCES = ["sim:tabletop?seeds=1-4&seconds=2&weight=3", "sim:tabletop?seeds=5-6&seconds=2&rate_hz=2"]
RUN = RunInfo("wm train state", SOURCES, ["Apache-2.0 (simulated)"], 0, 3, {})


def prepared(folder, **changes):
    """A task on two small sources, and its training set."""
    task = StateTask(StateTrainConfig(model=CONFIG, steps=3, batch_size=4, flow_after=0.0, **changes), folder)
    train, _ = task.prepare(SOURCES, 0)
    return task, train


def steps(task, train, count=3):
    """Optimiser steps on the first clips; returns the losses of the last."""
    optimiser = torch.optim.AdamW(task.trainable(), 1e-2)
    for step in range(count):
        losses = task.loss(default_collate([train[i] for i in range(4)]), step)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    return losses


def test_every_part_is_trained_and_the_flow_does_not_shape_the_tokens(tmp_path):
    task, train = prepared(tmp_path)
    before = {name: value.clone() for name, value in task.modules.named_parameters()}
    losses = steps(task, train)
    assert set(losses) == {"loss", "autoencoder", "flow", "picture", "between", "motion"}
    moved = {name for name, value in task.modules.named_parameters() if not torch.equal(value, before[name])}
    for part in ("features", "compressor", "mean_decoder", "autoencoder", "flow"):
        assert any(name.startswith(f"model.{part}.") for name in moved), part
    task.modules.zero_grad()
    _, flow = task._flow_loss(train[0][:1], task.model.encode(train[0][:1]), 1)
    flow.backward()
    assert all(p.grad is None or not p.grad.any() for p in task.model.compressor.parameters())


def test_frozen_tokens_stay_the_same_to_the_bit_while_decoders_are_trained_on(tmp_path):
    first, train = prepared(tmp_path)
    steps(first, train)
    first.modules.eval()
    first.export(tmp_path / "first", RUN)
    second, train = prepared(tmp_path, frozen_tokens=True)
    second.start_from(tmp_path / "first")
    steps(second, train)
    second.modules.eval()
    second.export(tmp_path / "second", RUN)
    assert tokens_checksum(tmp_path / "first") == tokens_checksum(tmp_path / "second")
    one, two = (load_bundle(tmp_path / name, "state", StateModelConfig) for name in ("first", "second"))
    assert one[0].weights_sha256 != two[0].weights_sha256
    assert {"familiar.token_rms", "familiar.psnr_db"} <= one[1].keys()


def test_heads_are_fitted_on_whole_dense_episodes_of_each_source(tmp_path):
    task, _ = prepared(tmp_path)
    rows = dense_rows(task.cache, 1 / 15, most=60, seed=0)
    assert len(rows) == 1  # the second source has half a second between images
    episodes, counts = np.unique(task.cache.episode[rows[0]], return_counts=True)
    assert 0 < counts.sum() <= 60
    assert all(count == (task.cache.episode == n).sum() for n, count in zip(episodes, counts, strict=True))


def test_a_head_learns_a_motion_and_a_motion_run_backwards_is_the_motion_back():
    torch.manual_seed(0)
    change = torch.randn(2000, 8)
    arm = torch.tanh(change @ torch.randn(8, 7))
    head = fit_head(dict.fromkeys(STEPS, (change[:1500], arm[:1500])), steps=300)
    left = (head(change[1500:], 2) - arm[1500:]).square().mean() / arm[1500:].square().mean()
    assert left < 0.3
    assert head(change, 4).abs().max() > 0
    assert torch.equal(head(change, 4), -head(-change, 4))


def test_a_clip_is_three_images_evenly_apart_or_one_three_times(tmp_path):
    cache = build_cache(SOURCES, 32, 48, tmp_path)
    rows = np.arange(len(cache.episode))
    clips = Clips(cache, rows, (4,), clip_s=0.6)
    images = torch.from_numpy(cache.images[rows].transpose(0, 3, 1, 2).copy()).float() / 255
    assert torch.equal(clips[0], images[[0, 4, 8]])
    last = int(np.flatnonzero(cache.episode == 0)[-1])
    assert torch.equal(clips[last], images[[last] * 3])
    sparse = int(np.flatnonzero(cache.source == 1)[0])  # half a second apart: a clip of one second is too long
    assert torch.equal(clips[sparse], images[[sparse] * 3])


def test_sources_are_drawn_by_their_weights(tmp_path):
    cache = build_cache(SOURCES, 32, 48, tmp_path)
    clips = Clips(cache, np.arange(len(cache.episode)), (1,), 1.0, shares=[3.0, 1.0])
    drawn = [clips.weights[cache.source == source].sum() for source in (0, 1)]
    assert drawn == pytest.approx([3.0, 1.0])


def test_a_weight_does_not_read_a_source_again(tmp_path):
    build_cache(SOURCES, 32, 48, tmp_path)
    build_cache([SOURCES[0].replace("weight=3", "weight=5"), SOURCES[1]], 32, 48, tmp_path)
    assert len(list(tmp_path.glob("images-*"))) == 2
