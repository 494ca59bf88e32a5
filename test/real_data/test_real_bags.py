"""Bags that others recorded: read without a traceback, used as far as they go."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from wm_ros.data.bags import find_bags, read_messages, read_samples, summary
from wm_ros.data.info import describe
from wm_ros.errors import BagError
from wm_ros.types import EgoPose

BAGS = Path(__file__).parents[2] / os.environ.get("WM_DATA", "../shared/data") / "rosbag"
pytestmark = pytest.mark.skipif(not BAGS.is_dir(), reason=f"no recordings at {BAGS}: set WM_DATA to the data folder")

COUNTS = {
    "gps_nav_bag": [5348],
    "nanaaaiya_data1": [436],
    "nebula_vlp16": [4],
    "rosbag2_cpp_mcap": [12, 7, 13],
}


@pytest.mark.parametrize("name", COUNTS)
def test_every_message_is_read_in_time_order(name):
    counts = []
    for bag in find_bags(BAGS / name):
        stamps = [t for _, _, t, _ in read_messages(bag)]
        assert stamps == sorted(stamps)
        assert summary(bag).messages == len(stamps)
        counts.append(len(stamps))
    assert counts == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_info_says_that_they_feed_no_capability_and_why(name):
    for info in map(describe, find_bags(BAGS / name)):
        assert info.messages in COUNTS[name]
        assert set(info.feeds) == {"lidar", "state", "future", "policy"}
        assert all("needs" in why for why in info.feeds.values())


def test_odometry_under_another_name_is_found_by_its_type():
    (bag,) = find_bags(BAGS / "gps_nav_bag")
    poses = list(read_samples(bag))
    assert len(poses) == 2143
    assert {type(p) for p in poses} == {EgoPose}
    stamps = np.array([p.stamp_ns for p in poses])
    assert (np.diff(stamps) >= 0).all()
    for pose in poses[::100]:
        assert np.allclose(pose.matrix[:3, :3] @ pose.matrix[:3, :3].T, np.eye(3), atol=1e-9)


def test_packets_of_a_driver_are_listed_and_passed_over():
    (bag,) = find_bags(BAGS / "nebula_vlp16")
    (topic,) = summary(bag).topics
    assert topic.type == "velodyne_msgs/msg/VelodyneScan"
    assert list(read_samples(bag)) == []


def test_several_recordings_in_a_folder_must_be_named():
    with pytest.raises(BagError, match=r"holds 3 recordings; name one of only_services\.mcap"):
        summary(BAGS / "rosbag2_cpp_mcap")


@pytest.mark.parametrize("name", ["gps_nav_bag", "rosbag2_cpp_mcap"])
def test_truncated_copies_are_refused_with_a_count(name, tmp_path):
    source = next(f for f in sorted((BAGS / name).iterdir()) if f.suffix in (".db3", ".mcap"))
    copy = tmp_path / source.name
    data = source.read_bytes()
    copy.write_bytes(data[: len(data) * 7 // 10])
    with pytest.raises(BagError, match=r"damaged .*(messages on \d+ topics are whole|no message can be recovered)"):
        summary(copy)
