"""The policy node with planning by imagination: what it chooses is executed, and its diagnostics say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from workbench import joints, tokens

from wm_ros.bundle import BundleConfig, TrainingRecord, save_bundle
from wm_ros.kinematics import G1_JOINTS
from wm_ros.nodes.policy import Policy
from wm_ros.policy.config import PolicyModelConfig, TransformerConfig
from wm_ros.policy.head import PolicyHead


def bundle(path: Path, names: tuple[str, ...] = G1_JOINTS) -> str:
    """A policy that has learned nothing: it draws chunks around where the joints are."""
    torch.manual_seed(0)
    sizes = TransformerConfig(width=16, heads=2, layers=1, feedforward=32)
    config = PolicyModelConfig(joint_names=names, decoder="flow", transformer=sizes)
    record = TrainingRecord(command="none", data=[], data_licence="Apache-2.0", seed=0, steps=0)
    tensors = {f"model.{name}": value for name, value in PolicyHead(config).state_dict().items()}
    said = BundleConfig[PolicyModelConfig](capability="policy", name="tiny", model=config, training=record)
    save_bundle(path, said, tensors, "# tiny\n")
    return str(path)


@pytest.mark.parametrize("execution", ["off", "queue"])
def test_what_was_chosen_is_published_and_counted(bench, tmp_path, execution):
    bench.listen("action_chunk", "/diagnostics")
    node = bench.active(
        Policy, bundle=bundle(tmp_path / "tiny"), imagine=4, execution=execution, max_age_s=0.0, input_timeout_s=5.0
    )
    bench.connect(node, "state/tokens", "joint_states")
    for seed in range(8):
        now = bench.now_ns()
        bench.publish(joints(now), tokens(now, seed))
        bench.until(lambda seed=seed: len(bench.heard["action_chunk"]) > seed, "a chunk")
    bench.until(lambda: counted(bench) >= 8, "diagnostics")
    status = bench.status("policy: imagination")
    assert status.message == "chosen by imagination" and float(status.values["took_ms"]) > 0
    assert int(status.values["unjudged"]) == 0 and {f"chosen_{index}" for index in range(4)} < set(status.values)
    assert int(status.values["chosen_0"]) < 8, "not always the first"


def counted(bench) -> int:
    values = bench.status("policy: imagination").values
    return sum(int(count) for name, count in values.items() if name.startswith("chosen_"))


def test_it_is_off_by_default(bench, tmp_path):
    bench.listen("/diagnostics")
    node = bench.active(Policy, bundle=bundle(tmp_path / "tiny"))
    assert node.capability.imagination is None
    bench.until(lambda: bench.status("policy: sensors").name, "diagnostics")
    assert not bench.status("policy: imagination").name


@pytest.mark.parametrize(
    ("parameters", "names", "why"),
    [
        ({"imagine": 1}, G1_JOINTS, "imagine = 1"),
        ({"imagine": 4, "imagine_goal": "up"}, G1_JOINTS, "imagine_goal = 'up'"),
        ({"imagine": 4}, ("ee_x", "ee_y", "ee_z"), "make no arm that is known"),
        ({"imagine": 4, "imagine_future": "nowhere"}, G1_JOINTS, "nowhere"),
    ],
)
def test_what_cannot_be_imagined_is_refused_when_configured(bench, tmp_path, parameters, names, why):
    node = bench.node(Policy, bundle=bundle(tmp_path / "tiny", names), **parameters)
    assert node.trigger_configure().name != "SUCCESS"
    assert why in node.problem
