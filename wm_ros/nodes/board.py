"""What `wm up` prints: one line for each change of a node's state or health."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from wm_ros.messages.status import ERROR, STALE, WARN
from wm_ros.nodes.supervisor import Child, worst

STYLES = {"active": "green", "waiting": "red", "ended": "dim"}
LEVELS = {WARN: ("WARN", "yellow"), ERROR: ("ERROR", "red"), STALE: ("STALE", "magenta")}
QUIET_S = 5.0  # a node's health is printed no more often than this


class Board:
    """Prints one line for each change of a node's state or health."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.shown: dict[str, tuple[str, float]] = {}

    def line(self, name: str, state: str, style: str, detail: str) -> None:
        self.console.print(Text.assemble(f"{name:18}", (f"{state:12}", style), detail), soft_wrap=True)

    def changed(self, child: Child, detail: str) -> None:
        """A child is in another state."""
        self.line(child.name, child.state, STYLES.get(child.state, ""), detail)
        self.shown.pop(child.name, None)

    def health(self, children: Sequence[Child]) -> None:
        """Print the worst check of each active node where it has changed."""
        now_s = time.monotonic()
        for child in children:
            if child.state != "active" or "cycle" not in child.statuses:
                continue
            bad = worst(child)
            label, style = LEVELS[bad.level] if bad else ("OK", "green")
            summary = f"{label} {bad.name if bad else ''}"
            last, when_s = self.shown.get(child.name, ("", 0.0))
            if summary != last and now_s - when_s > QUIET_S:
                figures = {key: child.statuses[key].values.get("median_ms", "–") for key in ("cycle", "age")}
                detail = f"{bad.name.partition(': ')[2]}: {bad.message}" if bad else "in order"
                self.line(child.name, label, style, f"{detail}  cycle {figures['cycle']} ms, age {figures['age']} ms")
                self.shown[child.name] = (summary, now_s)
