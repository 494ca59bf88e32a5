"""What a robot does with the trajectories it is sent, as joint_trajectory_controller does. No ROS in here.

A trajectory replaces the one before it, from where the set point is now; between its points the set point goes
straight. It is executed by its header stamp and offsets, so one that arrives late is entered where time is now. Past
its last point the set point stays there.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from wm_ros.types import ActionChunk

Double = NDArray[np.float64]

MAX_WAITING = 64


class TrajectoryController:
    """The set point of named joints over time.

    Args:
        names: the joints, in the order of all arrays here.
        tick_ns: control period; the set point at a tick is that of its end, when the robot shall be there.
        delay_ns: a trajectory takes effect so long after its stamp, as if whoever made it were so slow.
    """

    def __init__(self, names: tuple[str, ...], tick_ns: int, delay_ns: int = 0) -> None:
        self.names, self.tick_ns, self.delay_ns = names, tick_ns, delay_ns
        self.newest_ns = -1
        self._set_point: Double = np.zeros(len(names))
        self._stamps: NDArray[np.int64] = np.zeros(0, np.int64)
        self._points: Double = np.zeros((0, len(names)))
        self._waiting: deque[ActionChunk] = deque(maxlen=MAX_WAITING)

    def reset(self, set_point: Double) -> None:
        """Forget all trajectories; the set point is `set_point` (J,)."""
        self.newest_ns = -1
        self._set_point = set_point.copy()
        self._stamps = np.zeros(0, np.int64)
        self._waiting.clear()

    def offer(self, chunk: ActionChunk, now_ns: int) -> str:
        """Take a trajectory. Returns why it is refused, as '<kind>: <detail>', '' where it is taken."""
        if len(set(chunk.names)) != len(chunk.names) or set(chunk.names) != set(self.names):
            return f"wrong joints: {', '.join(chunk.names[:6]) or 'none'}; these are {', '.join(self.names)}"
        if not len(chunk.offsets_s):
            return "empty: no points"
        if not np.isfinite(chunk.position_rad).all():
            return "not finite: a position is no number"
        if chunk.stamp_ns > now_ns:
            return f"ahead of the clock: {(chunk.stamp_ns - now_ns) / 1e9:.3f} s"
        ends_ns = chunk.stamp_ns + round(float(chunk.offsets_s[-1]) * 1e9)
        if ends_ns <= now_ns:
            return f"past: it ended {(now_ns - ends_ns) / 1e9:.3f} s ago"
        if chunk.stamp_ns < self.newest_ns:
            return f"out of order: {(self.newest_ns - chunk.stamp_ns) / 1e9:.3f} s before the newest"
        self.newest_ns = chunk.stamp_ns
        self._waiting.append(chunk)
        return ""

    def set_point_at(self, now_ns: int) -> Double:
        """(J,) where the joints shall be at the end of the tick that begins at `now_ns`. Ticks never go back."""
        while self._waiting and self._waiting[0].stamp_ns + self.delay_ns <= now_ns:
            self._enter(self._waiting.popleft(), now_ns)
        if not self.holds(now_ns):
            since_s = (self._stamps - now_ns - self.tick_ns) / 1e9
            self._set_point = np.array([np.interp(0.0, since_s, column) for column in self._points.T])
        return self._set_point.copy()

    def holds(self, now_ns: int) -> bool:
        """Whether no trajectory reaches beyond `now_ns`."""
        return not len(self._stamps) or bool(self._stamps[-1] <= now_ns)

    def _enter(self, chunk: ActionChunk, now_ns: int) -> None:
        order = [chunk.names.index(name) for name in self.names]
        stamps = chunk.stamp_ns + np.round(chunk.offsets_s * 1e9).astype(np.int64)
        ahead = stamps > now_ns
        self._stamps = np.concatenate([[now_ns], stamps[ahead]])
        self._points = np.vstack([self._set_point, chunk.position_rad[ahead][:, order].astype(np.float64)])
