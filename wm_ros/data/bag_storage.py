"""Opening rosbag2 recordings: what is in them, and one clear line for everything that can be wrong with a file."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
from backports import zstd
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError

from wm_ros.errors import BagError

STORAGE = (".mcap", ".db3")

DAMAGE = (
    ReaderError,
    apsw.Error,
    zstd.ZstdError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    RuntimeError,
)
"""What the storage libraries raise on bytes that are not what they should be."""


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag: name, type, number of messages, and what its publishers offered (empty: not recorded)."""

    name: str
    type: str
    count: int
    qos: tuple[Qos, ...] = ()

    @property
    def latched(self) -> bool:
        """True where a publisher kept its last messages for those who come late (transient local)."""
        return any(q.durability.name == "TRANSIENT_LOCAL" for q in self.qos)


@dataclass(frozen=True)
class BagSummary:
    """What the index of a bag says. `custom` holds the words that a writer added, such as `licence`."""

    path: Path
    storage: str
    start_ns: int
    end_ns: int
    topics: tuple[BagTopic, ...]
    custom: dict[str, str]

    @property
    def messages(self) -> int:
        """Number of messages in all topics."""
        return sum(t.count for t in self.topics)


def find_bags(path: Path) -> list[Path]:
    """The bags at or below `path`, sorted: folders with metadata.yaml, and .mcap or .db3 files outside of those.

    Raises:
        BagError: there is no such path.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f"bag '{path}': no such file or folder; check the path")
    if path.is_file():
        return [path] if path.suffix in STORAGE else []
    if (path / "metadata.yaml").is_file():
        return [path]
    found: list[Path] = []
    for child in sorted(path.iterdir()):
        if child.is_dir() or child.suffix in STORAGE:
            found += find_bags(child)
    return found


def locate(path: Path) -> Path:
    """The one bag that `path` means. Raises BagError where there is none, or more than one."""
    path = Path(path)
    if path.name == "metadata.yaml":
        path = path.parent
    bags = find_bags(path)
    if not bags:
        raise BagError(f"bag '{path}': holds no recording; give a folder with metadata.yaml, or an .mcap or .db3 file")
    if len(bags) > 1:
        names = ", ".join(str(b.relative_to(path)) for b in bags[:5])
        raise BagError(f"bag '{path}': holds {len(bags)} recordings; name one of {names}")
    return bags[0]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A `rosbags` reader. Raises BagError with the number of whole messages where the index cannot be read."""
    bag = locate(path)
    reader = None
    try:
        reader = Reader(bag)
        reader.open()
    except PermissionError:
        raise BagError(f"bag '{bag}': may not be read; check its permissions") from None
    except DAMAGE as error:
        raise damaged(bag, error) from None
    try:
        yield reader
    finally:
        reader.close()


def damaged(bag: Path, error: BaseException) -> BagError:
    """The error of a bag that does not read, saying what is whole and how to get it."""
    from wm_ros.data.bag_recovery import salvage

    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if not any(True for _ in storage_files(bag)):
        return BagError(f"bag '{bag}': {reason}; its storage files are missing, copy them back")
    whole = salvage(bag)
    if whole.messages == 0:
        return BagError(f"bag '{bag}': damaged ({reason}); no message can be recovered, record it again")
    return BagError(
        f"bag '{bag}': damaged ({reason}); {whole.messages} messages on {len(whole.topics)} topics are whole, "
        f"copy them with `wm convert recover {bag} NEW_BAG`"
    )


def storage_files(bag: Path) -> list[Path]:
    """The .mcap or .db3 files of a bag, in order of their names."""
    if bag.is_file():
        return [bag]
    return sorted((p for p in bag.iterdir() if p.suffix in STORAGE), key=lambda p: (len(p.name), p.name))


def summary(path: Path) -> BagSummary:
    """What is in a bag, from its index. Raises BagError."""
    with opened(path) as reader:
        topics = [
            BagTopic(c.topic, c.msgtype, c.msgcount, tuple(c.ext.offered_qos_profiles)) for c in reader.connections
        ]
        empty = reader.message_count == 0
        return BagSummary(
            path=Path(reader.path),
            storage=storage_files(Path(reader.path))[0].suffix.removeprefix(".").replace("db3", "sqlite3"),
            start_ns=0 if empty else reader.start_time,
            end_ns=0 if empty else reader.end_time - 1,
            topics=tuple(sorted(topics, key=lambda t: t.name)),
            custom=dict(reader.storage.metadata.custom or {}),
        )


def chosen(path: Path, connections: Sequence[Connection], topics: Sequence[str] | None) -> list[Connection]:
    """The connections of the topics asked for (with or without the first slash). Raises BagError for an unknown one."""
    if topics is None:
        return list(connections)
    wanted = {name.strip("/") for name in topics}
    there = {c.topic.strip("/") for c in connections}
    if missing := sorted(wanted - there):
        raise BagError(f"bag '{path}': has no topic '{missing[0]}'; it has {', '.join(sorted(there)) or 'none'}")
    return [c for c in connections if c.topic.strip("/") in wanted]
