"""Figures that a node keeps of itself for /diagnostics: durations, ages, budgets. No ROS in here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from wm_ros.messages.status import ERROR, OK, WARN, Status


@dataclass
class Window:
    """The last values of something measured: bounded, with median and p95."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    count: int = 0

    def add(self, value: float) -> None:
        self.values.append(value)
        self.count += 1

    def figures(self, unit: str) -> dict[str, str]:
        """`median_<unit>`, `p95_<unit>`, `last_<unit>` and `count` as text; only the count while nothing came."""
        if not self.values:
            return {"count": "0"}
        median, p95 = np.percentile(np.array(self.values), (50, 95))
        return {
            f"median_{unit}": f"{median:.1f}",
            f"p95_{unit}": f"{p95:.1f}",
            f"last_{unit}": f"{self.values[-1]:.1f}",
            "count": str(self.count),
        }


@dataclass
class CycleBudget:
    """One cycle over `warn_ms` is a WARN; over budget without a break for `error_ms` is an ERROR.

    Attributes:
        spent_ms: durations of the last cycles.
        stages_ms: durations of the stages of the last cycle.
        over_since_s: when the streak of slow cycles began, steady time.
    """

    warn_ms: float
    error_ms: float
    spent_ms: Window = field(default_factory=Window)
    stages_ms: dict[str, float] = field(default_factory=dict)
    over_since_s: float | None = None
    level: int = OK
    unseen: int = OK

    def add(self, began_s: float, ended_s: float, stages_ms: dict[str, float]) -> None:
        """Take one cycle, times by a steady clock."""
        spent_ms = (ended_s - began_s) * 1e3
        self.spent_ms.add(spent_ms)
        self.stages_ms = dict(stages_ms)
        if spent_ms <= self.warn_ms:
            self.over_since_s, self.level = None, OK
            return
        if self.over_since_s is None:
            self.over_since_s = began_s
        lasting_ms = (ended_s - self.over_since_s) * 1e3
        self.level = ERROR if lasting_ms > self.error_ms else WARN
        self.unseen = max(self.unseen, self.level)

    def status(self, node: str) -> Status:
        """The worst level since the last call, so that a single slow cycle is seen."""
        level, self.unseen = max(self.unseen, self.level), OK
        words = {
            OK: "within budget",
            WARN: f"a cycle took more than {self.warn_ms:g} ms",
            ERROR: f"over {self.warn_ms:g} ms for more than {self.error_ms:g} ms",
        }
        stages = {f"stage_{name}_ms": f"{spent:.1f}" for name, spent in self.stages_ms.items()}
        return Status(f"{node}: cycle", level, words[level], self.spent_ms.figures("ms") | stages)
