"""Writing rosbag2: MCAP with zstd chunks, or sqlite3. The same messages give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from wm_ros.errors import BagError
from wm_ros.messages import TYPESTORE, encode_sample
from wm_ros.topics import Quality, Topic
from wm_ros.types import Sample

Storage = Literal["mcap", "sqlite3"]
VERSION: Literal[8] = 8
"""Newest metadata that rosbag2 of Humble reads too: version 9 made the QoS profiles a list, which it cannot parse."""
_FOREVER = QosTime(9223372036, 854775807)
_DEPTH: dict[Quality, int] = {"sensor": 5, "reliable": 10, "latched": 1}


def qos_of(quality: Quality) -> Qos:
    """The profile that a bag records for a word of `wm_ros.topics`."""
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=_DEPTH[quality],
        reliability=QosReliability.BEST_EFFORT if quality == "sensor" else QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if quality == "latched" else QosDurability.VOLATILE,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )


class BagWriter:
    """A new bag; a context manager. Nothing that exists is overwritten.

    Args:
        path: folder of the bag, missing or empty.
        storage: "mcap" or "sqlite3". compression: zstd chunks (MCAP only; sqlite3 is written plain).
        licence: of the data; travels in the bag's metadata.
    """

    def __init__(self, path: Path, storage: Storage = "mcap", compression: bool = True, licence: str = "") -> None:
        path = Path(path)
        if storage not in ("mcap", "sqlite3"):
            raise BagError(f"storage '{storage}' is unknown: choose mcap or sqlite3")
        if path.suffix in (".mcap", ".db3"):
            raise BagError(f"bag '{path}': a bag is a folder; leave out '{path.suffix}'")
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise BagError(f"bag '{path}': exists and is not empty; give another name or remove it")
        self.path = path
        self._compressed = compression and storage == "mcap"
        self._plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._licence = licence
        self._writer: Writer | None = None
        self._connections: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> BagWriter:
        try:
            if self.path.is_dir():
                self.path.rmdir()  # empty, as checked; the library wants to make it
            writer = Writer(self.path, version=VERSION, storage_plugin=self._plugin)
            if self._compressed:
                writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            if self._licence:
                writer.set_custom_data("licence", self._licence)
            writer.open()
        except OSError as error:
            raise BagError(f"bag '{self.path}': cannot be made ({error.strerror}); choose another folder") from None
        self._writer = writer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._writer is not None
        self._writer.__exit__(kind, error, trace)
        self._writer = None

    @staticmethod
    def knows(type_name: str) -> bool:
        """True where the definition of a type is known, so that it can be written."""
        return type_name in TYPESTORE.types

    def add_topic(self, topic: Topic | tuple[str, str], qos: Iterable[Qos] | None = None) -> None:
        """Announce a topic, with the profiles its publishers offered (by default those of the table)."""
        name, kind = (topic.name, topic.type) if isinstance(topic, Topic) else topic
        assert self._writer is not None, "use the writer as a context manager"
        if (name, kind) in self._connections:
            return
        if not self.knows(kind):
            raise BagError(f"topic '{name}': the definition of type '{kind}' is unknown; leave this topic out")
        if qos is None:
            qos = [qos_of(topic.quality if isinstance(topic, Topic) else "reliable")]
        self._connections[name, kind] = self._writer.add_connection(
            "/" + name.lstrip("/"), kind, typestore=TYPESTORE, offered_qos_profiles=list(qos)
        )

    def write(self, topic: Topic | tuple[str, str], t_ns: int, cdr: bytes | memoryview) -> None:
        """Write one message, received at `t_ns`, on a topic of the table or a (name, type)."""
        key = (topic.name, topic.type) if isinstance(topic, Topic) else topic
        if key not in self._connections:
            self.add_topic(topic)
        assert self._writer is not None
        self._writer.write(self._connections[key], t_ns, cdr)


def write_bag(
    path: Path, samples: Iterable[Sample], storage: Storage = "mcap", compression: bool = True, licence: str = ""
) -> int:
    """Write samples, each at its own stamp, to the new bag `path`; returns the number of messages."""
    count = 0
    with BagWriter(path, storage, compression, licence) as writer:
        for sample in samples:
            for topic, cdr in encode_sample(sample):
                writer.write(topic, sample.stamp_ns, cdr)
                count += 1
    return count
