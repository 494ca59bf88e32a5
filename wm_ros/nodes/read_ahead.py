"""Reading ahead of the player, so that the time of the disk is not the jitter of the messages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator

Raw = tuple[str, str, int, bytes]

MAX_BYTES = 128 * 2**20
MAX_MESSAGES = 5000


class ReadAhead:
    """Iterates messages that a thread reads in advance, within a budget of bytes. A context manager.

    An error of the reader is raised where the messages end.
    """

    def __init__(self, messages: Iterable[Raw], max_bytes: int = MAX_BYTES) -> None:
        self._messages = messages
        self._max_bytes = max_bytes
        self._ready: deque[Raw] = deque()
        self._bytes = 0
        self._done = False
        self._error: BaseException | None = None
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._done = True
            self._ready.clear()
            self._change.notify_all()
        self._thread.join()

    def wait_filled(self, timeout_s: float) -> None:
        """Return when the budget is used up or everything is read, or after `timeout_s`."""
        with self._change:
            self._change.wait_for(lambda: self._done or self._full(), timeout_s)

    def __iter__(self) -> Iterator[Raw]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._ready or self._done)
                if not self._ready:
                    break
                message = self._ready.popleft()
                self._bytes -= len(message[3])
                self._change.notify_all()
            yield message
        if self._error is not None:
            raise self._error

    def _full(self) -> bool:
        return self._bytes >= self._max_bytes or len(self._ready) >= MAX_MESSAGES

    def _read(self) -> None:
        try:
            for message in self._messages:
                with self._change:
                    self._change.wait_for(lambda: self._done or not self._full())
                    if self._done:
                        return
                    self._ready.append(message)
                    self._bytes += len(message[3])
                    self._change.notify_all()
        except BaseException as error:  # handed to the thread that iterates
            self._error = error
        finally:
            with self._change:
                self._done = True
                self._change.notify_all()
