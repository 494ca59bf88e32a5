"""What player and recorder say of their work at the end."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

KEPT = 20_000
"""Figures of so many of the last messages are kept, so that a long run stays small."""


@dataclass
class PlayReport:
    """What was played and how exactly.

    Attributes:
        published: topic → messages. skipped: topic → why it could not be played.
        lateness_ms: against the absolute schedule at the moment before publication, of the last `KEPT` messages.
        interrupted: ended by Ctrl-C or SIGTERM. rounds: how often the bag was begun.
    """

    bag: Path
    rate: float
    published: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    lateness_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    latched_first: int = 0
    clock_ticks: int = 0
    wall_s: float = 0.0
    rounds: int = 0
    interrupted: bool = False

    def lateness(self) -> tuple[float, float, float]:
        """Median, 95th percentile and maximum of the lateness, ms."""
        if not self.lateness_ms:
            return (0.0, 0.0, 0.0)
        median, p95, largest = np.percentile(self.lateness_ms, [50, 95, 100])
        return float(median), float(p95), float(largest)

    def __str__(self) -> str:
        median, p95, largest = self.lateness()
        lines = [
            f"played {sum(self.published.values())} messages of {self.bag.name} in {self.wall_s:.1f} s at rate "
            f"{self.rate:g}{', interrupted' if self.interrupted else ''}; late by {median:.2f} ms (median), "
            f"{p95:.2f} (p95), {largest:.2f} (max); {self.clock_ticks} clock ticks"
        ]
        lines += [f"  {name}: {count}" for name, count in sorted(self.published.items())]
        lines += [f"  {name}: not played, {why}" for name, why in sorted(self.skipped.items())]
        return "\n".join(lines)


@dataclass
class TopicRecord:
    """One recorded topic.

    Attributes:
        count, size_bytes: written to the bag. dropped: arrived but not written, because the disk was too slow.
        lost: by the transport, as far as it says.
        ages_ms: time of arrival minus stamp, where there is a header; of the last `KEPT` messages.
    """

    type: str
    count: int = 0
    size_bytes: int = 0
    dropped: int = 0
    lost: int = 0
    ages_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def age(self) -> tuple[float, float] | None:
        """Median and 95th percentile of the age, ms; None where no message had a stamp."""
        if not self.ages_ms:
            return None
        median, p95 = np.percentile(self.ages_ms, [50, 95])
        return float(median), float(p95)


@dataclass
class RecordReport:
    """What was recorded. `sim_time`: the bag's times are those of `/clock`."""

    bag: Path
    seconds: float
    sim_time: bool
    topics: dict[str, TopicRecord]

    def __str__(self) -> str:
        lines = [
            f"recorded {sum(t.count for t in self.topics.values())} messages on {len(self.topics)} topics in "
            f"{self.seconds:.1f} s to {self.bag}" + (", times of /clock" if self.sim_time else "")
        ]
        for name, record in sorted(self.topics.items()):
            age = record.age()
            parts = [f"{record.count}"]
            if age is not None:
                parts.append(f"age {age[0]:.1f} ms (median), {age[1]:.1f} (p95)")
            if record.dropped or record.lost:
                parts.append(f"dropped {record.dropped}, lost {record.lost}")
            lines.append(f"  {name}: {', '.join(parts)}")
        if not self.topics:
            lines.append("  nothing was heard: is somebody publishing, with the same ROS_DOMAIN_ID?")
        return "\n".join(lines)
