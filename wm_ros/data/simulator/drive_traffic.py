"""How vehicles move: lanes through junctions, car-following (Treiber et al. 2000), traffic lights, no collisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.drive_bodies import Body
from wm_ros.data.simulator.drive_road import Junction, Line, Network

Array = NDArray[np.float64]
END_S = 20.5
WARM_UP_S = 5.0
STEP_S = 0.2
TIMES = np.arange(-WARM_UP_S, END_S + STEP_S, STEP_S)
CHECKED = slice(round(WARM_UP_S / STEP_S), None, 2)  # the part of TIMES in which nobody may touch another
LIGHTS_OFF_S = 1e9
TURN_MPS = 5.0


@dataclass
class Track:
    """Where a vehicle is at `TIMES`: x, y, heading, each (T,), or (1,) for one that never moves."""

    x: Array
    y: Array
    heading: Array
    length_m: float
    width_m: float
    moves: bool = True

    @classmethod
    def along(cls, line: Line, u: Array, body: Body, d_m: float = 0.0, reverse: bool = False) -> Track:
        x, y, heading = line.at(u, d_m)
        return cls(x, y, heading + np.pi * reverse, body.size_m[0], body.size_m[1], bool(np.ptp(u) > 0.05))


class Space:
    """Who is where; takes a further track only if it never touches one that it holds."""

    def __init__(self) -> None:
        self._held: list[Track] = []
        self._low, self._high = np.zeros((0, 2)), np.zeros((0, 2))

    def take(self, track: Track, margin_m: float = 0.15) -> bool:
        xy = np.stack([track.x, track.y], 1)[CHECKED if len(track.x) > 1 else slice(None)]
        reach = track.length_m / 2 + 0.5
        low, high = xy.min(0) - reach, xy.max(0) + reach
        for i in np.flatnonzero(((low < self._high) & (high > self._low)).all(1)):
            if _touch(track, self._held[i], margin_m):
                return False
        self._held.append(track)
        self._low, self._high = np.vstack([self._low, low]), np.vstack([self._high, high])
        return True


def _touch(a: Track, b: Track, margin_m: float) -> bool:
    """Whether two rectangles meet at any time: no edge of either separates them."""
    part = CHECKED if max(len(a.x), len(b.x)) > 1 else slice(None)
    (ax, ay, ah), (bx, by, bh) = ((v[part] if len(v) > 1 else v for v in (t.x, t.y, t.heading)) for t in (a, b))
    dx, dy, turn = bx - ax, by - ay, bh - ah
    c, s = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    apart = np.zeros(len(dx), bool)
    for one, other, h in ((a, b, ah), (b, a, bh)):
        along, across = np.abs(np.cos(h) * dx + np.sin(h) * dy), np.abs(np.cos(h) * dy - np.sin(h) * dx)
        apart |= along > (one.length_m + other.length_m * c + other.width_m * s) / 2 + margin_m
        apart |= across > (one.width_m + other.width_m * c + other.length_m * s) / 2 + margin_m
    return not bool(apart.all())


@dataclass
class Light:
    """Red for the main street between two times, for the side street otherwise."""

    red_from_s: float
    red_to_s: float

    def red(self, t_s: float, main: bool) -> bool:
        for_main = self.red_from_s <= t_s < self.red_to_s
        if main:
            return for_main
        return not self.red_from_s + 3.0 <= t_s < self.red_to_s - 3.0  # all red for a moment


@dataclass
class Queue:
    """Vehicles of one lane from first to last; `u` counts along each one's own line, which are one up to a junction.

    Attributes:
        stops: (u of the stop line, whether it is red at a time). led: the ego car's distance by time, at its place.
    """

    stops: list[tuple[float, Callable[[float], bool]]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    u_m: list[float] = field(default_factory=list)
    wanted_mps: list[float] = field(default_factory=list)
    slow: list[tuple[float, float]] = field(default_factory=list)
    led: dict[int, Callable[[float], float]] = field(default_factory=dict)

    def add(self, line: Line, body: Body, u_m: float, wanted_mps: float, slow: tuple[float, float] = (1e9, 1e9)) -> int:
        """Behind all that were added before. Returns its number."""
        self.lines.append(line)
        self.bodies.append(body)
        self.u_m.append(u_m)
        self.wanted_mps.append(wanted_mps)
        self.slow.append(slow)
        return len(self.lines) - 1

    def drive(self) -> Array:
        """(T, N) distances at `TIMES` by the intelligent driver model."""
        u, wanted = np.array(self.u_m), np.array(self.wanted_mps)
        length, slow = np.array([b.size_m[0] for b in self.bodies]), np.array(self.slow)
        v, out = wanted * 0.9, np.empty((len(TIMES), len(u)))
        for step, t in enumerate(TIMES):
            for who, where in self.led.items():
                u[who], v[who] = where(t), (where(t + 0.05) - where(t - 0.05)) / 0.1
            out[step] = u
            limit = np.where((u > slow[:, 0] - 8) & (u < slow[:, 1]), np.minimum(wanted, TURN_MPS), wanted)
            gap = np.full(len(u), 1e3)
            closing = np.zeros(len(u))
            gap[1:] = u[:-1] - u[1:] - (length[:-1] + length[1:]) / 2
            closing[1:] = v[1:] - v[:-1]
            for place, is_red in self.stops:
                if is_red(float(t)):
                    left = place - u - length / 2
                    held = (left > -0.5) & (left + 1.0 > v**2 / 9.0) & (left < gap)
                    gap, closing = np.where(held, left + 1.0, gap), np.where(held, v, closing)
            desired = 2.0 + np.maximum(v * 1.1 + v * closing / 4.0, 0)
            push = 1.6 * (1 - (v / np.maximum(limit, 0.1)) ** 4 - (desired / np.maximum(gap, 0.1)) ** 2)
            following = np.maximum(v + np.clip(push, -8, 2) * STEP_S, 0)
            u = u + (v + following) / 2 * STEP_S
            v = following
        return out


def turn(network: Network, junction: Junction, into: float, lane_from: float, leaving: bool) -> tuple[Line, float]:
    """A line from one street into the other by a rounded corner.

    Args:
        into: 1.0 towards growing u of the street that is entered, -1.0 the other way.
        lane_from: direction (±1) in which the first street is driven.
        leaving: the main street for the side street, or the other way round.

    Returns:
        The line, beginning as the lane of the first street does, and the u at which the corner begins.
    """
    streets = (network.main, junction.street) if leaving else (junction.street, network.main)
    places = (junction.u_m, 0.0) if leaving else (0.0, junction.u_m)
    first = streets[0].line.lane(-lane_from * streets[0].lane_d(streets[0].lanes - 1), lane_from > 0)
    second = streets[1].line.lane(-into * streets[1].lane_d(streets[1].lanes - 1), into > 0)
    # Where the two lanes meet, by the nearest pair of points around the junction.
    x, y, _ = streets[0].line.at(places[0])
    near = [np.flatnonzero(np.hypot(line.x - x, line.y - y) < 25) for line in (first, second)]
    apart = np.hypot(*(np.subtract.outer(getattr(first, k)[near[0]], getattr(second, k)[near[1]]) for k in "xy"))
    i, j = (int(n[k]) for n, k in zip(near, np.unravel_index(int(apart.argmin()), apart.shape), strict=True))
    cut = 14
    i0, j1 = max(i - cut, 0), min(j + cut, len(second.u) - 1)
    a, corner, b = ((line.x[k], line.y[k]) for line, k in ((first, i0), (first, i), (second, j1)))
    w = np.linspace(0, 1, 3 * cut)[:, None]
    arc = (1 - w) ** 2 * np.array(a) + 2 * w * (1 - w) * np.array(corner) + w**2 * np.array(b)
    x, y = (
        np.concatenate([getattr(first, k)[:i0], arc[:, n], getattr(second, k)[j1 + 1 :]]) for n, k in enumerate("xy")
    )
    return Line.through(x, y), float(first.u[i0])
