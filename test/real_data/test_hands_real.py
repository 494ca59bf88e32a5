"""Hands of people in photographs and in three short clips of kitchens; a robot's hands are none."""

import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from wm_ros.data.sources import Episode, episodes
from wm_ros.hands.detector import MediapipeDetector
from wm_ros.hands.run import run
from wm_ros.hands.source import read_boxes

ALL = Path(os.environ.get("WM_DATA", "../shared/data"))
DATA = ALL / "hands"
pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no recordings in {DATA}; set WM_DATA"),
    pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="extra 'hands' is not installed"),
]


def of_clip(name, folder):
    # Left half of pictures side by side; after 0.7 s the last real picture stands still, darkened and painted over.
    summary = run(episodes(f"{DATA / name}.mp4?crop=0,0,0.5,1&end_s=0.7"), MediapipeDetector(), folder)
    boxes = {}
    for _, hand in read_boxes(folder / "boxes.jsonl"):
        boxes.setdefault(hand.side, []).append(hand.values[0])
    return summary, boxes


def test_both_hands_that_hold_a_plate_are_found_on_their_sides(tmp_path):
    summary, boxes = of_clip("epic1", tmp_path)
    assert summary["frames"] == 4 and summary["share_with_the_left_hand"] == summary["share_with_the_right_hand"] == 1
    assert np.mean(boxes["left"], axis=0)[:2] == pytest.approx([0.48, 0.73], abs=0.03)
    assert np.mean(boxes["right"], axis=0)[:2] == pytest.approx([0.65, 0.60], abs=0.03)


def test_the_hand_with_a_knife_is_the_right_one(tmp_path):
    summary, boxes = of_clip("epic2", tmp_path)
    assert summary["share_with_the_right_hand"] == 1 and summary["share_with_the_left_hand"] == 0
    assert np.mean(boxes["right"], axis=0)[:2] == pytest.approx([0.41, 0.68], abs=0.03)


def test_a_hand_that_the_edge_cuts_off_is_missed_and_nothing_is_made_up(tmp_path):
    summary, boxes = of_clip("epic3", tmp_path)
    assert summary["share_with_a_hand"] == 0 and np.isnan([*boxes["left"], *boxes["right"]]).all()


def test_most_photographs_show_a_hand():
    detector = MediapipeDetector(video=False)
    photos = sorted((DATA / "mediapipe_gesture").glob("*/*.jpg"))
    found = [detector.find(cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB)) for p in photos]
    assert len(photos) == 20 and sum(map(bool, found)) == 18
    for one in (hand for hands in found for hand in hands):
        assert (one.box[:2] - one.box[2:] / 2 >= -1e-6).all() and (one.box[:2] + one.box[2:] / 2 <= 1 + 1e-6).all()


def test_a_robot_has_no_hands_of_a_person(tmp_path):
    (episode,) = episodes(f"{ALL / 'robot' / 'g1_bottle_15hz'}?episodes=36")
    robot = Episode("robot", "MIT", lambda: (s for i, s in enumerate(episode.samples()) if i < 400))
    assert run([robot], MediapipeDetector(), tmp_path)["share_with_a_hand"] == 0
