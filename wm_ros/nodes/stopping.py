"""Ctrl-C and SIGTERM as an event, so that a player or recorder ends at a good place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_event(given: threading.Event | None = None) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set (in the main thread; elsewhere only the caller sets it).

    The first signal asks to end; a second one of the same kind acts as it would without us.
    """
    event = given or threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        event.set()
        signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)

    for each in before:
        signal.signal(each, ask)
    try:
        yield event
    finally:
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)
