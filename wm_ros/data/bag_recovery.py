"""What is whole in a damaged recording: an MCAP that ends too early, a database with a torn page.

`wm convert recover BAG NEW_BAG` copies it to a new one.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import zstandard
from mcap.exceptions import McapError
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader

from wm_ros.data.bag_storage import DAMAGE, locate, storage_files
from wm_ros.errors import BagError

RECORD_LIMIT = 256 * 2**20
WINDOW = 512
"""Messages held back to put those of neighbouring chunks in order of time."""

_TORN = (*DAMAGE, McapError, zstandard.ZstdError)

Raw = tuple[str, str, int, bytes]


@dataclass
class Salvage:
    """What a pass over a damaged bag found: topic → (type, count), first and last stamp, and why it ended early."""

    topics: dict[str, tuple[str, int]] = field(default_factory=dict)
    first_ns: int = 0
    last_ns: int = 0
    reason: str = ""

    @property
    def messages(self) -> int:
        """Number of messages that are whole."""
        return sum(count for _, count in self.topics.values())


def salvage(bag: Path) -> Salvage:
    """Count what is whole."""
    found, counts = Salvage(), Counter[str]()
    types: dict[str, str] = {}
    stamps: list[int] = []
    for topic, kind, t_ns, _ in whole_messages(bag, found):
        counts[topic] += 1
        types[topic] = kind
        stamps = [min([t_ns, *stamps[:1]]), max([t_ns, *stamps[1:]])]
    found.topics = {topic: (types[topic], counts[topic]) for topic in sorted(counts)}
    found.first_ns, found.last_ns = stamps or (0, 0)
    return found


def whole_messages(bag: Path, into: Salvage | None = None) -> Iterator[Raw]:
    """(topic, type, t_ns, cdr) of every message that can still be read, in order of time within a window."""
    notes = into or Salvage()
    for file in storage_files(bag):
        raw = _from_mcap(file, notes) if file.suffix == ".mcap" else _from_sqlite(file, notes)
        yield from _ordered(raw)


def recover_bag(path: Path, out: Path) -> int:
    """Copy what is whole to the new bag `out`; returns the number of messages. Raises BagError if there is none."""
    from wm_ros.data.bag_writer import BagWriter

    bag = locate(path)
    if salvage(bag).messages == 0:
        raise BagError(f"bag '{bag}': nothing in it can be recovered")
    count = 0
    with BagWriter(out) as writer:
        for topic, kind, t_ns, cdr in whole_messages(bag):
            if writer.knows(kind):
                writer.write((topic, kind), t_ns, cdr)
                count += 1
    return count


def _from_mcap(file: Path, notes: Salvage) -> Iterator[Raw]:
    """Record by record from the start, without the index at the end."""
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    try:
        with file.open("rb") as stream:
            for record in StreamReader(stream, record_size_limit=RECORD_LIMIT).records:
                if isinstance(record, Schema):
                    schemas[record.id] = record.name
                elif isinstance(record, Channel):
                    channels[record.id] = (record.topic, schemas.get(record.schema_id, ""))
                elif isinstance(record, Message) and record.channel_id in channels:
                    yield (*channels[record.channel_id], record.log_time, record.data)
    except _TORN as error:
        notes.reason = str(error) or type(error).__name__


class _WholePages(apsw.VFS):
    """A file system on which a page beyond the end is an error: SQLite's own gives zeros, and what is torn looks whole.

    Attributes:
        name: under which SQLite knows it.
    """

    def __init__(self) -> None:
        self.name = f"wm_ros_whole_pages_{id(self)}"
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _WholeFile("", name, flags)


class _WholeFile(apsw.VFSFile):
    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        if offset + amount > self.xFileSize():
            raise apsw.IOError("the file ends here")
        return super().xRead(amount, offset)


def _from_sqlite(file: Path, notes: Salvage) -> Iterator[Raw]:
    """Row by row in the order of writing; a page that is torn or missing ends it."""
    files = _WholePages()
    address = f"file:{quote(str(file))}?immutable=1"
    try:
        with closing(
            apsw.Connection(address, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, files.name)
        ) as database:
            database.execute("PRAGMA writable_schema=ON")  # else SQLite refuses a file shorter than its header says
            topics = {
                number: (name, kind) for number, name, kind in database.execute("SELECT id, name, type FROM topics")
            }
            for number, t_ns, data in database.execute("SELECT topic_id, timestamp, data FROM messages NOT INDEXED"):
                if number in topics and isinstance(t_ns, int) and isinstance(data, bytes):
                    yield (*topics[number], t_ns, data)
    except _TORN as error:
        notes.reason = str(error) or type(error).__name__
    finally:
        files.unregister()


def _ordered(raw: Iterable[Raw]) -> Iterator[Raw]:
    heap: list[tuple[int, int, Raw]] = []
    for number, message in enumerate(raw):
        heapq.heappush(heap, (message[2], number, message))
        if len(heap) > WINDOW:
            yield heapq.heappop(heap)[2]
    while heap:
        yield heapq.heappop(heap)[2]
