"""Simulated time between the ticks of `/clock`."""

from __future__ import annotations

from collections import deque

SILENT_NS = 100_000_000
"""The clock stands still from here on: a player that is paused, or a simulator that is slow."""
WINDOW = 50


class SimClock:
    """Interpolates `/clock` by the wall clock, at the speed of its last ticks."""

    def __init__(self) -> None:
        self._ticks: deque[tuple[int, int]] = deque(maxlen=WINDOW)

    def tick(self, sim_ns: int, wall_ns: int) -> None:
        """Take a tick that arrived at `wall_ns`. A jump back begins anew."""
        if self._ticks and sim_ns < self._ticks[-1][0]:
            self._ticks.clear()
        self._ticks.append((sim_ns, wall_ns))

    def at(self, wall_ns: int) -> int | None:
        """Simulated time at `wall_ns`; None before the first tick."""
        if not self._ticks:
            return None
        sim_ns, at_ns = self._ticks[-1]
        first_sim, first_wall = self._ticks[0]
        speed = (sim_ns - first_sim) / (at_ns - first_wall) if at_ns > first_wall else 1.0
        return sim_ns + round(min(max(wall_ns - at_ns, -SILENT_NS), SILENT_NS) * speed)
