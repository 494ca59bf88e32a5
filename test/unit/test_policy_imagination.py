"""Planning by imagination: the chunk that `future` finds most plausible, or that gets nearest to the goal, is taken."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from policy_parts import CONFIG, at, make_policy, tokens

from wm_ros.capability import load
from wm_ros.errors import RefusedError, UserError
from wm_ros.future import FutureCapability
from wm_ros.kinematics import G1_JOINTS, arm_for
from wm_ros.paths import MODELS
from wm_ros.policy import Policy
from wm_ros.policy.imagination import Imagination, ImaginationConfig, parse_goal
from wm_ros.types import FuturePrediction, HandTrajectory, Joints, MotionQuery, Prediction, Sample, StateTokens

OFFSETS_S = np.arange(1, 16) / 15
ROBOT = CONFIG.model_copy(update={"joint_names": G1_JOINTS})
RIGHT = arm_for(G1_JOINTS, "right")


class Judge:
    """Finds a motion the less plausible, the further its first joint ends from `likes`."""

    inputs: tuple[type[Sample], ...] = (StateTokens, Joints, HandTrajectory)
    looks = False
    state_tokens_sha256 = ""
    wanted: ClassVar[set[str]] = {"frames"}

    def __init__(self, likes: float = 0.0) -> None:
        self.likes, self.withheld, self.refuses = likes, "", ""
        self.asked: list[MotionQuery] = []
        self.heard: list[Sample] = []

    def step(self, sample: Sample) -> Prediction | None:
        self.heard.append(sample)
        if not isinstance(sample, StateTokens):
            return None
        return FuturePrediction(sample.stamp_ns, "", (), None, None, None, None, "")  # type: ignore[arg-type]

    def judge(self, queries: Sequence[MotionQuery]) -> np.ndarray:
        if self.refuses:
            raise RefusedError(self.refuses)
        self.asked = list(queries)
        return np.array([abs(query.position_rad[-1, 0] - self.likes) for query in queries])

    def reset(self) -> None:
        self.heard.clear()

    def warm_up(self) -> None: ...


def imagination(judge: Judge, **changes: object) -> Imagination:
    return Imagination(ImaginationConfig(**changes), G1_JOINTS, judge)  # type: ignore[arg-type]


def fan(ends: Sequence[float]) -> np.ndarray:
    """Chunks whose first joint goes straight to each of `ends`; the others stay at 0."""
    chunks = np.zeros((len(ends), 15, 26), np.float32)
    chunks[:, :, 0] = np.outer(ends, OFFSETS_S)
    return chunks


def test_the_most_plausible_chunk_is_taken_and_counted() -> None:
    judge = Judge(likes=0.3)
    chooses = imagination(judge, samples=4)
    chooses.observe(tokens(0))
    chunks = fan([0.0, 0.6, 0.25, -0.3])
    np.testing.assert_array_equal(chooses.choose(at(0), OFFSETS_S, chunks), chunks[2])
    assert chooses.record.chosen.tolist() == [0, 0, 1, 0] and chooses.record.unjudged == 0
    assert chooses.record.gain == pytest.approx(0.25) and chooses.record.took_ms > 0
    assert chooses.record.figures()["chosen_2"] == "1"
    assert all(query.names == G1_JOINTS for query in judge.asked)
    np.testing.assert_allclose(judge.asked[1].offsets_s, OFFSETS_S)


def test_offsets_count_from_what_future_said_last() -> None:
    judge = Judge()
    chooses = imagination(judge, samples=2)
    chooses.observe(tokens(0))
    chooses.choose(at(2), OFFSETS_S, fan([0.1, 0.2]))
    np.testing.assert_allclose(judge.asked[0].offsets_s, OFFSETS_S + 2 / 15, atol=1e-6)


@pytest.mark.parametrize("case", ["silent", "old", "refuses"])
def test_what_cannot_be_judged_leaves_the_first_chunk_and_says_why(case: str) -> None:
    judge = Judge(likes=0.6)
    chooses = imagination(judge, samples=2)
    if case != "silent":
        chooses.observe(tokens(0))
    judge.refuses = "no joints" if case == "refuses" else ""
    chunks = fan([0.0, 0.6])
    found = chooses.choose(at(30 if case == "old" else 0), OFFSETS_S, chunks)
    np.testing.assert_array_equal(found, chunks[0])
    assert chooses.record.unjudged == 1 and chooses.record.chosen.tolist() == [1, 0]
    assert {"silent": "nothing yet", "old": "2.00 s before", "refuses": "no joints"}[case] in chooses.record.why
    judge.refuses = ""
    chooses.observe(tokens(40))
    np.testing.assert_array_equal(chooses.choose(at(40), OFFSETS_S, chunks), chunks[1])
    assert chooses.record.why == ""


def test_a_goal_draws_the_hand_towards_it() -> None:
    assert RIGHT is not None
    columns = [G1_JOINTS.index(name) for name in RIGHT.joint_names]
    chunks = np.zeros((3, 15, 26), np.float32)
    for index, turn in enumerate((0.0, 0.5, -0.5)):
        chunks[index, :, columns[0]] = turn * OFFSETS_S
    goal = RIGHT.wrist(chunks[2, -1, columns])
    text = "right " + " ".join(f"{value:.4f}" for value in goal)
    for weight, best in ((0.0, 0), (100.0, 2)):
        chooses = imagination(Judge(), samples=3, goal=text, progress_weight=weight)
        chooses.observe(tokens(0))
        np.testing.assert_array_equal(chooses.choose(at(0), OFFSETS_S, chunks), chunks[best])
    away = np.linalg.norm(RIGHT.wrist(chunks[0, 0, columns]) - goal)
    assert chooses.record.gain == pytest.approx(100.0 * away, rel=1e-3)


def test_changes_of_one_chunk_are_smooth_begin_as_it_does_and_leave_the_fingers() -> None:
    chooses = imagination(Judge(), samples=64, spread_rad=0.2)
    chunk = np.random.default_rng(0).normal(size=(15, 26)).astype(np.float32)
    changes = chooses.changed(chunk) - chunk
    assert not changes[0].any()
    fingers = [i for i, name in enumerate(G1_JOINTS) if "Hand" in name]
    arms = [i for i in range(26) if i not in fingers]
    assert not changes[:, :, fingers].any()
    assert np.sqrt(np.square(changes[1:, -1, arms]).mean()) == pytest.approx(0.2, rel=0.1)
    assert np.abs(changes[1:, 0, arms]).mean() < 0.02, "hardly anything at the first step"
    assert np.abs(np.diff(changes, n=2, axis=1)).max() < 0.05


@pytest.mark.parametrize("text", ["right 1 2", "middle 1 2 3", "left a b c", "left 1 2 nan"])
def test_a_goal_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="side x y z"):
        parse_goal(text)


def test_joints_that_are_no_arm_are_refused() -> None:
    with pytest.raises(UserError, match=r"ee_x.*set imagine to 0"):
        Imagination(ImaginationConfig(), ("ee_x", "ee_y", "ee_z", "gripper"), Judge())
    with pytest.raises(UserError, match="moves only the right"):
        Imagination(ImaginationConfig(goal="left 0 0 0"), RIGHT.joint_names, Judge())  # type: ignore[union-attr]


def run(policy: Policy, steps: int = 4) -> np.ndarray:
    prediction = None
    for step in range(steps):
        policy.step(Joints(at(step), "", G1_JOINTS, np.full(26, 0.1)))
        prediction = policy.step(tokens(step, step))
    assert prediction is not None
    return prediction.chunk.position_rad


@pytest.mark.parametrize("decoder", ["regression", "flow"])
def test_a_policy_executes_the_best_of_its_chunks(decoder: str) -> None:
    config = ROBOT.model_copy(update={"decoder": decoder})
    ends = {likes: run(policy_that_likes(likes, config))[-1, 0] for likes in (-9.0, 9.0)}
    assert ends[9.0] > ends[-9.0] + 0.01
    policy = policy_that_likes(9.0, config)
    first = run(policy)
    assert policy.imagination is not None and policy.imagination.record.chosen.sum() == 4
    assert set(policy.timings_ms) == {"history", "inference", "imagination"}
    policy.reset()
    np.testing.assert_array_equal(run(policy), first)


def policy_that_likes(likes: float, config: object = ROBOT) -> Policy:
    policy = make_policy(config)  # type: ignore[arg-type]
    policy.imagine(imagination(Judge(likes), samples=8))
    return policy


def test_off_is_the_default_and_changes_nothing() -> None:
    policy = make_policy(ROBOT)
    assert policy.imagination is None
    chunk = run(policy)
    watched = policy_that_likes(0.0)
    watched.imagination.future.refuses = "nothing is judged"  # type: ignore[union-attr]
    np.testing.assert_array_equal(run(watched), chunk)


def test_tokens_of_another_state_bundle_are_refused() -> None:
    judge = Judge()
    judge.state_tokens_sha256 = "a"
    with pytest.raises(UserError, match="imagine_future"):
        make_policy(ROBOT.model_copy(update={"state_tokens_sha256": "b"})).imagine(imagination(judge))


def test_the_future_itself_judges() -> None:
    """Of the shipped bundle: to go on as forecast is likelier than to swing an arm; the other hand goes as forecast."""
    future = load("future", MODELS / "future-lite")
    assert isinstance(future, FutureCapability) and RIGHT is not None
    with pytest.raises(RefusedError, match="no prediction"):
        future.judge([])
    state = np.zeros((future.config.state_tokens, future.config.state_width), np.float32)
    future.wanted = set()
    for step in range(12):
        future.step(Joints(at(step), "", G1_JOINTS, np.zeros(26)))
        prediction = future.step(StateTokens(at(step), "", state))
    assert isinstance(prediction, FuturePrediction)
    forecast = prediction.joints.position_rad[:15]
    swung = forecast.copy()
    columns = [G1_JOINTS.index(name) for name in RIGHT.joint_names]
    swung[:, columns[0]] += np.linspace(0, 2.0, 15)
    both = [MotionQuery(0, "", G1_JOINTS, OFFSETS_S, chunk) for chunk in (forecast, swung)]
    energies = future.judge(both)
    assert energies[0] < energies[1]
    alone = [MotionQuery(0, "", RIGHT.joint_names, OFFSETS_S, chunk[:, columns]) for chunk in (forecast, swung)]
    assert np.abs(future.judge(alone) - energies).max() < 0.5 * abs(energies[1] - energies[0])
    with pytest.raises(RefusedError, match="no arm"):
        future.judge([MotionQuery(0, "", ("kRightHandIndex",), OFFSETS_S, forecast[:, :1])])
