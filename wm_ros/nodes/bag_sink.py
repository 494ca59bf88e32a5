"""A bag that is written in a thread of its own, with a bounded queue before it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from rosbags.interfaces import Qos
from rosbags.rosbag2.errors import WriterError

from wm_ros.data.bags import BagWriter
from wm_ros.errors import BagError

MAX_BYTES = 256 * 2**20


class BagSink:
    """Takes messages without waiting for the disk; what does not fit in the queue is dropped and counted.

    A context manager: leaving it writes what is queued and closes the bag. An error of the disk sets `failed` and is
    raised on leaving.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.failed = threading.Event()
        self.dropped: Counter[str] = Counter()
        self._writer = BagWriter(path)
        self._max_bytes = max_bytes
        self._queue: deque[tuple[str, str, int, bytes]] = deque()
        self._profiles: dict[str, Sequence[Qos]] = {}
        self._bytes = 0
        self._closing = False
        self._error: BagError | None = None
        self._change = threading.Condition()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bag-writer", daemon=True)

    def __enter__(self) -> BagSink:
        self._thread.start()
        self._opened.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    @staticmethod
    def knows(type_name: str) -> bool:
        """True where messages of this type can be written."""
        return BagWriter.knows(type_name)

    def announce(self, name: str, type_name: str, qos: Sequence[Qos]) -> None:
        """Say what the publishers of a topic offer, before its first message."""
        self._profiles[name] = qos

    def put(self, name: str, type_name: str, t_ns: int, cdr: bytes) -> None:
        """Queue a message."""
        with self._change:
            if self._bytes + len(cdr) > self._max_bytes:
                self.dropped[name] += 1
                return
            self._queue.append((name, type_name, t_ns, cdr))
            self._bytes += len(cdr)
            self._change.notify_all()

    def _run(self) -> None:
        try:
            with self._writer as bag:
                self._opened.set()
                while (message := self._next()) is not None:
                    name, type_name, t_ns, cdr = message
                    bag.add_topic((name, type_name), self._profiles.get(name))
                    bag.write((name, type_name), t_ns, cdr)
        except BagError as error:
            self._error = error
        except (OSError, WriterError) as error:
            self._error = BagError(f"bag '{self._writer.path}': cannot be written ({error}); is the disk full?")
        finally:
            if self._error is not None:
                self.failed.set()
            self._opened.set()

    def _next(self) -> tuple[str, str, int, bytes] | None:
        with self._change:
            self._change.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return None
            message = self._queue.popleft()
            self._bytes -= len(message[3])
            return message
