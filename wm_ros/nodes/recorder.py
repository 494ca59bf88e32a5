"""`wm record`: topics to a new bag, with how old each message was when it came."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

from wm_ros import topics as table
from wm_ros.messages import decode_clock, header_stamp
from wm_ros.nodes.bag_qos import TABLE, message_class, recorded_profile, recorder_profile
from wm_ros.nodes.bag_sink import BagSink
from wm_ros.nodes.reports import RecordReport, TopicRecord
from wm_ros.nodes.sim_clock import SimClock
from wm_ros.nodes.stopping import stop_event
from wm_ros.topics import Topic

log = logging.getLogger(__name__)

DISCOVERY_S = 0.2
POLL_S = 0.05
WAITING = 1000
"""Messages held while it is not yet clear which clock is in use."""

# Said by nodes that have no data yet: these do not tell which clock is in use.
BACKGROUND = ("/diagnostics", "/rosout", "/parameter_events", "/transition_event", "/surprise")
CLOCK = Topic("/clock", "rosgraph_msgs/msg/Clock")
NOT_RECORDED = ("/clock", "/rosout", "/parameter_events")


def record(
    out: Path,
    topics: Sequence[str] | None = None,
    seconds: float | None = None,
    stop: threading.Event | None = None,
    use_sim_time: bool | None = None,
    ready: threading.Event | None = None,
) -> RecordReport:
    """Record until `seconds` have passed, Ctrl-C, SIGTERM or `stop`; the bag is then complete.

    Args:
        out: folder of the new bag. topics: names; None for every topic that is found (lazy ones are then computed).
        use_sim_time: stamp messages with `/clock`; None: if somebody publishes it when the first message comes.
        ready: set as soon as the subscriptions to the topics of this stack, or to those chosen, are made.

    Raises:
        BagError: `out` exists and is not empty, cannot be made, or could not be written to.
    """
    context = Context()
    with BagSink(out) as sink, stop_event(stop) as stopped:
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        try:
            recorder = Recorder(context, sink, topics or None, use_sim_time)
            if ready is not None:
                ready.set()
            began_s = time.monotonic()
            while not stopped.is_set() and not sink.failed.is_set():
                if seconds is not None and time.monotonic() - began_s >= seconds:
                    break
                recorder.spin(POLL_S)
            recorder.finish()
        finally:
            rclpy.shutdown(context=context)
        took_s = time.monotonic() - began_s
    return RecordReport(Path(out), took_s, recorder.sim_time is True, recorder.records)


class Recorder:
    """The node: raw subscriptions, found and adapted to their publishers while it runs."""

    def __init__(
        self, context: Context, sink: BagSink, topics: Sequence[str] | None, use_sim_time: bool | None = None
    ) -> None:
        self.records: dict[str, TopicRecord] = {}
        self.sim_time = use_sim_time
        self._sink = sink
        self._clock = SimClock()
        self._waiting: deque[tuple[str, int, bytes]] = deque()
        self._wanted = None if topics is None else {"/" + name.strip("/") for name in topics}
        self._subscriptions: dict[str, tuple[Subscription, QoSProfile]] = {}
        self._types: dict[str, str] = {}
        self._refused: set[str] = set()
        self._node = rclpy.create_node(
            "recorder",
            context=context,
            start_parameter_services=False,
            enable_rosout=False,
            enable_logger_service=False,
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        newest = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.VOLATILE,
        )
        self._listen(message_class(CLOCK.type), CLOCK.name, self._on_clock, newest)
        # Those that we know are subscribed to before anybody publishes, so that not even the first message is missed.
        for topic in (*TABLE.values(), table.DIAGNOSTICS, CLOCK):
            name = "/" + topic.name.strip("/")
            if name in self._wanted if self._wanted is not None else name not in NOT_RECORDED:
                self._subscribe(name, topic.type)
        self._looked_s = float("-inf")

    def spin(self, timeout_s: float) -> None:
        """Take what has come; look for new topics now and then."""
        if time.monotonic() - self._looked_s >= DISCOVERY_S:
            self._discover()
            self._looked_s = time.monotonic()
        self._executor.spin_once(timeout_sec=timeout_s)

    def finish(self) -> None:
        """Write what still waits for a clock, with its own stamps, and leave."""
        if self._waiting and self.sim_time is None:
            self.sim_time = False
        self._flush(at_end=True)
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        for name, lost in self._sink.dropped.items():
            self.records[name].dropped += lost
            self.records[name].count -= lost
        self.records = {name: r for name, r in self.records.items() if r.count or r.dropped or r.lost}

    # ------------------------------------------------------------------------- topics

    def _discover(self) -> None:
        for name, types in self._node.get_topic_names_and_types():
            if self._wanted is None and name in NOT_RECORDED:
                continue
            if (self._wanted is None or name in self._wanted) and name not in self._refused:
                self._subscribe(name, types[0])

    def _subscribe(self, name: str, type_name: str) -> None:
        """Subscribe, or anew where the publishers offer less than was asked for."""
        offered = [info.qos_profile for info in self._node.get_publishers_info_by_topic(name)]
        profile = recorder_profile(offered, TABLE.get(name.strip("/")))
        if name in self._subscriptions:
            subscription, asked = self._subscriptions[name]
            weaker = (
                asked.reliability == ReliabilityPolicy.RELIABLE and profile.reliability != ReliabilityPolicy.RELIABLE
            ) or (asked.durability == DurabilityPolicy.TRANSIENT_LOCAL and profile.durability != asked.durability)
            if not weaker:
                return
            self._node.destroy_subscription(subscription)
        kind = message_class(type_name)
        if kind is None or not self._sink.knows(type_name):
            self._refused.add(name)
            log.warning("topic %s: type %s is not installed; it is not recorded", name, type_name)
            return
        self._types[name] = type_name
        self.records.setdefault(name, TopicRecord(type_name))
        self._subscriptions[name] = (self._create(kind, name, profile), profile)

    def _create(self, kind: Any, name: str, profile: QoSProfile) -> Subscription:
        def arrived(cdr: bytes, info: dict[str, int]) -> None:
            self._on_message(name, info.get("received_timestamp") or time.time_ns(), cdr)

        def lost(status: Any) -> None:
            self.records[name].lost = status.total_count

        return self._listen(kind, name, arrived, profile, SubscriptionEventCallbacks(message_lost=lost))

    def _listen(self, kind: Any, name: str, callback: Any, profile: QoSProfile, events: Any = None) -> Subscription:
        """A raw subscription whose callback takes the bytes and when they came."""
        try:
            return self._node.create_subscription(kind, name, callback, profile, raw=True, event_callbacks=events)
        except UnsupportedEventTypeError:
            return self._node.create_subscription(kind, name, callback, profile, raw=True)

    # ------------------------------------------------------------------------- messages

    def _on_clock(self, cdr: bytes, info: dict[str, int]) -> None:
        self._clock.tick(decode_clock(cdr), info.get("received_timestamp") or time.time_ns())
        self._flush()

    def _on_message(self, name: str, wall_ns: int, cdr: bytes) -> None:
        if self.sim_time is None and not name.endswith(BACKGROUND):
            self.sim_time = self._node.count_publishers(CLOCK.name) > 0
            self._flush()
        if len(self._waiting) == WAITING:
            self.records[self._waiting.popleft()[0]].dropped += 1
        self._waiting.append((name, wall_ns, cdr))
        self._flush()

    def _flush(self, at_end: bool = False) -> None:
        """Write what waits, as soon as the clock to stamp it with is known."""
        while self._waiting and self.sim_time is not None:
            name, wall_ns, cdr = self._waiting[0]
            stamp_ns = header_stamp(self._types[name], cdr)
            if self.sim_time:
                t_ns = self._clock.at(wall_ns)
                if t_ns is None and not at_end:
                    return
                t_ns = t_ns if t_ns is not None else stamp_ns or 0
            else:
                t_ns = wall_ns
            self._waiting.popleft()
            self._write(name, t_ns, stamp_ns, wall_ns, cdr)

    def _write(self, name: str, t_ns: int, stamp_ns: int | None, wall_ns: int, cdr: bytes) -> None:
        record = self.records[name]
        if record.count == 0:
            offered = [info.qos_profile for info in self._node.get_publishers_info_by_topic(name)]
            self._sink.announce(name, record.type, recorded_profile(offered, TABLE.get(name.strip("/"))))
        record.count += 1
        record.size_bytes += len(cdr)
        if stamp_ns:
            now_ns = self._clock.at(wall_ns)
            record.ages_ms.append(((now_ns if now_ns is not None else wall_ns) - stamp_ns) / 1e6)
        self._sink.put(name, record.type, t_ns, cdr)
