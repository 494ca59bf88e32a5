"""Which arriving sample a node may use, by its stamp; and one warning per streak of bad ones. No ROS in here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

JUMP_NS = 1_000_000_000  # a stamp this much behind the newest is a clock that jumped back, not a late message


@dataclass
class Streaks:
    """Counts what went wrong by kind, and says when it is time to speak."""

    total: Counter[str] = field(default_factory=Counter)
    running: set[tuple[str, str]] = field(default_factory=set)

    def bad(self, source: str, kind: str) -> bool:
        """Count one; True if it is the first since `source` was last good, so one line is logged per streak."""
        self.total[kind] += 1
        first = (source, kind) not in self.running
        self.running.add((source, kind))
        return first

    def good(self, source: str) -> None:
        """`source` is in order again."""
        if self.running:
            self.running = {(other, kind) for other, kind in self.running if other != source}


@dataclass
class Intake:
    """Refuses what is stale, out of order or ahead of the clock.

    Attributes:
        max_age_s: how far a stamp may be from the node's clock; 0: any.
        newest_ns: newest stamp accepted from each source.
    """

    max_age_s: float
    newest_ns: dict[str, int] = field(default_factory=dict)

    def refusal(self, source: str, stamp_ns: int, now_ns: int) -> str:
        """Why a sample must not be used, as '<kind>: <detail>', or ''.

        Args:
            now_ns: the node's clock; 0 while simulated time has not begun, and then no age is known.
        """
        age_s = (now_ns - stamp_ns) / 1e9
        if self.max_age_s > 0 and now_ns > 0 and abs(age_s) > self.max_age_s:
            kind = "too old" if age_s > 0 else "ahead of the clock"
            return f"{kind}: {abs(age_s):.1f} s by this node's clock (a bag needs use_sim_time: true)"
        newest = self.newest_ns.get(source)
        if newest is None or stamp_ns > newest or stamp_ns <= newest - JUMP_NS:
            return ""
        if stamp_ns == newest:
            return "repeated: a sample of this stamp was used already"
        return f"out of order: {(newest - stamp_ns) / 1e9:.3f} s before the newest"

    def jumped_back(self, source: str, stamp_ns: int) -> bool:
        """Whether the stamps have begun anew (a bag played again, a simulator restarted)."""
        return source in self.newest_ns and stamp_ns <= self.newest_ns[source] - JUMP_NS

    def accept(self, source: str, stamp_ns: int) -> None:
        self.newest_ns[source] = stamp_ns

    def reset(self) -> None:
        self.newest_ns.clear()
