"""`policy` as a capability: joints by name, refusals, history, clock jumps, bundle round trip, determinism."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_parts import CONFIG, NAMES, START, at, instruction, joints, make_policy, tokens, write_bundle

from wm_ros.capability import load
from wm_ros.errors import BundleError
from wm_ros.policy import Policy
from wm_ros.policy.config import PastConfig
from wm_ros.types import BevTokens, JointCommand, Joints, PolicyPrediction, Sample, StateTokens


def run(policy: Policy, samples: list[Sample]) -> np.ndarray | None:
    """Positions of the last chunk, None where it was withheld."""
    prediction = None
    for sample in samples:
        prediction = policy.step(sample)
    return None if prediction is None else prediction.chunk.position_rad


def story(steps: int = 6) -> list[Sample]:
    samples: list[Sample] = [instruction("lift the cup")]
    for step in range(steps):
        samples += [joints(step, (0.1 * step, 0.2, -0.1 * step)), tokens(step, step)]
    return samples


def test_a_chunk_has_stamp_names_offsets_and_absolute_positions() -> None:
    policy = make_policy()
    for sample in story()[:-1]:
        policy.step(sample)
    prediction = policy.step(story()[-1])
    assert isinstance(prediction, PolicyPrediction) and prediction.stamp_ns == prediction.chunk.stamp_ns == at(5)
    chunk = prediction.chunk
    assert chunk.names == NAMES and chunk.position_rad.shape == (15, 3) and chunk.position_rad.dtype == np.float32
    assert chunk.offsets_s == pytest.approx(np.arange(1, 16) / 15)
    assert set(policy.timings_ms) == {"history", "inference"} and policy.withheld == ""


def test_only_state_tokens_trigger() -> None:
    policy = make_policy()
    for sample in [joints(0), instruction("go"), BevTokens(START, "lidar", np.zeros((3, 5), np.float32))]:
        assert policy.step(sample) is None


def test_joints_in_any_order_with_extras_give_the_same_chunk() -> None:
    straight = run(make_policy(), story())
    shuffled: list[Sample] = []
    for sample in story():
        if isinstance(sample, Joints):
            a, b, c = sample.position_rad
            sample = replace(
                sample, names=("wrist", "head", "shoulder", "elbow"), position_rad=np.asarray([c, 9, a, b])
            )
        shuffled.append(sample)
    assert straight is not None
    np.testing.assert_array_equal(run(make_policy(), shuffled), straight)


def test_missing_joints_are_named() -> None:
    policy = make_policy()
    assert run(policy, [joints(0, (0.1, 0.2), ("shoulder", "head")), tokens(0)]) is None
    assert "elbow" in policy.withheld and "wrist" in policy.withheld and "shoulder" not in policy.withheld
    assert run(policy, [joints(1), tokens(1)]) is not None
    assert policy.withheld == ""


def test_without_joints_nothing_is_asked_for() -> None:
    policy = make_policy()
    assert run(policy, [tokens(0)]) is None
    assert "no joints" in policy.withheld


@pytest.mark.parametrize(("late_s", "given"), [(0.0, True), (0.4, True), (0.6, False), (30.0, False)])
def test_stale_joints_are_refused(late_s: float, given: bool) -> None:
    policy = make_policy()
    image = replace(tokens(0), stamp_ns=START + round(late_s * 1e9))
    assert (run(policy, [joints(0), image]) is not None) == given
    assert (policy.withheld == "") == given


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_and_never_published(bad: float) -> None:
    policy = make_policy()
    assert run(policy, [joints(0, (0.1, bad, 0.3)), tokens(0)]) is None
    assert "elbow" in policy.withheld
    assert run(policy, [joints(0), replace(tokens(0), tokens=np.full((2, 8), bad, np.float32))]) is None
    assert "finite" in policy.withheld
    assert run(policy, [joints(0), tokens(0)]) is not None


def test_too_few_positions_are_refused() -> None:
    policy = make_policy()
    assert run(policy, [replace(joints(0), position_rad=np.zeros(2)), tokens(0)]) is None
    assert "3 joint names but 2 positions" in policy.withheld


def test_tokens_of_another_shape_are_refused() -> None:
    policy = make_policy()
    assert run(policy, [joints(0), StateTokens(at(0), "", np.zeros((2, 16), np.float32))]) is None
    assert "(2, 16)" in policy.withheld and "(2, 8)" in policy.withheld


def test_commands_are_not_measurements() -> None:
    policy = make_policy()
    command = JointCommand(at(0), "", NAMES, np.zeros(3))
    assert run(policy, [command, tokens(0)]) is None
    assert "no joints" in policy.withheld


def commands(step: float, value: float = 0.4, names: tuple[str, ...] = NAMES) -> JointCommand:
    return JointCommand(at(step), "", names, np.full(len(names), value))


def hearing() -> Policy:
    """A policy that hears three commands, and whose paths say something."""
    policy = make_policy(CONFIG.model_copy(update={"past": PastConfig(commands=3, members=2, width=8)}))
    assert policy.head.past is not None
    for path in (*policy.head.past.deaf, *policy.head.past.hearing):
        for network in path.networks:
            torch.nn.init.normal_(network[-1].weight, std=0.3)
    return policy


def test_commands_are_heard_while_they_are_fresh_and_whole_and_else_it_acts_without() -> None:
    assert JointCommand in hearing().inputs and JointCommand in hearing().does_without
    assert JointCommand not in make_policy().inputs
    scene, ask = story()[:-1], story()[-1]
    without = run(hearing(), [*scene, ask])
    heard = run(hearing(), [*scene, commands(4), commands(5), ask])
    assert without is not None and heard is not None and not np.allclose(heard, without)
    for unusable in (
        [commands(5 - 15 * 0.6)],
        [commands(5, names=NAMES[:2])],
        [commands(5, np.nan)],
        [replace(commands(5), position_rad=np.zeros(2))],
    ):
        np.testing.assert_allclose(run(hearing(), [*scene, *unusable, ask]), without, atol=1e-6)
    shuffled = replace(commands(5), names=("head", *NAMES[::-1]), position_rad=np.asarray([7.0, 0.4, 0.4, 0.4]))
    np.testing.assert_allclose(run(hearing(), [*scene, commands(4), shuffled, ask]), heard, atol=1e-6)


def test_commands_are_forgotten_with_the_rest() -> None:
    policy = hearing()
    run(policy, [*story(), commands(5)])
    policy.reset()
    np.testing.assert_allclose(run(policy, story()), run(hearing(), story()), atol=1e-6)


def test_instruction_and_bev_change_the_chunk_and_stale_bev_does_not() -> None:
    bev = BevTokens(at(5), "lidar", np.ones((3, 5), np.float32))
    plain = run(make_policy(), story())
    assert plain is not None
    with_bev = run(make_policy(), [*story()[:-1], bev, story()[-1]])
    assert with_bev is not None and not np.allclose(with_bev, plain)
    old = run(make_policy(), [*story()[:-1], replace(bev, stamp_ns=at(5) - 2_000_000_000), story()[-1]])
    np.testing.assert_array_equal(old, plain)
    told = run(make_policy(), [*story()[:-1], instruction("push the box"), story()[-1]])
    assert told is not None and not np.allclose(told, plain)


def test_history_is_read_at_the_rate_of_the_bundle_whatever_the_rate_of_the_joints() -> None:
    slow = [joints(k, (0.1 * k, 0, 0)) for k in range(6)]
    fast = [joints(k / 20, (0.1 * (k // 20), 0, 0)) for k in range(6 * 20)]
    image = tokens(5)
    np.testing.assert_array_equal(run(make_policy(), [*slow, image]), run(make_policy(), [*fast, image]))


def test_joints_newer_than_the_image_are_not_used() -> None:
    before = [joints(k) for k in range(6)]
    image = tokens(5)
    plain = run(make_policy(), [*before, image])
    np.testing.assert_array_equal(run(make_policy(), [*before, joints(6, (2, 2, 2)), image]), plain)


@pytest.mark.parametrize("kind", ["joints", "tokens"])
def test_a_clock_that_jumps_back_clears_history_but_not_the_instruction(kind: str) -> None:
    policy = make_policy()
    run(policy, story())
    policy.step(joints(-900) if kind == "joints" else tokens(-900))
    again = run(policy, [joints(-899), tokens(-899)])
    fresh = [instruction("lift the cup"), *([joints(-900)] if kind == "joints" else [tokens(-900)])]
    np.testing.assert_array_equal(again, run(make_policy(), [*fresh, joints(-899), tokens(-899)]))


def test_reset_forgets_everything() -> None:
    policy = make_policy()
    run(policy, story())
    policy.reset()
    np.testing.assert_array_equal(run(policy, [joints(0), tokens(0)]), run(make_policy(), [joints(0), tokens(0)]))


def test_warm_up_leaves_no_trace() -> None:
    policy = make_policy()
    policy.warm_up()
    np.testing.assert_array_equal(run(policy, story()), run(make_policy(), story()))


def test_memory_is_bounded() -> None:
    policy = make_policy()
    for step in range(200):
        policy.step(joints(step))
        policy.step(tokens(step))
    assert len(policy._senses.joints._stamps) < 60 and len(policy._senses.states._stamps) < 60


def test_bundle_round_trip_gives_the_same_chunk(tmp_path: Path) -> None:
    loaded = load("policy", write_bundle(tmp_path / "bundle"))
    assert isinstance(loaded, Policy)
    np.testing.assert_array_equal(run(loaded, story()), run(make_policy(), story()))


def test_a_bundle_whose_weights_do_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    text = (bundle / "config.json").read_text()
    (bundle / "config.json").write_text(text.replace('"chunk_steps": 15', '"chunk_steps": 20'))
    with pytest.raises(BundleError, match=r"action_mean"):
        Policy.from_bundle(bundle)


def test_equal_input_gives_equal_bytes() -> None:
    first, second = run(make_policy(), story()), run(make_policy(), story())
    assert first is not None and second is not None and first.tobytes() == second.tobytes()
    assert CONFIG.stale_s == 0.5
