"""What a bag says of its publishers becomes an offer that everybody can take, and the other way round."""

from __future__ import annotations

import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import QosDurability, QosHistory, QosReliability

from wm_ros import topics
from wm_ros.data.bags import BagTopic, qos_of
from wm_ros.nodes.bag_qos import (
    LATCHED_DEPTH,
    message_class,
    player_profile,
    recorded_profile,
    recorder_profile,
)

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, LATCHED = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL


def offered(reliability, durability):
    return QoSProfile(depth=5, reliability=reliability, durability=durability)


def recorded(*qualities):
    return tuple(qos_of(q) for q in qualities)


@pytest.mark.parametrize(
    ("name", "qos", "reliability", "durability"),
    [
        ("/scan", recorded("sensor"), BEST_EFFORT, VOLATILE),
        ("/scan", recorded("sensor", "reliable"), RELIABLE, VOLATILE),
        ("/tf_static", recorded("latched", "latched"), RELIABLE, LATCHED),
        ("/map", recorded("reliable", "latched"), RELIABLE, LATCHED),
        ("/points", (), BEST_EFFORT, VOLATILE),  # not recorded: as the table of topics says
        ("/instruction", (), RELIABLE, LATCHED),
        ("/chatter", (), RELIABLE, VOLATILE),
    ],
)
def test_a_topic_is_offered_as_its_publishers_did(name, qos, reliability, durability):
    profile = player_profile(BagTopic(name, "std_msgs/msg/String", 3, qos))
    assert (profile.reliability, profile.durability) == (reliability, durability)
    assert profile.depth == LATCHED_DEPTH if durability is LATCHED else profile.depth >= 10


def test_a_profile_of_an_old_bag_without_history_has_a_depth():
    unknown = qos_of("reliable")._replace(history=QosHistory.UNKNOWN, depth=0)
    assert player_profile(BagTopic("/gps", "sensor_msgs/msg/NavSatFix", 1, (unknown,))).depth == 10


@pytest.mark.parametrize(
    ("offers", "reliability", "durability"),
    [
        ([(RELIABLE, VOLATILE)], RELIABLE, VOLATILE),
        ([(RELIABLE, VOLATILE), (BEST_EFFORT, VOLATILE)], BEST_EFFORT, VOLATILE),
        ([(RELIABLE, LATCHED)], RELIABLE, LATCHED),
        ([(RELIABLE, LATCHED), (RELIABLE, VOLATILE)], RELIABLE, VOLATILE),
    ],
)
def test_a_recorder_asks_for_no_more_than_everybody_gives(offers, reliability, durability):
    profile = recorder_profile([offered(*o) for o in offers], None)
    assert (profile.reliability, profile.durability) == (reliability, durability)


def test_before_anybody_publishes_the_table_decides():
    assert recorder_profile([], topics.POINTS).reliability == BEST_EFFORT
    assert recorder_profile([], topics.INSTRUCTION).durability == LATCHED
    assert recorder_profile([], None).reliability == RELIABLE


def test_what_was_offered_is_noted_once_each():
    notes = recorded_profile([offered(BEST_EFFORT, VOLATILE)] * 2 + [offered(RELIABLE, LATCHED)], None)
    assert [(q.reliability, q.durability) for q in notes] == [
        (QosReliability.BEST_EFFORT, QosDurability.VOLATILE),
        (QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL),
    ]


def test_types_that_are_not_installed_have_no_class():
    assert message_class("nav_msgs/msg/Path") is not None
    for missing in ("velodyne_msgs/msg/VelodyneScan", "nav_msgs/msg/Nothing", "std_srvs/srv/Trigger", "rubbish"):
        assert message_class(missing) is None
