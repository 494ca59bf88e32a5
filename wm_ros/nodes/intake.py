"""Which arriving sample a node may use, by its stamp; and one warning per streak of bad ones. No ROS in here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from wm_ros.types import Sample

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
        newest_ns: newest stamp accepted of each sample type.
    """

    max_age_s: float
    newest_ns: dict[type[Sample], int] = field(default_factory=dict)

    def refusal(self, sample: Sample, now_ns: int) -> str:
        """Why `sample` must not be used, as '<kind>: <detail>', or ''.

        Args:
            now_ns: the node's clock; 0 while simulated time has not begun, and then no age is known.
        """
        age_s = (now_ns - sample.stamp_ns) / 1e9
        if self.max_age_s > 0 and now_ns > 0 and abs(age_s) > self.max_age_s:
            kind = "too old" if age_s > 0 else "ahead of the clock"
            return f"{kind}: {abs(age_s):.1f} s by this node's clock (a bag needs use_sim_time: true)"
        newest = self.newest_ns.get(type(sample), -1)
        if newest - JUMP_NS < sample.stamp_ns < newest:
            return f"out of order: {(newest - sample.stamp_ns) / 1e9:.3f} s before the newest"
        if sample.stamp_ns == newest:
            return "repeated: a sample of this stamp was used already"
        return ""

    def jumped_back(self, sample: Sample) -> bool:
        """Whether the stamps have begun anew (a bag played again, a simulator restarted)."""
        return sample.stamp_ns <= self.newest_ns.get(type(sample), -1) - JUMP_NS

    def accept(self, sample: Sample) -> None:
        self.newest_ns[type(sample)] = sample.stamp_ns

    def reset(self) -> None:
        self.newest_ns.clear()
