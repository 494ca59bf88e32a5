"""Bags: rosbag2 recordings (sqlite3, MCAP) as messages or samples in time order, with bounded memory.

The parts: `bag_storage` opens and lists, `bag_topics` says what is what, `bag_recovery` reads what is whole in a
damaged bag, `bag_writer` writes. Everything that others need is named here.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wm_ros import types
from wm_ros.data.bag_recovery import recover_bag, salvage, whole_messages
from wm_ros.data.bag_storage import DAMAGE, BagSummary, BagTopic, chosen, damaged, find_bags, locate, opened, summary
from wm_ros.data.bag_topics import match_topics
from wm_ros.data.bag_writer import BagWriter, qos_of, write_bag
from wm_ros.data.sources import Episode
from wm_ros.errors import MessageError
from wm_ros.messages import decode
from wm_ros.topics import Topic
from wm_ros.types import Sample

__all__ = [
    "BagSummary",
    "BagTopic",
    "BagWriter",
    "bag_episode",
    "find_bags",
    "match_topics",
    "qos_of",
    "read_messages",
    "read_samples",
    "recover_bag",
    "salvage",
    "summary",
    "write_bag",
]

log = logging.getLogger(__name__)

NANO = 1_000_000_000
REORDER_S = 0.5
REORDER_MAX = 512
LICENCE_UNKNOWN = "not stated"

Raw = tuple[str, str, int, bytes]

# At equal stamps: what a trigger needs comes before the trigger.
_FIRST: tuple[type[Sample], ...] = (
    types.EpisodeMark,
    types.EgoPose,
    types.Joints,
    types.JointCommand,
    types.Instruction,
)
_LAST: tuple[type[Sample], ...] = (types.Sweep, types.Frame)


def read_messages(
    path: Path, topics: Sequence[str] | None = None, start_s: float = 0.0, recover: bool = False
) -> Iterator[Raw]:
    """Messages as recorded: (topic, type, t_ns, cdr) in time order.

    Args:
        topics: names to read, with or without the first slash; None for all.
        start_s: leave out what was recorded in the first `start_s` seconds.
        recover: read what is whole of a damaged bag instead of refusing it.

    Raises:
        BagError: the bag is missing or damaged, or has no such topic.
    """
    if recover:
        yield from _recovered(Path(path), topics, start_s)
        return
    with opened(path) as reader:
        connections = chosen(path, reader.connections, topics)
        start = reader.start_time + round(start_s * NANO) if start_s > 0 else None
        messages = reader.messages(connections, start) if connections else iter(())
        while True:
            try:
                connection, t_ns, cdr = next(messages)
            except StopIteration:
                return
            except DAMAGE as error:
                raise damaged(locate(path), error) from None
            yield connection.topic, connection.msgtype, t_ns, cdr


def _recovered(path: Path, topics: Sequence[str] | None, start_s: float) -> Iterator[Raw]:
    wanted = None if topics is None else {name.strip("/") for name in topics}
    first = None
    for topic, kind, t_ns, cdr in whole_messages(locate(path)):
        first = t_ns if first is None else first
        if (wanted is None or topic.strip("/") in wanted) and t_ns >= first + round(start_s * NANO):
            yield topic, kind, t_ns, cdr


def read_samples(path: Path, topics: dict[str, str] | None = None, recover: bool = False) -> Iterator[Sample]:
    """Samples in the order of their stamps; at equal stamps what a trigger needs comes before it.

    Messages are recorded when they arrive, which is later than they were measured and not equally so: each sample is
    held back for `REORDER_S` of recording. One that arrives later still comes out late.

    Topics that this stack does not read are passed over. A malformed message is left out; how many there were on each
    topic is logged at the end.

    Args:
        topics: remapping, bag topic → name in `wm_ros.topics`; see `match_topics`.

    Raises:
        BagError: the bag is missing or damaged, or the remapping does not fit.
    """
    if recover:
        there = {name: kind for name, (kind, _) in salvage(locate(path)).topics.items()}
    else:
        there = {t.name: t.type for t in summary(path).topics}
    matched = match_topics(there, topics)
    refused: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    messages = read_messages(path, list(matched), recover=recover) if matched else iter(())
    held = Held()
    for name, kind, t_ns, cdr in messages:
        topic: Topic = matched[name]
        try:
            sample = decode(kind, cdr, t_ns, topic.sample, topic.name)
        except MessageError as error:
            refused[name] += 1
            reasons.setdefault(name, str(error))
            continue
        yield from held.add(sample, t_ns)
    yield from held.all()
    for name, count in sorted(refused.items()):
        log.warning("bag '%s': %d malformed messages on %s left out (%s)", path, count, name, reasons[name])


def bag_episode(path: Path) -> Episode:
    """A bag as one episode; its licence is the one that the writer stated."""
    bag = locate(path)
    licence = summary(bag).custom.get("licence", LICENCE_UNKNOWN)
    samples: Callable[[], Iterator[Sample]] = lambda: read_samples(bag)  # noqa: E731
    return Episode(bag.stem if bag.is_file() else bag.name, licence, samples)


class Held:
    """Samples that wait for earlier ones; bounded in time and number."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, int, Sample]] = []  # stamp, rank, number, time of arrival, sample
        self._number = 0
        self._newest: dict[type[Sample], int] = {}

    def add(self, sample: Sample, arrival_ns: int) -> Iterator[Sample]:
        """Take a sample; gives those whose wait is over, in order."""
        window = round(REORDER_S * NANO)
        if sample.stamp_ns < self._newest.get(type(sample), 0) - window:  # the clock jumped back: a new beginning
            yield from self.all()
        self._newest[type(sample)] = sample.stamp_ns
        heapq.heappush(self._heap, (sample.stamp_ns, _rank(sample), self._number, arrival_ns, sample))
        self._number += 1
        while self._heap and (len(self._heap) > REORDER_MAX or self._heap[0][3] <= arrival_ns - window):
            yield heapq.heappop(self._heap)[-1]

    def all(self) -> Iterator[Sample]:
        """Give all that wait, in order."""
        while self._heap:
            yield heapq.heappop(self._heap)[-1]


def _rank(sample: Sample) -> int:
    kind = type(sample)
    if kind in _FIRST:
        return _FIRST.index(kind)
    return len(_FIRST) + (1 + _LAST.index(kind) if kind in _LAST else 0)
