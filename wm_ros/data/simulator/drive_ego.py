"""The ego car's way through a simulated drive: its lane, its speed, a stop or a start, a turn into a side street."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from wm_ros.data.simulator.drive_road import Junction, Line, Network
from wm_ros.data.simulator.drive_traffic import STEP_S, TIMES, TURN_MPS, WARM_UP_S, turn

Array = NDArray[np.float64]
SIDES = (-1.0, 1.0)
END_MARGIN_M = 40.0


def passes_origin(line: Line) -> float:
    """Where a line passes the origin of the main street, which is where the drive starts."""
    return float(line.u[np.argmin(np.hypot(line.x, line.y))])


class EgoWay:
    """A line and the distance along it by time.

    Args:
        speed_mps: mean; given: as the caller wants it, so without stops and starts.

    Attributes:
        lane: of the main street, from the middle. turns_at: where it leaves the main street, if it does.
    """

    def __init__(self, network: Network, speed_mps: float, given: bool, rng: np.random.Generator) -> None:
        self.speed_mps = speed_mps
        main, speed = network.main, self.speed_mps
        lane = int(rng.integers(main.lanes))
        self.lane = lane
        own = main.line.lane(-main.lane_d(lane) + rng.normal(0, 0.1), True)
        start, swing = passes_origin(own), float(rng.uniform(0, 0.25))
        period, phase = float(rng.uniform(6, 20)), float(rng.uniform(0, 2 * np.pi))
        stops = not given and 0 < speed < 14 and rng.random() < 0.3
        begin, ramp = float(rng.uniform(-3, 9)), float(rng.uniform(2.5, 5))
        braking = rng.random() < 0.5
        ahead = [j for j in network.junctions if 20 < j.u_m < min(speed * 9, 100)]
        corner = (1e9, 1e9)
        self.turns_at: Junction | None = None
        if ahead and lane == main.lanes - 1 and rng.random() < 0.7:
            self.turns_at = ahead[int(rng.integers(len(ahead)))]
            ways = [way for way in SIDES if self.turns_at.crosses or way > 0]
            own, at = turn(network, self.turns_at, float(rng.choice(ways)), 1.0, True)
            start, corner = passes_origin(own), (at - 3.0, at + 16.0)
        t = TIMES
        wanted = speed * (1 + swing * np.sin(2 * np.pi * t / period + phase))
        if stops:
            share = np.clip((t - begin) / ramp, 0, 1)
            wanted = wanted * (1 - share if braking else share)
        zero = round(WARM_UP_S / STEP_S)  # the present; before it the car came at the speed that it wanted
        u = start + np.cumsum(wanted) * STEP_S - np.sum(wanted[: zero + 1]) * STEP_S
        v = float(wanted[zero])
        for i in range(zero + 1, len(t)):
            left = max(corner[0] - u[i - 1], 0.0)
            limit = float(np.sqrt(TURN_MPS**2 + 2 * 1.8 * left)) if u[i - 1] < corner[1] else 1e9
            if self.turns_at is not None:  # a side street is short: the car stops before its end
                limit = min(limit, float(np.sqrt(2 * 2.0 * max(own.u[-1] - END_MARGIN_M - u[i - 1], 0.0))))
            aim = min(float(wanted[i]), limit)
            v = aim if aim < v else min(aim, v + 1.5 * STEP_S) if corner[0] < u[i - 1] else aim
            u[i] = u[i - 1] + v * STEP_S
        follow = PchipInterpolator(t, np.minimum(u, own.u[-1] - 1.0))
        self.line, self._u = own, follow

    def u(self, t_s: Array | float) -> Array:
        """Distance along the line, metres."""
        return np.asarray(self._u(t_s))

    def at(self, t_s: float) -> tuple[float, float, float]:
        """x, y, heading."""
        x, y, heading = (float(v) for v in self.line.at(float(self._u(t_s))))
        return x, y, heading

    def accel_mps2(self, t_s: float) -> float:
        before, now, after = (float(self._u(t_s + dt)) for dt in (-0.3, 0.0, 0.3))
        return (after - 2 * now + before) / 0.09
