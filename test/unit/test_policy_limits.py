"""Limits hold for any target, whatever it is; what the limits allow is followed exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wm_ros.policy.limits import JointLimits, Limiter

PERIOD_S = 0.02
NAMES = ("a", "b", "c")
LIMITS = JointLimits(
    NAMES,
    np.array([-1.0, -0.2, -np.inf]),
    np.array([1.5, 0.1, np.inf]),
    np.array([2.0, 0.5, 3.0]),
    np.array([10.0, 4.0, np.inf]),
)
ANYTHING = st.one_of(
    st.floats(-3, 3), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([np.nan, np.inf, -np.inf, 1e300])
)


def holds(limits: JointLimits, start: np.ndarray, commands: np.ndarray) -> None:
    """Every limit holds for `commands` (n, J) that follow from rest at `start`."""
    assert np.isfinite(commands).all()
    assert (commands >= limits.lower_rad - 1e-9).all() and (commands <= limits.upper_rad + 1e-9).all()
    velocity = np.diff(np.vstack([start, commands]), axis=0) / PERIOD_S
    assert (np.abs(velocity) <= limits.velocity_radps * (1 + 1e-6) + 1e-6).all()
    change = np.diff(np.vstack([np.zeros_like(start), velocity]), axis=0) / PERIOD_S
    assert (np.abs(change) <= limits.acceleration_radps2 * (1 + 1e-6) + 1e-5).all()


@settings(max_examples=300, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 80), st.just(3)), elements=ANYTHING), st.integers(1, 20))
def test_no_target_breaks_a_limit(targets: np.ndarray, repeat: int) -> None:
    limiter = Limiter(LIMITS, PERIOD_S)
    start = np.array([1.0, 0.0, 0.3])
    limiter.begin(start)
    commands = np.stack([limiter.step(target) for target in np.repeat(targets, repeat, axis=0)])
    holds(LIMITS, start, commands)
    holds(LIMITS, start, np.vstack([commands, limiter.stop()]))


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, (30, 3), elements=st.floats(-2, 2)),
    arrays(np.float64, 3, elements=st.floats(-3, 3)),
)
def test_coming_to_rest_keeps_the_limits_and_arrives(targets: np.ndarray, goal: np.ndarray) -> None:
    limiter = Limiter(LIMITS, PERIOD_S)
    commands = [limiter.step(target) for target in targets]
    clipped = limiter.clipped
    way = limiter.come_to(goal)
    holds(LIMITS, np.zeros(3), np.vstack([*commands, way]))
    assert way[-1] == pytest.approx(np.clip(goal, LIMITS.lower_rad, LIMITS.upper_rad), abs=1e-5)
    assert limiter.clipped == clipped, "a way to rest is not a clipped command"


def test_what_the_limits_allow_is_followed_exactly_and_not_counted() -> None:
    limiter = Limiter(LIMITS, PERIOD_S)
    times = np.arange(1, 200)[:, None] * PERIOD_S
    targets = np.array([0.5, 0.05, 1.0]) * (1 - np.cos(times * np.array([1.5, 2.0, 1.0])))
    commands = np.stack([limiter.step(target) for target in targets])
    np.testing.assert_allclose(commands, targets, atol=1e-9)
    assert limiter.clipped == 0


def test_without_limits_every_command_is_its_target() -> None:
    limiter = Limiter(JointLimits.none(NAMES), PERIOD_S)
    targets = np.random.default_rng(0).normal(0, 10, (50, 3))
    np.testing.assert_allclose(np.stack([limiter.step(target) for target in targets]), targets, atol=1e-9)
    assert limiter.clipped == 0


def test_a_step_is_reached_without_passing_it() -> None:
    limiter = Limiter(LIMITS, PERIOD_S)
    goal = np.array([1.2, 0.05, 1.0])
    commands = np.stack([limiter.step(goal) for _ in range(150)])
    assert (commands <= goal + 1e-9).all() and commands[-1] == pytest.approx(goal, abs=1e-9)
    assert 0 < limiter.clipped < 150, "clipped on the way, not at the goal"


def test_a_value_that_is_not_a_number_stays_where_it_was_and_is_counted() -> None:
    limiter = Limiter(LIMITS, PERIOD_S)
    limiter.step(np.array([0.001, 0.001, 0.001]))
    command = limiter.step(np.array([0.002, np.nan, 0.002]))
    assert command == pytest.approx([0.002, 0.001, 0.002], abs=1e-9)
    assert limiter.clipped == 1 and limiter.clipped_joint == "b"


def test_a_stop_is_as_short_as_the_acceleration_allows() -> None:
    limiter = Limiter(LIMITS, PERIOD_S)
    for k in range(1, 26):
        limiter.step(np.array([0.04 * k, 0.0, 0.0]))
    assert limiter.velocity[0] == pytest.approx(2.0)
    way = limiter.stop()
    assert len(way) == 10, "2 rad/s at 10 rad/s² in periods of 0.02 s"
    assert limiter.velocity == pytest.approx(0, abs=1e-9)
    free = Limiter(JointLimits.none(NAMES), PERIOD_S)
    free.step(np.ones(3))
    assert free.stop().tolist() == [[1, 1, 1]], "without a limit the last command is where it stops"


def test_joints_measured_outside_of_their_range_begin_at_its_end() -> None:
    limiter = Limiter(LIMITS, PERIOD_S)
    limiter.begin(np.array([1.7, -0.3, 0.0]))
    assert limiter.step(np.array([1.7, -0.3, 0.0])) == pytest.approx([1.5, -0.2, 0.0])


def test_a_common_bound_tightens_and_never_loosens() -> None:
    tight = LIMITS.at_most(velocity_radps=1.0, acceleration_radps2=5.0)
    assert tight.velocity_radps.tolist() == [1.0, 0.5, 1.0]
    assert tight.acceleration_radps2.tolist() == [5.0, 4.0, 5.0]
    assert LIMITS.at_most().velocity_radps.tolist() == LIMITS.velocity_radps.tolist()
