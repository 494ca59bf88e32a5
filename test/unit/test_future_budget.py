"""Hands are on time; frames are drawn as far as the time goes."""

import numpy as np
import pytest

from wm_ros.capability import load
from wm_ros.errors import UserError
from wm_ros.future.budget import PATIENCE, FrameBudget, Limits
from wm_ros.future.capability import FutureCapability
from wm_ros.future.model import load as load_model
from wm_ros.kinematics import G1_JOINTS
from wm_ros.paths import MODELS
from wm_ros.types import Frame, Joints, StateTokens

BUNDLE = MODELS / "future-lite"


def once(steps: int) -> int:
    return steps


def warm(budget_ms: float, each_ms: float) -> FrameBudget:
    budget = FrameBudget(budget_ms)
    for part in ("encode", "evaluate", "decode"):
        budget.measured(part, each_ms)
    return budget


# One encoding, an evaluation for each step of each frame, a picture for each frame and the current one: 10 ms each.
@pytest.mark.parametrize(
    ("left_ms", "frames", "steps"),
    [(500, 3, 4), (170, 3, 4), (169, 3, 3), (80, 3, 1), (79, 2, 1), (60, 2, 1), (59, 1, 1), (40, 1, 1), (39, 0, 1)],
)
def test_steps_are_given_up_before_frames(left_ms, frames, steps):
    plan = warm(1000.0, 10.0).plan(1000.0 - left_ms, 3, 4, once)
    assert (plan.frames, plan.steps, plan.left_ms) == (frames, steps, left_ms)
    assert bool(plan.reason) == ((frames, steps) != (3, 4))


def test_without_a_budget_everything_is_drawn():
    plan = warm(0.0, 1e6).plan(1e9, 3, 50, once)
    assert (plan.frames, plan.steps, plan.reason) == (3, 50, "")


def test_the_slowest_recent_measurement_counts():
    budget = warm(100.0, 5.0)
    budget.measured("evaluate", 60.0)
    assert budget.plan(0.0, 3, 1, once).frames == 1
    for _ in range(100):
        budget.measured("evaluate", 5.0)
    assert budget.plan(0.0, 3, 1, once).frames == 3


def test_a_machine_that_turned_slow_is_tried_again_and_one_that_always_was_is_not():
    slow_now, slow_always = warm(100.0, 5.0), warm(100.0, 60.0)
    slow_now.measured("evaluate", 500.0)
    tried = [[b.plan(0.0, 3, 1, once).frames for _ in range(2 * PATIENCE)] for b in (slow_now, slow_always)]
    assert sum(tried[0]) == 1 and tried[0].index(1) == PATIENCE
    assert sum(tried[1]) == 0


class Machine:
    """A clock that goes on by `step_s` whenever it is looked at."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def predict(capability: FutureCapability, step: int = 0):
    config = capability.config
    stamp_ns = 1_000_000_000 + round(step * 1e9 / config.rate_hz)
    rgb = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    capability.step(Joints(stamp_ns, "", G1_JOINTS, np.full(len(G1_JOINTS), 0.1)))
    capability.step(Frame(stamp_ns, "camera", rgb))
    tokens = np.zeros((config.state_tokens, config.state_width), np.float32)
    return capability.step(StateTokens(stamp_ns, "camera", tokens))


def capability_on(clock: Machine, **limits: float) -> FutureCapability:
    _, model = load_model(BUNDLE)
    capability = FutureCapability(model, clock=clock)
    capability.limit(Limits(**limits))
    capability.warm_up()
    return capability


def test_with_a_tiny_budget_there_are_hands_in_time_and_no_frames():
    clock = Machine(0.010)
    capability = capability_on(clock, budget_ms=35.0)  # the window and stage I take 20 ms of them
    began_s = clock.now_s
    prediction = predict(capability)
    assert clock.now_s - began_s <= 0.035 + 2 * clock.step_s  # two looks at the clock are the test's own
    assert len(prediction.hands) == 2 and prediction.frames is None
    assert "no frames" in capability.withheld and capability.planned.frames == 0


def test_a_machine_that_slows_down_while_it_draws_stops_between_two_frames():
    clock = Machine(0.010)
    capability = capability_on(clock, budget_ms=150.0)
    assert predict(capability).frames.rgb.shape[0] == 3 and capability.withheld == ""
    draw, clock_of = capability.model.frames.draw_next, clock

    def slower(*args):
        clock_of.now_s += 0.060
        return draw(*args)

    capability.model.frames.draw_next = slower
    assert predict(capability, 1).frames.horizons_s == capability.config.frame_horizons_s[:1]
    assert "slower than measured" in capability.withheld


def test_frames_without_a_budget_are_those_of_the_plain_painter():
    capability = load("future", BUNDLE)
    prediction = predict(capability)
    plain = capability.paint(capability.moment, capability.moment.forecast.body).rgb
    assert np.array_equal(prediction.frames.rgb, plain)
    assert (capability.planned.frames, capability.planned.steps, capability.planned.left_ms) == (3, 1, None)


def test_samples_and_horizon_trim_what_is_shown():
    whole, trimmed = load("future", BUNDLE), load("future", BUNDLE)
    trimmed.limit(Limits(samples=2, horizon_s=0.7))
    all_of, some = predict(whole), predict(trimmed)
    steps = round(0.7 * whole.config.rate_hz - 0.5)
    assert some.samples.shape == (2, 2, steps, 3) and some.joints.position_rad.shape[0] == steps
    assert some.frames.horizons_s == (0.33, 0.67)
    # another number of pictures may be decoded by another kernel
    assert np.abs(some.frames.rgb.astype(int) - all_of.frames.rgb[:2]).max() <= 1
    assert some.probability.sum() == pytest.approx(1.0)


def test_more_steps_draw_a_sample():
    mean, sample = load("future", BUNDLE), load("future", BUNDLE)
    sample.limit(Limits(frame_steps=2))
    assert not np.array_equal(predict(mean).frames.rgb, predict(sample).frames.rgb)
    assert sample.planned.steps == 2


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(samples=65), "samples = 65: the bundle has"),
        (Limits(horizon_s=9.0), "horizon_s = 9: the bundle looks from"),
        (Limits(horizon_s=0.01), "horizon_s = 0.01"),
    ],
)
def test_what_the_bundle_does_not_have_is_refused(limits, words):
    with pytest.raises(UserError, match=words):
        load("future", BUNDLE).limit(limits)
