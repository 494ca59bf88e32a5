"""Quality of service between bags and the wire: what was recorded, what is offered, what matches."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosReliability

from wm_ros.data.bags import BagTopic, qos_of
from wm_ros.topics import INPUTS, OUTPUTS, Topic

DEPTH = 10
LATCHED_DEPTH = 100
"""Several publishers latch on one topic (`/tf_static`), and one player speaks for them all."""

TABLE: dict[str, Topic] = {t.name: t for topics in (*INPUTS.values(), *OUTPUTS.values()) for t in topics}


def message_class(type_name: str) -> Any | None:
    """The class of a message type, or None where its package is not installed."""
    package, kind, name = (*type_name.split("/"), "", "")[:3]
    if kind != "msg":
        return None
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


def player_profile(topic: BagTopic) -> QoSProfile:
    """How a recorded topic is offered: as its publishers did; where that was not recorded, as our table says.

    A reliable publisher also serves best-effort subscribers, and a latched one volatile ones, so where several
    publishers differed the stronger promise is taken.
    """
    known = TABLE.get(topic.name.strip("/"))
    recorded = topic.qos or (qos_of(known.quality if known else "reliable"),)
    best_effort = all(q.reliability is QosReliability.BEST_EFFORT for q in recorded)
    latched = any(q.durability is QosDurability.TRANSIENT_LOCAL for q in recorded)
    # The depth for a player that starts in the middle: it sends all that was latched before at once.
    depth = LATCHED_DEPTH if latched else max([DEPTH, *(min(q.depth, LATCHED_DEPTH) for q in recorded)])
    return _profile(depth, best_effort, latched)


def recorder_profile(offered: Iterable[QoSProfile], known: Topic | None) -> QoSProfile:
    """A request that every publisher on a topic can meet; where there is none yet, that of our table."""
    profiles = list(offered)
    if profiles:
        best_effort = any(p.reliability == ReliabilityPolicy.BEST_EFFORT for p in profiles)
        latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
    else:
        best_effort = known is not None and known.quality == "sensor"
        latched = known is not None and known.quality == "latched"
    return _profile(LATCHED_DEPTH, best_effort, latched)


def recorded_profile(offered: Iterable[QoSProfile], known: Topic | None) -> list[Qos]:
    """What a bag notes of the publishers on a topic, once for each different offer."""
    found: list[Qos] = []
    for profile in offered:
        best_effort = profile.reliability == ReliabilityPolicy.BEST_EFFORT
        latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        qos = qos_of("latched" if latched else "sensor" if best_effort else "reliable")
        if qos not in found:
            found.append(qos)
    return found or [qos_of(known.quality if known else "reliable")]


def _profile(depth: int, best_effort: bool, latched: bool) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
