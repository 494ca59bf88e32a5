"""`wm play`: a bag on the wire, byte for byte, with the spacing of its stamps and `/clock`."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from wm_ros.data.bags import NANO, BagSummary, BagTopic, read_messages, summary
from wm_ros.errors import BagError, UserError
from wm_ros.messages import encode_clock
from wm_ros.nodes.bag_qos import LATCHED_DEPTH, message_class, player_profile
from wm_ros.nodes.read_ahead import Raw, ReadAhead
from wm_ros.nodes.reports import PlayReport
from wm_ros.nodes.stopping import stop_event

log = logging.getLogger(__name__)

CLOCK_PERIOD_S = 0.02
"""In gaps the clock ticks at 50 Hz of wall time: nodes with simulated time wake up in time."""
STEADY_S = 1.0
"""Discovery is taken as finished when no subscriber has come for so long."""
ACKNOWLEDGE_S = 2.0


def play(
    bag: Path,
    rate: float = 1.0,
    loop: bool = False,
    start_s: float = 0.0,
    topics: Sequence[str] | None = None,
    remap: dict[str, str] | None = None,
    wait_subscribers_s: float = 5.0,
    stop: threading.Event | None = None,
) -> PlayReport:
    """Publish a bag until its end (or for ever, with `loop`), Ctrl-C or `stop`.

    Args:
        rate: speed; 2 is twice as fast as recorded. start_s: begin so many seconds into the bag; what was latched
            before that is sent first all the same.
        topics: play only these. remap: bag topic → name to publish on.
        wait_subscribers_s: wait at most so long until those who listen are found (less if none comes any more).

    Raises:
        BagError: the bag is missing, damaged, empty, or has no such topic. UserError: rate or start out of range.
    """
    if not (rate > 0 and np.isfinite(rate)):
        raise UserError(f"rate {rate}: give a number above 0")
    content = summary(bag)
    duration_s = (content.end_ns - content.start_ns) / NANO
    if content.messages == 0:
        raise BagError(f"bag '{bag}': holds no message; record it again")
    if not 0 <= start_s <= duration_s:
        raise UserError(f"start {start_s:g}: the bag lasts {duration_s:.1f} s; give a number from 0 to that")
    if topics:
        next(read_messages(content.path, topics), None)  # refuses a topic that is not there
    report = PlayReport(content.path, rate)
    context = Context()
    with stop_event(stop) as stopped:
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        try:
            player = _Player(content, context, report, stopped, topics or None, remap or {})
            player.wait_for_subscribers(wait_subscribers_s, content.start_ns + round(start_s * NANO))
            while not stopped.is_set():
                report.rounds += 1
                player.once(start_s)
                if not loop:
                    break
            player.finish()
        finally:
            rclpy.shutdown(context=context)
    return report


class _Player:
    """The node, its publishers and the schedule."""

    def __init__(
        self,
        content: BagSummary,
        context: Context,
        report: PlayReport,
        stopped: threading.Event,
        topics: Sequence[str] | None,
        remap: dict[str, str],
    ) -> None:
        self._content, self._report, self._stopped = content, report, stopped
        self._node = rclpy.create_node(
            "player", context=context, start_parameter_services=False, enable_rosout=False, enable_logger_service=False
        )
        wanted = None if topics is None else {name.strip("/") for name in topics}
        there = [t for t in content.topics if t.count and (wanted is None or t.name.strip("/") in wanted)]
        self._publishers: dict[str, Any] = {}
        self._latched: list[str] = []
        names = {theirs.strip("/"): ours for theirs, ours in remap.items()}
        for topic in there:
            self._offer(topic, names.get(topic.name.strip("/"), topic.name))
        if not self._publishers:
            raise BagError(f"bag '{content.path}': nothing to play; none of its message types is installed")
        clock = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.VOLATILE,
        )
        self._clock = self._node.create_publisher(message_class("rosgraph_msgs/msg/Clock"), "/clock", clock)
        self._clock_ns = -1

    def _offer(self, topic: BagTopic, name: str) -> None:
        kind = message_class(topic.type)
        if topic.name == "/clock":
            self._report.skipped[topic.name] = "the player gives /clock itself"
        elif kind is None:
            self._report.skipped[topic.name] = f"type {topic.type} is not installed"
            log.warning("topic %s: type %s is not installed; it is left out", topic.name, topic.type)
        else:
            profile = player_profile(topic)
            self._publishers[topic.name] = self._node.create_publisher(kind, name, profile)
            if profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
                self._latched.append(topic.name)

    def wait_for_subscribers(self, timeout_s: float, clock_ns: int) -> None:
        """Wait until no subscriber has come for a while; the clock stands at the start meanwhile."""
        end_s = time.perf_counter() + timeout_s
        found, since_s = -1, time.perf_counter()
        while time.perf_counter() < end_s and not self._stopped.is_set():
            self._tick(clock_ns, force=True)
            now = sum(p.get_subscription_count() for p in (*self._publishers.values(), self._clock))
            if now != found:
                found, since_s = now, time.perf_counter()
            elif now and time.perf_counter() - since_s >= STEADY_S:
                return
            self._stopped.wait(CLOCK_PERIOD_S)

    def once(self, start_s: float) -> None:
        """Play from `start_s` to the end."""
        names = list(self._publishers)
        self._clock_ns = -1
        first_ns = self._content.start_ns + round(start_s * NANO)
        for name, _, _, cdr in self._latched_before(first_ns):
            self._tick(first_ns)
            self._publish(name, cdr)
            self._report.latched_first += 1
        with ReadAhead(read_messages(self._content.path, names, start_s)) as messages:
            messages.wait_filled(1.0)
            zero_s = time.perf_counter()
            for name, _, t_ns, cdr in messages:
                due_s = zero_s + (t_ns - first_ns) / NANO / self._report.rate
                if not self._wait_until(due_s, t_ns):
                    break
                self._tick(t_ns)
                self._report.lateness_ms.append(max(0.0, time.perf_counter() - due_s) * 1e3)
                self._publish(name, cdr)
            self._report.wall_s += time.perf_counter() - zero_s

    def finish(self) -> None:
        """Let reliable subscribers take what is on the way, then leave."""
        self._report.interrupted = self._stopped.is_set()
        end_s = time.perf_counter() + ACKNOWLEDGE_S
        for publisher in self._publishers.values():
            left_s = end_s - time.perf_counter()
            if publisher.get_subscription_count() and left_s > 0:
                publisher.wait_for_all_acked(Duration(seconds=left_s))
        self._node.destroy_node()

    def _latched_before(self, first_ns: int) -> Iterator[Raw]:
        """What a subscriber who had been there would still hold at `first_ns`, in the order of recording."""
        if first_ns <= self._content.start_ns or not self._latched:
            return
        kept: dict[str, deque[tuple[int, Raw]]] = {name: deque(maxlen=LATCHED_DEPTH) for name in self._latched}
        for number, message in enumerate(read_messages(self._content.path, self._latched)):
            if message[2] >= first_ns:
                break
            kept[message[0]].append((number, message))
        for _, message in sorted((entry for entries in kept.values() for entry in entries), key=lambda e: e[0]):
            yield message

    def _wait_until(self, due_s: float, due_ns: int) -> bool:
        """Sleep until `due_s`, ticking the clock in long gaps up to `due_ns`; False if it is time to stop."""
        while not self._stopped.is_set():
            left_s = due_s - time.perf_counter()
            if left_s <= 0:
                return True
            if left_s <= CLOCK_PERIOD_S:
                self._stopped.wait(left_s)
                continue
            self._stopped.wait(CLOCK_PERIOD_S)
            ahead_s = max(0.0, due_s - time.perf_counter())
            self._tick(due_ns - round(ahead_s * self._report.rate * NANO))
        return False

    def _tick(self, stamp_ns: int, force: bool = False) -> None:
        """Publish `/clock` unless it says so already; it never goes back within a round."""
        if stamp_ns > self._clock_ns or force:
            self._clock_ns = stamp_ns
            self._clock.publish(encode_clock(stamp_ns))
            self._report.clock_ticks += 1

    def _publish(self, name: str, cdr: bytes) -> None:
        self._publishers[name].publish(bytes(cdr))
        self._report.published[name] += 1
