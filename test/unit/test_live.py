"""Live judging against worlds whose errors are known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from wm_ros.evaluation.live import LiveScores
from wm_ros.kinematics import G1_JOINTS, hands_of
from wm_ros.types import (
    ActionChunk,
    EgoPose,
    Frame,
    FutureFrames,
    HandTrajectory,
    JointCommand,
    Joints,
    OccupancyForecast,
    Sweep,
)

S = 10**9
PERIOD = S // 20


def joints(stamp, kind=Joints, speed=0.2):
    return kind(stamp, "", G1_JOINTS, np.full(len(G1_JOINTS), speed * stamp / S))


def track(scores, name):
    return next(t for t in scores.tracks() if t.name == name)


def test_a_hand_predicted_30_mm_off_is_scored_30_mm_when_its_time_has_come():
    scores = LiveScores(window=10)
    offsets = np.arange(1, 21) / 20
    path = np.stack([hands_of(joints(S + round(o * S)))["right"] for o in offsets]) + [0.03, 0, 0]
    for stamp in range(S - PERIOD, S + 1, PERIOD):
        scores.observe(joints(stamp))
    guess = HandTrajectory(S, "torso", "right", offsets, path.astype(np.float32), np.ones(20, bool))
    assert not scores.predict(guess), "its time has not come"
    for stamp in range(S + PERIOD, 2 * S + 1, PERIOD):
        scores.observe(joints(stamp))
    assert track(scores, "hand right 0.5s").mean() == pytest.approx(30.0, abs=0.1)
    assert track(scores, "hand right 1s").count == 1
    name, (last, running) = scores.surprise()[0]
    assert name == "hands" and 0 < last == running < 1, "better than a hand that stays"


def test_a_prediction_that_comes_after_its_truth_is_scored_at_once():
    scores = LiveScores(window=10)
    for stamp in range(S, 3 * S + 1, PERIOD):
        scores.observe(joints(stamp))
    offsets = np.arange(1, 21) / 20
    held = np.tile(hands_of(joints(S))["left"], (20, 1)).astype(np.float32)
    assert scores.predict(HandTrajectory(S, "torso", "left", offsets, held, np.ones(20, bool)))
    assert track(scores, "hand left 1s").ratio() == pytest.approx(1.0, abs=1e-4), "hold is the reference itself"


def test_actions_are_judged_by_commands_where_there_are_any():
    scores = LiveScores(window=10)
    offsets = np.arange(1, 21) / 20
    chunk = ActionChunk(S, "", G1_JOINTS, offsets, np.full((20, 26), 0.5, np.float32))
    scores.predict(chunk)
    for stamp in range(S - PERIOD, 3 * S, PERIOD):
        scores.observe(Joints(stamp, "", G1_JOINTS, np.full(26, 9.0)))
        scores.observe(JointCommand(stamp, "", G1_JOINTS, np.full(26, 0.4)))
    # The first chunk told the judge which joints count; its own time had begun before it was known.
    scores.predict(ActionChunk(S + 10 * PERIOD, "", G1_JOINTS, offsets, np.full((20, 26), 0.5, np.float32)))
    assert track(scores, "action 0.5s").mean() == pytest.approx(0.1, abs=1e-6)


def test_the_safe_command_of_one_point_is_no_prediction():
    scores = LiveScores(window=10)
    scores.predict(ActionChunk(S, "", G1_JOINTS, np.array([0.1]), np.zeros((1, 26), np.float32)))
    for stamp in range(S, 3 * S, PERIOD):
        scores.observe(joints(stamp))
    assert scores.tracks() == []


def test_frames_are_judged_by_psnr_at_the_size_of_the_prediction():
    scores = LiveScores(window=10)
    grey = np.full((48, 64, 3), 100, np.uint8)
    scores.predict(FutureFrames(S, "camera", (0.5,), np.full((1, 48, 64, 3), 110, np.uint8)))
    for stamp in range(S - PERIOD, 2 * S, PERIOD):
        scores.observe(Frame(stamp, "camera", np.repeat(np.repeat(grey, 2, 0), 2, 1)))
    found = track(scores, "frame 0.5s")
    assert found.shown(found.mean()) == pytest.approx(20 * np.log10(255 / 10), abs=0.01)


def street(stamp, wall_x=20.0):
    """A wall across the road ahead, seen from x = 10 m/s · t."""
    y = np.linspace(-15, 15, 1500)
    x = wall_x - 10.0 * (stamp - S) / S
    points = np.stack([np.full_like(y, x), y, np.zeros_like(y), np.zeros_like(y)], 1)
    return Sweep(stamp, "lidar", points.astype(np.float32))


def pose(stamp):
    matrix = np.eye(4)
    matrix[0, 3] = 10.0 * (stamp - S) / S
    return EgoPose(stamp, "odom", "base_link", matrix)


def forecast(wall_x, confidence=0.99):
    probability = np.full((1, 128, 128), 1 - confidence, np.float32)
    column = int((wall_x + 25.6) / 0.4)
    rows = slice(int((25.6 - 15) / 0.4), int((25.6 + 15) / 0.4) + 1)
    probability[0, rows, column] = confidence
    return OccupancyForecast(S, "lidar", (1.0,), probability, 0.4, (-25.6, -25.6))


def occupancy_error(prediction):
    scores = LiveScores(window=10)
    scores.predict(prediction)
    for stamp in range(S, 2 * S + 1, S // 10):
        scores.observe(pose(stamp))
        scores.observe(street(stamp, 20.1))
    return track(scores, "occupancy 1s")


def test_a_static_wall_is_where_it_was_in_the_frame_of_the_earlier_sweep():
    right, wrong = occupancy_error(forecast(20.1)), occupancy_error(forecast(10.1))
    assert right.mean() < 0.03, "ego-motion is compensated: the wall of 1 s later lies on that of now"
    assert wrong.mean() > 5 * right.mean()
    assert right.ratio() < 1 < wrong.ratio()


def test_without_odometry_nothing_is_scored():
    scores = LiveScores(window=10)
    scores.predict(forecast(20.1))
    for stamp in range(S, 3 * S, S // 10):
        scores.observe(street(stamp))
    assert scores.tracks() == []


def test_memory_is_bounded_and_a_reset_forgets_what_was_pending():
    scores = LiveScores(window=5)
    for step in range(2000):
        stamp = S + step * PERIOD
        scores.observe(joints(stamp))
        scores.predict(ActionChunk(stamp, "", G1_JOINTS, np.arange(1, 21) / 20, np.zeros((20, 26), np.float32)))
    action = scores.judges[3]
    assert len(action.measured.rows) <= 4 * 20 + 1 and len(action.pending) <= 200
    assert len(track(scores, "action 0.5s").errors) == 5
    scores.reset()
    assert not action.pending and not action.measured.rows
