"""`wm info` says what is in a bag, what it can feed, and in words what is missing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from wm_ros import topics
from wm_ros.data.bags import BagWriter, write_bag
from wm_ros.data.info import describe, print_info
from wm_ros.errors import BagError
from wm_ros.kinematics import G1_JOINTS
from wm_ros.messages import encode_sample
from wm_ros.types import EgoPose, Frame, Instruction, Joints, Sweep

START = 1_000_000_000_000


def grasp(names=tuple(G1_JOINTS)):
    yield Instruction(START, "", "lift the can")
    for step in range(16):
        t = START + step * 100_000_000
        yield Joints(t, "", names, np.zeros(len(names)))
        yield Frame(t, "camera", np.zeros((8, 8, 3), np.uint8))


def shown(info) -> str:
    text = io.StringIO()
    print_info(info, Console(file=text, width=160))
    return text.getvalue()


def test_a_grasp_feeds_three_capabilities(tmp_path):
    write_bag(tmp_path / "grasp", grasp(), licence="MIT")
    info = describe(tmp_path / "grasp")
    assert (info.messages, info.duration_s, info.storage, info.licence) == (33, 1.5, "mcap", "MIT")
    assert info.size_bytes == sum(f.stat().st_size for f in (tmp_path / "grasp").iterdir())
    assert info.feeds == {"lidar": "needs points (PointCloud2)", "state": "", "future": "", "policy": ""}
    image = next(t for t in info.topics if t.name == "/image")
    assert (image.count, image.becomes, image.first_s, image.last_s) == (16, "image", 0.0, 1.5)
    assert image.rate_hz == pytest.approx(10)
    text = shown(info)
    assert "needs points (PointCloud2)" in text
    assert "grasp" in text
    assert "latched" in text


def test_what_is_missing_for_a_part_is_said(tmp_path):
    write_bag(tmp_path / "bag", [Sweep(START, "lidar", np.ones((5, 4), np.float32))])
    info = describe(tmp_path / "bag")
    assert info.feeds["lidar"] == ""
    assert info.notes["lidar"] == "no occupancy forecast: needs odom (Odometry)"
    assert "needs image (Image) or image/compressed (CompressedImage)" in info.feeds["state"]
    assert "needs joint_states (JointState)" in info.feeds["policy"]
    write_bag(
        tmp_path / "both",
        [Sweep(START, "lidar", np.ones((5, 4), np.float32)), EgoPose(START, "odom", "base_link", np.eye(4))],
    )
    assert describe(tmp_path / "both").notes["lidar"] == ""


def test_joints_of_no_known_arm_feed_no_future(tmp_path):
    write_bag(tmp_path / "bag", grasp(names=("wheel_left", "wheel_right")))
    info = describe(tmp_path / "bag")
    assert "no arm that is known" in info.feeds["future"]
    assert info.feeds["policy"] == ""


def test_a_topic_whose_messages_cannot_be_used_feeds_nothing_and_says_why(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        cdr = encode_sample(Sweep(START, "lidar", np.ones((5, 4), np.float32)))[0][1]
        writer.write(topics.POINTS, START, cdr[:60])
    info = describe(tmp_path / "bag")
    assert "PointCloud2" in info.topics[0].problem
    assert info.feeds["lidar"] == "needs points (PointCloud2)"
    assert "bytes do not decode" in shown(info)


def test_an_empty_bag_feeds_nothing(tmp_path):
    write_bag(tmp_path / "bag", [])
    info = describe(tmp_path / "bag")
    assert (info.messages, info.duration_s) == (0, 0.0)
    assert all(info.feeds.values())
    assert "0 messages" in shown(info)


def test_of_several_bags_one_must_be_named(tmp_path):
    for name in ("a", "b"):
        write_bag(tmp_path / name, grasp())
    with pytest.raises(BagError, match="holds 2 recordings; name one of a, b"):
        describe(tmp_path)
