"""What is trained beside the actions: each objective falls, moves the encoder, and leaves nothing in the bundle."""

import numpy as np
import pytest
import torch
from policy_parts import NAMES

from wm_ros.policy.config import CameraConfig, TransformerConfig
from wm_ros.training import policy as policy_module
from wm_ros.training.policy import PolicyTask
from wm_ros.training.policy_batches import disturbed, observation
from wm_ros.training.policy_config import DropoutConfig, ObjectiveConfig, PolicyTrainConfig
from wm_ros.training.policy_probe import _probe
from wm_ros.training.windows import Aligned

STEPS, EPISODES = 30, 3


def recorded(folder, *_, **__):
    """A dot goes round in the image, and the joints are where it is."""
    phase = np.concatenate([np.arange(STEPS) * 0.2 + start for start in (0.0, 2.0, 4.0)])
    joints = np.stack([np.cos(phase), np.sin(phase), phase * 0], 1).astype(np.float32)
    frames = np.zeros((len(phase), 40, 48, 3), np.uint8)
    for image, (x, y, _) in zip(frames, joints, strict=True):
        right, down = round(24 + 16 * x), round(20 + 14 * y)
        image[down - 3 : down + 4, right - 3 : right + 4] = 255
    return Aligned(
        names=NAMES,
        rate_hz=40.0,
        starts=np.arange(EPISODES + 1) * STEPS,
        episodes=tuple("abc"),
        licences=("Apache-2.0",),
        texts=("", "follow the dot"),
        folder=folder,
        arrays={
            "frames": frames,
            "wrist": frames[:, ::-1].copy(),
            "joints": joints,
            "commands": joints,
            "text": np.ones(len(phase), np.int64),
            "phase": np.tile(np.linspace(0, 1, STEPS, dtype=np.float32), EPISODES),
        },
    )


def make_task(monkeypatch, folder, **changes):
    monkeypatch.setattr(policy_module, "align", lambda *_, **__: recorded(folder))
    config = PolicyTrainConfig(
        steps=40,
        batch_size=16,
        joint_names=NAMES,
        cameras=CameraConfig(names=("image", "wrist_image"), size=(40, 48), channels=4, features=16, dropout=0.0),
        rate_hz=40.0,
        chunk_steps=8,
        joint_history=1,
        token_history=(),
        relative=False,
        balanced=True,
        does_without=("joints", "wrist_image"),
        validation=0.3,
        transformer=TransformerConfig(width=16, heads=2, layers=1, feedforward=32, dropout=0.0),
        dropout=DropoutConfig(history=0.0),
        **changes,
    )
    torch.manual_seed(0)
    task = PolicyTask(config, folder)
    task.prepare(["somewhere"], seed=0)
    return task


def batch_of(task, numbers):
    return torch.utils.data.default_collate([task.train_set[i] for i in numbers])


@pytest.mark.parametrize("kind", ["none", "latent", "self_prediction", "bisimulation"])
def test_every_objective_trains_with_the_actions(monkeypatch, tmp_path, kind):
    objective = ObjectiveConfig(kind=kind, later=(2, 4), end_weight=0.5)
    task = make_task(monkeypatch, tmp_path, objective=objective)
    optimiser = torch.optim.Adam(task.trainable(), 3e-3)
    logs = []
    for step in range(40):
        generator = np.random.default_rng(step)
        losses = task.loss(batch_of(task, generator.integers(0, len(task.train_set), 16)), step)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        task.after_step(step)
        logs.append({name: value.item() for name, value in losses.items()})
    first, last = ({k: np.mean([log[k] for log in part]) for k in logs[0]} for part in (logs[:5], logs[-5:]))
    wanted = {"action", "loss", "end"} | ({kind} if kind != "none" else set())
    assert set(last) == wanted
    assert last["action"] < 0.8 * first["action"] and last["end"] < first["end"]
    total = last["action"] + 0.5 * last["end"] + (last[kind] if kind != "none" else 0.0)
    assert last["loss"] == pytest.approx(total, rel=1e-3)
    assert not [name for name in task._head.state_dict() if "target" in name or "transition" in name]


@pytest.mark.parametrize("kind", ["self_prediction", "bisimulation"])
def test_what_is_seen_later_counts(monkeypatch, tmp_path, kind):
    task = make_task(monkeypatch, tmp_path, objective=ObjectiveConfig(kind=kind, later=(2, 4)))
    task.modules.eval()
    batch = batch_of(task, range(10))
    assert batch["frames_later"].shape[1] == (2 if kind == "self_prediction" else 1)
    other = batch | {"frames_later": batch["frames_later"].flip(0), "wrist_later": batch["wrist_later"].flip(0)}
    torch.manual_seed(0)
    first = task.loss(batch, 0)[kind]
    torch.manual_seed(0)
    assert task.loss(other, 0)[kind].item() != pytest.approx(first.item(), rel=1e-6)


def test_the_horizon_of_the_latent_objective_is_as_asked(monkeypatch, tmp_path):
    task = make_task(monkeypatch, tmp_path, objective=ObjectiveConfig(kind="latent", horizon_steps=3))
    assert task._objective.steps == 3
    batch = batch_of(task, range(6))
    changed = batch["joints_future"].clone()
    changed[:, 3:] += 5.0
    task.modules.eval()
    same = task.loss(batch | {"joints_future": changed}, 0)["latent"]
    assert same.item() == pytest.approx(task.loss(batch, 0)["latent"].item())


def test_a_camera_is_hidden_but_never_all_of_them(monkeypatch, tmp_path):
    task = make_task(monkeypatch, tmp_path)
    batch = batch_of(task, range(40))
    torch.manual_seed(0)
    hidden = disturbed(batch, DropoutConfig(camera=0.6), ("image", "wrist_image"))["hide_cameras"]
    assert hidden.any() and not hidden.all(1).any() and not hidden.all(0).any()
    seen = observation(batch | {"hide_cameras": hidden}, task.model, task.words)
    assert torch.equal(seen.images_pad, hidden)


def test_images_are_moved_and_recoloured_within_what_is_asked(monkeypatch, tmp_path):
    task = make_task(monkeypatch, tmp_path)
    batch = batch_of(task, range(12))
    torch.manual_seed(0)
    moved = disturbed(batch, DropoutConfig(shift_px=2), ("image",))["frames"]
    where = (batch["frames"].float().mean(-1) > 127).nonzero().float()
    found = (moved.float().mean(-1) > 127).nonzero().float()
    far = [(found[found[:, 0] == i].mean(0) - where[where[:, 0] == i].mean(0))[1:].abs().max() for i in range(12)]
    assert 0 < max(far) <= 2.01
    coloured = disturbed(batch, DropoutConfig(colour=0.3), ("image",))["frames"]
    assert coloured.dtype == torch.float32 and 0 < (coloured - batch["frames"]).abs().max() < 0.61 * 127.5


def test_the_probe_finds_more_in_an_encoder_that_sees(monkeypatch, tmp_path):
    task = make_task(monkeypatch, tmp_path, objective=ObjectiveConfig(kind="none"))
    head, windows = task._head.eval(), task.train_set
    truth = torch.stack([windows[i]["joints_future"] for i in range(len(windows))])
    mean, std = truth.flatten(0, 1).mean(0), truth.flatten(0, 1).std(0) + 1.0
    seeing = (_probe(head, windows, windows, mean, std, 0) - truth).square().mean()
    with torch.no_grad():
        for parameter in head.context.parameters():
            parameter.zero_()
    assert seeing < 0.1 * (_probe(head, windows, windows, mean, std, 0) - truth).square().mean()
