"""What `wm rollout` writes: figures with their interval, and a video in which the plan is where it is."""

import numpy as np
import pytest

from wm_ros.data.video import every_picture
from wm_ros.robot.rollout import summary
from wm_ros.robot.video import ZOOM, draw_plan, episode_pictures, write_video
from wm_ros.types import ActionChunk, Frame, Joints, WristFrame

NAMES = ("ee_x", "ee_y", "ee_z", "gripper")
# Points (x, y, z) with z = 0 to pixels (100 x, 100 y).
MATRIX = np.array([[100.0, 0, 0, 0], [0, 100.0, 0, 0], [0, 0, 0, 1.0]])


def episode(success, steps=40, trip=2.0):
    return {
        "success": success,
        "steps": steps,
        "sim_s": steps / 80,
        "wall_s": 1.0,
        "return": 100.0,
        "jerk_rms_mps3": 5.0,
        "round_trip_ms": {"median": trip, "p95": 2 * trip} if trip else None,
        "timeouts": 1,
        "refused": {"past": 2},
    }


def test_success_comes_with_its_wilson_interval_and_time_counts_where_solved():
    found = summary([episode(True, 40), episode(True, 80), episode(False, 250), episode(True, 60, trip=0.0)])
    assert (found["success"]["hits"], found["success"]["n"], found["success"]["value"]) == (3, 4, 0.75)
    assert found["success"]["ci95"] == pytest.approx([0.30064, 0.95441], abs=1e-4)
    assert found["time_to_success_s"] == 0.75
    assert found["round_trip_ms"] == {"median": 2.0, "p95": 4.0}
    assert found["timeouts"] == 4 and found["refused"] == 8


def test_no_success_has_no_time():
    found = summary([episode(False, 250, trip=0.0)])
    assert found["time_to_success_s"] is None and found["round_trip_ms"]["median"] is None
    assert found["success"]["ci95"][0] == 0


def chunk(stamp, *places):
    points = np.array([(*place, 1.0) for place in places], np.float32)
    return ActionChunk(stamp, "", NAMES, np.arange(1, len(places) + 1) / 80, points)


def hand(stamp, *place):
    return Joints(stamp, "base", NAMES, np.array([*place, 1.0]))


def test_the_plan_is_drawn_from_the_hand_through_the_places_of_the_chunk():
    view = np.zeros((40 * ZOOM, 40 * ZOOM, 3), np.uint8)
    draw_plan(view, chunk(0, (0.3, 0.1, 0.0), (0.3, 0.3, 0.0)), hand(0, 0.1, 0.1, 0.0), MATRIX)
    for x, y in ((0.1, 0.1), (0.2, 0.1), (0.3, 0.2), (0.3, 0.29)):
        assert view[round(100 * y * ZOOM), round(100 * x * ZOOM)].max() > 150, (x, y)
    assert (
        not view[: round(100 * 0.05 * ZOOM)].any()
        and not view[round(100 * 0.2 * ZOOM), : round(100 * 0.2 * ZOOM)].any()
    )


def test_each_image_shows_the_plan_in_force_then(tmp_path):
    frames = {stamp: Frame(stamp, "camera", np.zeros((40, 40, 3), np.uint8)) for stamp in (0, 10)}
    wrist = {0: WristFrame(0, "wrist_camera", np.full((40, 40, 3), 80, np.uint8))}
    plans = {10: chunk(10, (0.3, 0.3, 0.0))}
    heard = {Frame: frames, WristFrame: wrist, ActionChunk: plans, Joints: {0: hand(0, 0.1, 0.1, 0.0)}}
    before, after = episode_pictures(heard, MATRIX, "task")
    assert before.shape == after.shape == (40 * ZOOM + 24, 2 * 40 * ZOOM, 3)
    middle = (24 + round(100 * 0.2 * ZOOM), round(100 * 0.2 * ZOOM))
    assert not before[middle].any() and after[middle].any()
    assert (before[24:, 40 * ZOOM :] == 80).all() and not after[24:, 40 * ZOOM :].any(), "the wrist saw nothing then"
    assert write_video(tmp_path / "v.mp4", iter([before, after])) == 2
    times, pictures = zip(*every_picture(tmp_path / "v.mp4"), strict=True)
    assert len(times) == 2
    assert np.abs(pictures[1].astype(int) - after).mean() < 6


def test_no_pictures_make_no_file(tmp_path):
    assert write_video(tmp_path / "v.mp4", iter(())) == 0
    assert not (tmp_path / "v.mp4").exists()
