"""The policy's training task, up to the first loss: what is masked, what is dropped, what the bundle holds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from policy_parts import NAMES, joints, tokens

from wm_ros.bundle import load_bundle
from wm_ros.evaluation.policy import PolicyScorer
from wm_ros.policy import Policy
from wm_ros.policy.config import PastConfig, PolicyModelConfig, TransformerConfig
from wm_ros.training import policy as policy_module
from wm_ros.training.policy import PolicyTask, horizon_steps
from wm_ros.training.policy_batches import disturbed, observation
from wm_ros.training.policy_config import DropoutConfig, PolicyTrainConfig
from wm_ros.training.task import RunInfo
from wm_ros.training.windows import Aligned

STEPS, EPISODES = 40, 4


def recorded(folder: Path) -> Aligned:
    """Episodes of smooth random motion, commands one step ahead of the joints, none at the first step."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (EPISODES, 1, 3)) + np.arange(STEPS)[:, None] * 0.2
    measured = np.sin(phase).astype(np.float32)
    commands = np.sin(phase + 0.2).astype(np.float32)
    commands[:, 0] = np.nan
    count = EPISODES * STEPS
    return Aligned(
        names=NAMES,
        rate_hz=15.0,
        starts=np.arange(EPISODES + 1) * STEPS,
        episodes=tuple("abcd"),
        licences=("Apache-2.0",),
        texts=("", "lift the cup"),
        folder=folder,
        arrays={
            "joints": measured.reshape(count, 3),
            "commands": commands.reshape(count, 3),
            "tokens": rng.normal(size=(count, 2, 8)).astype(np.float32),
            "text": np.ones(count, np.int64),
            "phase": np.tile(np.linspace(0, 1, STEPS, dtype=np.float32), EPISODES),
        },
    )


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PolicyTask:
    """A prepared task on made-up recordings."""
    monkeypatch.setattr(policy_module, "align", lambda *_, **__: recorded(tmp_path))
    monkeypatch.setattr(policy_module, "state_tokens", lambda aligned, *_: (aligned, "abc"))
    config = PolicyTrainConfig(
        steps=10,
        batch_size=8,
        joint_names=NAMES,
        token_history=(0, 2),
        state_every=2,
        joint_history=4,
        past=PastConfig(commands=3, members=2, width=64, dropout=0.0),
        validation=0.25,
        dropout=DropoutConfig(state=0.0, history=0.0, commands=0.0),
        transformer=TransformerConfig(width=16, heads=2, layers=1, feedforward=32, dropout=0.0),
    )
    torch.manual_seed(0)
    made = PolicyTask(config, tmp_path)
    made.prepare(["/home/me/recordings"], seed=0)
    made.modules.eval()
    return made


def batch_of(task: PolicyTask, items: list[int]) -> dict[str, torch.Tensor]:
    return torch.utils.data.default_collate([task.train_set[i] for i in items])


def test_padded_steps_count_for_neither_loss(task: PolicyTask) -> None:
    ends = batch_of(task, list(range(30, 39)))  # all reach beyond the end of the episode
    padded = ends["pad_future"]
    assert padded.any()
    other = dict(ends)
    for name in ("commands_future", "joints_future"):
        other[name] = torch.where(padded[..., None], 77.0, ends[name])
    first, second = task.loss(ends, 0), task.loss(other, 0)
    assert {name: float(v.detach()) for name, v in first.items()} == pytest.approx(
        {name: float(v.detach()) for name, v in second.items()}, rel=1e-5
    )


def test_unpadded_steps_count(task: PolicyTask) -> None:
    batch = batch_of(task, [3, 4, 5])
    other = batch | {"commands_future": batch["commands_future"] + 0.5}
    assert float(task.loss(other, 0)["action"].detach()) > float(task.loss(batch, 0)["action"].detach()) + 0.1


def test_both_losses_are_weighed_as_asked(task: PolicyTask) -> None:
    batch = batch_of(task, [3, 4, 5])
    both = task.loss(batch, 0)
    assert both["loss"].item() == pytest.approx(both["action"].item() + both["latent"].item())
    del task.modules["objective"]
    alone = task.loss(batch, 0)
    assert set(alone) == {"loss", "action"} and alone["loss"].item() == pytest.approx(both["action"].item())


def test_the_target_encoder_is_not_trained_by_gradient(task: PolicyTask) -> None:
    trained = {id(p) for p in task.trainable()}
    assert trained and not trained & {id(p) for p in task._objective.target.parameters()}


def test_training_starts_from_what_the_past_says(task: PolicyTask) -> None:
    with torch.no_grad():
        log = task.validate([batch_of(task, list(range(5, 35)))])
    assert log["action_mae@0.5s"] <= log["hold_mae@0.5s"]
    assert log["heard_mae@0.5s"] < 0.95 * log["hold_mae@0.5s"]  # commands are a step ahead of joints
    assert log["latent_std"] > 0.01


def test_hidden_and_missing_commands_are_not_heard(task: PolicyTask) -> None:
    batch = batch_of(task, [0, 1, 10])  # the first command of an episode comes with its second step
    seen = observation(batch, task.model, task.words)
    assert seen.heard.tolist() == [False, True, True]
    assert seen.commands_pad.tolist() == [[True] * 3, [True, True, False], [False] * 3]
    assert not observation(
        batch | {"hide_commands": torch.ones(3, 1, dtype=torch.bool)}, task.model, task.words
    ).heard.any()


def test_the_export_heeds_what_held_out_windows_gain_by(task: PolicyTask, tmp_path: Path) -> None:
    with torch.no_grad():
        task._head.action.bias += 50.0  # what only harms
    task.export(tmp_path / "bundle", RunInfo("wm train policy", ["recordings"], ["Apache-2.0"], 0, 10, {}))
    config, tensors = load_bundle(tmp_path / "bundle", "policy", PolicyModelConfig)
    assert not tensors["model.past.heed"].any()
    found = config.metrics["validation"]
    assert found["heed_0"] == 0.0 and found["heeded_0"] == found["unheeded_0"]
    assert found["action_mae@0.5s"] < 5.0  # the log is of what is exported; heeded, the error would be above 20


def test_sensor_dropout_hides_what_it_says(task: PolicyTask) -> None:
    everything = DropoutConfig(state=1.0, bev=1.0, history=1.0, joints=1.0, commands=1.0)
    batch = batch_of(task, list(range(5, 35)))
    torch.manual_seed(1)
    dropped = disturbed(batch, everything, ())
    assert all(dropped[f"hide_{name}"].all() for name in ("state", "bev", "joints", "commands"))
    assert dropped["pad"].any() and not dropped["pad"][:, -1].any()
    assert not batch["pad"].any()


def test_steps_without_an_encoded_image_are_trained_as_unseen(task: PolicyTask) -> None:
    batch = batch_of(task, [10, 11])
    plain = observation(batch, task.model, task.words)
    assert not plain.state_pad.any()
    tokens = batch["tokens"].clone()
    tokens[1, -1] = torch.nan
    seen = observation(batch | {"tokens": tokens}, task.model, task.words)
    assert seen.state_pad.tolist() == [[False, False], [False, True]] and seen.state.isfinite().all()


def test_the_bundle_acts_and_holds_nothing_that_is_only_trained_with(task: PolicyTask, tmp_path: Path) -> None:
    with torch.no_grad():
        log = task.validate([batch_of(task, [3, 4, 5])])
    command = "wm train policy --data 'recordings'"
    task.export(tmp_path / "bundle", RunInfo(command, ["recordings"], ["Apache-2.0"], 0, 10, log))
    config, tensors = load_bundle(tmp_path / "bundle", "policy", PolicyModelConfig)
    assert config.model.state_tokens_sha256 == "abc" and config.model.joint_names == NAMES
    assert not [name for name in tensors if "target" in name or "predictor" in name or "latent" in name]
    assert {name for name in tensors if name.startswith("baseline.")} == {
        "baseline.ridge.0",
        "baseline.ridge.0_commands",
        "baseline.phase_measured",
        "baseline.phase_commanded",
    }
    for file in ("CARD.md", "config.json"):
        assert "/home/me" not in (tmp_path / "bundle" / file).read_text()
    policy = Policy.from_bundle(tmp_path / "bundle")
    policy.step(joints(0))
    assert policy.step(tokens(0)) is not None
    PolicyScorer(tmp_path / "bundle")


def test_the_same_seed_prepares_the_same_model(task: PolicyTask, tmp_path: Path) -> None:
    again = PolicyTask(task.config, tmp_path)
    torch.manual_seed(0)
    again.prepare(["/home/me/recordings"], seed=0)
    first, second = task.modules.state_dict(), again.modules.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("horizon", "steps"), [(0.2, 3), (0.5, 7), (1.0, 15)])
def test_horizons_are_whole_steps(horizon: float, steps: int) -> None:
    assert horizon_steps(horizon, 15.0) == steps
