"""Quality of service of each topic, from the word in `wm_ros.topics` (REP 2003)."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from wm_ros import types
from wm_ros.topics import Topic

# Fast, small and needed without gaps between two triggers; everything else is bounded more tightly.
FAST_INPUTS = (types.EgoPose, types.Joints, types.JointCommand)
FAST_DEPTH = 50
DEPTH = 10


def subscription_qos(topic: Topic, trigger: bool) -> QoSProfile:
    """Best effort for sensors (matches every publisher); a trigger keeps the newest message only."""
    depth = 1 if trigger or topic.quality == "latched" else FAST_DEPTH if topic.sample in FAST_INPUTS else DEPTH
    return _profile(topic, depth)


def publisher_qos(topic: Topic) -> QoSProfile:
    """Reliable and volatile for what we say; latched where the table says so."""
    return _profile(topic, 1 if topic.quality == "latched" else DEPTH)


def _profile(topic: Topic, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if topic.quality == "sensor" else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.quality == "latched" else DurabilityPolicy.VOLATILE,
    )
