"""Checkpoints in LeRobot's layout: written, read back, refused where they cannot be right."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_parts import CONFIG, joints, make_head, tokens
from policy_parts import make_policy as make_capability
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from wm_ros.capability import load
from wm_ros.cli import app
from wm_ros.errors import BundleError, UserError
from wm_ros.paths import bundle_path
from wm_ros.policy.checkpoint import load_checkpoint, make_processors, policy_of_bundle, save_checkpoint
from wm_ros.policy.lerobot import LeRobotPolicy
from wm_ros.policy.lerobot_config import LeRobotConfig
from wm_ros.policy.normalise import statistics
from wm_ros.types import PolicyPrediction

STATS = {
    "observation.state": statistics(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * 2),
    "action": statistics(torch.randn(100, 3, generator=torch.Generator().manual_seed(1)) + 1),
}
MODES = {"STATE": "MEAN_STD", "ACTION": "QUANTILES", "VISUAL": "IDENTITY"}


def make_policy() -> LeRobotPolicy:
    return LeRobotPolicy(LeRobotConfig.of(CONFIG, normalization_mapping=MODES), make_head())  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "checkpoint", make_policy(), STATS)
    return tmp_path / "checkpoint"


def test_it_is_laid_out_as_lerobot_does(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "policy_preprocessor.json",
        "policy_preprocessor_step_2_normalizer_processor.safetensors",
        "policy_postprocessor.json",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["type"] == "wm_act_jepa" and config["input_features"]["observation.state"] == {
        "type": "STATE",
        "shape": [3],
    }
    step = json.loads((folder / "policy_preprocessor.json").read_text())["steps"][2]
    assert step["registry_name"] == "normalizer_processor" and step["config"]["norm_map"] == MODES
    stats = load_file(folder / step["state_file"])
    assert "observation.state.mean" in stats and "action.q99" in stats


def test_what_is_read_back_acts_as_what_was_written(folder: Path) -> None:
    policy, before, after = load_checkpoint(folder)
    own = make_policy()
    batch = {"observation.state": torch.randn(2, 4, 3), "task": "lift the cup"}
    torch.testing.assert_close(policy.predict_action_chunk(batch), own.predict_action_chunk(batch), atol=0, rtol=0)
    seen, given = make_processors(own.config, STATS)
    torch.testing.assert_close(before.before(batch)["observation.state"], seen.before(batch)["observation.state"])
    action = torch.randn(2, 3)
    torch.testing.assert_close(after.after(action), given.after(action))
    assert not torch.allclose(after.after(action), action)


def test_the_shipped_bundle_becomes_a_checkpoint_and_comes_back(tmp_path: Path) -> None:
    policy = policy_of_bundle(bundle_path("policy-lite"), camera="head", n_action_steps=5)
    save_checkpoint(tmp_path, policy)
    found, _, after = load_checkpoint(tmp_path)
    assert found.config == policy.config and found.config.n_action_steps == 5
    batch = {"observation.state": torch.randn(1, 11, 26) * 0.1}
    torch.testing.assert_close(found.predict_action_chunk(batch), policy.predict_action_chunk(batch), atol=0, rtol=0)
    action = torch.randn(1, 26)
    assert after.after(action) is action, "the head of a bundle takes and gives radians"


def test_a_checkpoint_runs_where_a_bundle_does(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "own", LeRobotPolicy(LeRobotConfig.of(CONFIG), make_head()))
    capability, same = load("policy", tmp_path / "own"), make_capability()
    for sample in (joints(0), tokens(0)):
        chunk, expected = capability.step(sample), same.step(sample)
    assert isinstance(chunk, PolicyPrediction) and isinstance(expected, PolicyPrediction)
    np.testing.assert_array_equal(chunk.chunk.position_rad, expected.chunk.position_rad)
    save_checkpoint(tmp_path / "other", make_policy(), STATS)
    with pytest.raises(BundleError, match="STATE is MEAN_STD, but the node's head takes and gives radians"):
        load("policy", tmp_path / "other")
    (tmp_path / "act").mkdir()
    (tmp_path / "act" / "config.json").write_text('{"type": "act"}')
    with pytest.raises(BundleError, match="type 'act' cannot be read"):
        load("policy", tmp_path / "act")


@pytest.mark.parametrize("kind", ["act", "diffusion", "pi0", None])
def test_architectures_of_others_are_refused_and_named(folder: Path, kind: str | None) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"type": kind}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError) as refused:
        load_checkpoint(folder)
    assert (
        repr(kind) in str(refused.value) and "lerobot package" in str(refused.value) and "\n" not in str(refused.value)
    )


def edit(file: Path, change: dict) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda f: edit(f / "config.json", {"colour": 1}), "config.json: colour"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "model.safetensors is damaged"),
        (
            lambda f: save_file({"head.queries": torch.zeros(1)}, f / "model.safetensors"),
            "head.action.bias has shape None",
        ),
        (lambda f: edit(f / "policy_preprocessor.json", {"steps": [{"registry_name": "tokenizer"}]}), "'tokenizer'"),
        (lambda f: (f / "policy_postprocessor_step_0_unnormalizer_processor.safetensors").unlink(), "is missing"),
    ],
)
def test_what_is_damaged_is_refused_with_one_line(folder: Path, damage, words: str) -> None:
    damage(folder)
    with pytest.raises(BundleError) as refused:
        load_checkpoint(folder)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_pickle_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(BundleError, match="may hold a pickle"):
        load_checkpoint(folder)


def test_a_state_file_is_looked_for_in_the_folder_only(folder: Path, tmp_path: Path) -> None:
    save_file({"action.q01": torch.zeros(3)}, tmp_path / "outside.safetensors")
    file = folder / "policy_postprocessor.json"
    steps = json.loads(file.read_text())["steps"]
    steps[0]["state_file"] = "../outside.safetensors"
    edit(file, {"steps": steps})
    with pytest.raises(BundleError, match="is missing"):
        load_checkpoint(folder)


def test_statistics_that_a_mode_needs_are_asked_for_before_anything_is_read_back(tmp_path: Path) -> None:
    lacking = {"action": {"mean": torch.zeros(3), "std": torch.ones(3)}}
    with pytest.raises(UserError, match="'action': QUANTILES needs q01"):
        save_checkpoint(tmp_path / "checkpoint", make_policy(), lacking)


def test_the_command_writes_a_bundle_as_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = CliRunner().invoke(app, ["checkpoint", "policy-lite", "--out", str(out), "--camera", "head"])
    assert said.exit_code == 0, said.output
    policy, _, _ = load_checkpoint(out)
    assert policy.cameras == ("observation.images.head",)
    assert isinstance(CliRunner().invoke(app, ["checkpoint", "policy-lite", "--out", str(out)]).exception, UserError)


def test_two_cameras_are_refused() -> None:
    config = LeRobotConfig.of(CONFIG)
    second = config.input_features | {"observation.images.wrist": config.input_features["observation.images.camera"]}
    with pytest.raises(UserError, match="2 camera\\(s\\), but this head sees 1"):
        LeRobotPolicy(config.model_copy(update={"input_features": second}), make_head())
