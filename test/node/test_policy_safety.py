"""The policy's last word is the safe command: once on silence, last on deactivation, never where it has not spoken."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from workbench import joints, tokens

from wm_ros.nodes.policy import Policy
from wm_ros.policy.config import PastConfig, PolicyModelConfig
from wm_ros.types import ActionChunk, JointCommand

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from policy_parts import write_bundle


def chunks(bench):
    return bench.decoded("action_chunk", ActionChunk)


def is_hold(chunk, value):
    return len(chunk.offsets_s) == 1 and np.allclose(chunk.position_rad, value)


@pytest.fixture
def policy(bench):
    bench.listen("action_chunk", "/diagnostics")
    node = bench.active(Policy)
    bench.connect(node, "state/tokens", "joint_states")
    return node


def speak(bench, count=3, value=0.1):
    for number in range(count):
        heard = len(bench.heard["action_chunk"])
        now = bench.now_ns()
        bench.publish(joints(now, value), tokens(now, number))
        bench.until(lambda h=heard: len(bench.heard["action_chunk"]) > h, "a chunk")


def test_silence_holds_the_measured_joints_once_and_then_says_nothing(bench, policy):
    speak(bench, value=0.2)
    began = time.monotonic()
    bench.until(lambda: len(chunks(bench)[-1].offsets_s) == 1, "the safe command")
    assert 0.4 < time.monotonic() - began < 0.5 + 2 * 0.1 + 0.2, "at the timeout, one check later at most"
    assert is_hold(chunks(bench)[-1], 0.2)
    said = len(bench.heard["action_chunk"])
    bench.spin(1.2)
    assert len(bench.heard["action_chunk"]) == said
    speak(bench, 2)
    assert len(chunks(bench)[-1].offsets_s) > 1, "it speaks again when its inputs do"


def test_joints_that_fall_silent_stop_it_though_tokens_still_come(bench, policy):
    speak(bench, value=0.3)
    for number in range(16):
        bench.publish(tokens(bench.now_ns(), number))
        bench.spin(0.067)
    assert is_hold(chunks(bench)[-1], 0.3)
    assert sum(len(chunk.offsets_s) == 1 for chunk in chunks(bench)) == 1


def test_commands_are_heard_are_not_taken_for_joints_and_need_not_come(bench, tmp_path):
    """`policy_parts.write_bundle` of a policy that hears commands; they come for a while, then never again."""
    names = joints(0).names
    config = PolicyModelConfig(
        joint_names=names, joint_history=2, token_history=(0,), past=PastConfig(commands=2, members=2, width=8)
    )
    bench.listen("action_chunk", "/diagnostics")
    node = bench.active(Policy, bundle=str(write_bundle(tmp_path / "bundle", config)))
    node.capability.head.past.heed.zero_()  # paths that were not fitted stay at the last command
    bench.connect(node, "state/tokens", "joint_states", "joint_commands")
    for number in range(3):
        now = bench.now_ns()
        bench.publish(joints(now, 0.1), JointCommand(now, "", names, np.full(len(names), 0.7)))
        bench.spin(0.1)  # they have come when the tokens do
        bench.publish(tokens(bench.now_ns(), number))
        bench.until(lambda n=number: len(bench.heard["action_chunk"]) > n, "a chunk")
    assert np.allclose(chunks(bench)[-1].position_rad, 0.7, atol=1e-3)
    for number in range(20):
        heard = len(bench.heard["action_chunk"])
        bench.publish(joints(bench.now_ns(), 0.1), tokens(bench.now_ns(), number))
        bench.until(lambda h=heard: len(bench.heard["action_chunk"]) > h, "a chunk")
        bench.spin(0.05)
    assert len(chunks(bench)[-1].offsets_s) > 1 and np.allclose(chunks(bench)[-1].position_rad, 0.1, atol=1e-3)
    assert bench.status("policy: inputs").message == "all inputs arrive"


def test_the_safe_command_is_the_last_message_of_a_deactivated_node(bench, policy):
    speak(bench, value=0.4)
    assert policy.trigger_deactivate().name == "SUCCESS"
    for number in range(5):
        now = bench.now_ns()
        bench.publish(joints(now, 0.9), tokens(now, number))
        bench.spin(0.05)
    assert is_hold(chunks(bench)[-1], 0.4)


def test_shutdown_from_active_also_ends_with_the_safe_command(bench, policy):
    speak(bench, value=0.5)
    policy.finish()
    bench.spin(0.3)
    assert policy.finished
    assert is_hold(chunks(bench)[-1], 0.5)


def test_a_policy_that_has_not_spoken_never_fires(bench, policy):
    bench.publish(joints(bench.now_ns()))
    bench.spin(1.0)
    policy.trigger_deactivate()
    bench.spin(0.3)
    assert bench.heard["action_chunk"] == []


def test_a_clock_that_jumps_back_disarms_without_a_word(bench, policy):
    speak(bench)
    said = len(bench.heard["action_chunk"])
    policy._clock_jumped(None)
    bench.spin(1.0)
    policy.trigger_deactivate()
    bench.spin(0.2)
    assert len(bench.heard["action_chunk"]) == said


def poisoned(prediction):
    """The same prediction with one command that is not a number."""
    if prediction is None:
        return None
    positions = prediction.chunk.position_rad.copy()
    positions[-1, 0] = np.nan
    return dataclasses.replace(prediction, chunk=dataclasses.replace(prediction.chunk, position_rad=positions))


def failing(prediction):
    if prediction is not None:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("fault", [poisoned, failing])
def test_a_fault_of_the_model_is_not_published_but_answered_by_the_safe_command(bench, policy, fault):
    speak(bench, value=0.6)
    step = policy.capability.step
    policy.capability.step = lambda sample: fault(step(sample))
    now = bench.now_ns()
    bench.publish(joints(now, 0.6), tokens(now))
    bench.until(lambda: is_hold(chunks(bench)[-1], 0.6), "the safe command")
    bench.until(lambda: bench.status("policy: refused").values, "the fault is counted")
    policy.capability.step = step
    speak(bench, 1)
    assert len(chunks(bench)[-1].offsets_s) > 1, "the node lives and speaks again"
    assert all(np.isfinite(chunk.position_rad).all() for chunk in chunks(bench))
