"""What a robot does with trajectories: by stamp and offsets, by name, and nothing for a wrong one."""

import numpy as np
import pytest

from wm_ros.robot.controller import TrajectoryController
from wm_ros.types import ActionChunk

NAMES = ("x", "y")
TICK = 10_000_000
T0 = 1_000_000_000_000


def chunk(*points, stamp=T0, names=NAMES, first=1, step_s=0.01):
    offsets = np.arange(first, first + len(points)) * step_s
    return ActionChunk(stamp, "", names, offsets, np.array(points, np.float32).reshape(-1, len(names)))


@pytest.fixture
def controller():
    made = TrajectoryController(NAMES, TICK)
    made.reset(np.zeros(2))
    return made


def run(controller, ticks, start=T0):
    return np.array([controller.set_point_at(start + i * TICK) for i in range(ticks)])


def test_without_a_trajectory_the_set_point_stays(controller):
    assert (run(controller, 3) == 0).all() and controller.holds(T0)


def test_points_are_reached_at_their_times_in_straight_lines_and_the_last_one_is_held(controller):
    assert controller.offer(chunk((0.4, -0.2), (0.4, 0.2), step_s=0.04), T0) == ""
    way = run(controller, 10)
    np.testing.assert_allclose(way[:4, 0], [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(way[3:8, 1], [-0.2, -0.1, 0.0, 0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(way[7:], way[7:8].repeat(3, 0))
    assert not controller.holds(T0 + 7 * TICK) and controller.holds(T0 + 8 * TICK)


def test_joints_are_taken_by_name(controller):
    controller.offer(chunk((1.0, 2.0), names=("y", "x")), T0)
    np.testing.assert_allclose(run(controller, 1)[0], [2.0, 1.0])


def test_a_late_trajectory_is_entered_where_time_is_now_from_where_the_set_point_is(controller):
    points = [(i / 10, 0.0) for i in range(1, 11)]
    now = T0 + 4 * TICK
    controller.set_point_at(now - TICK)
    assert controller.offer(chunk(*points), now) == ""
    np.testing.assert_allclose(run(controller, 3, now)[:, 0], [0.5, 0.6, 0.7], atol=1e-6)


def test_a_newer_trajectory_replaces_the_one_in_execution_without_a_jump(controller):
    controller.offer(chunk((1.0, 0.0), step_s=0.1), T0)
    run(controller, 5)
    now = T0 + 5 * TICK
    controller.offer(chunk((0.0, 0.0), stamp=now, step_s=0.05), now)
    np.testing.assert_allclose(run(controller, 5, now)[:, 0], [0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (chunk((1.0, 1.0), names=("x", "z")), "wrong joints"),
        (chunk((1.0,), names=("x",)), "wrong joints"),
        (chunk((1.0, 1.0), names=("x", "x")), "wrong joints"),
        (chunk((1.0, 1.0, 1.0), names=("x", "y", "z")), "wrong joints"),
        (chunk(), "empty"),
        (chunk((1.0, np.nan)), "not finite"),
        (chunk((1.0, 1.0), stamp=T0 - 10**9), "past"),
        (chunk((1.0, 1.0), stamp=T0 + 10**9), "ahead of the clock"),
        (chunk(*[(1.0, 1.0)] * 200, stamp=T0 - 10**9), "out of order"),
    ],
)
def test_a_wrong_trajectory_is_refused_with_the_reason_and_changes_nothing(controller, wrong, kind):
    good = chunk(*[(0.5, 0.5)] * 4, stamp=T0 - TICK)
    assert controller.offer(good, T0) == ""
    assert controller.offer(wrong, T0).partition(":")[0] == kind
    np.testing.assert_allclose(run(controller, 1)[0], [0.5, 0.5])


def test_a_delay_lets_trajectories_take_effect_so_much_later():
    controller = TrajectoryController(NAMES, TICK, delay_ns=3 * TICK)
    controller.reset(np.zeros(2))
    controller.offer(chunk(*[(i / 10, 0.0) for i in range(1, 11)]), T0)
    np.testing.assert_allclose(run(controller, 6)[:, 0], [0, 0, 0, 0.4, 0.5, 0.6], atol=1e-6)


def test_a_reset_forgets_what_waits_and_what_runs():
    controller = TrajectoryController(NAMES, TICK, delay_ns=TICK)
    controller.reset(np.zeros(2))
    controller.offer(chunk(*[(1.0, 1.0)] * 9), T0)
    controller.reset(np.full(2, 0.3))
    np.testing.assert_allclose(run(controller, 4), 0.3)
    assert controller.newest_ns == -1
