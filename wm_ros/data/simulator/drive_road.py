"""The road of a simulated drive: a smooth centre line over gently rolling ground, and what kinds of place there are.

Places are given in road coordinates: `s_m` along the centre line, `d_m` to its left (REP 103: y is left).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEP_M = 0.5
BEHIND_M, AHEAD_M = 160.0, 340.0


@dataclass(frozen=True)
class Place:
    """What a kind of place looks like; ranges are (least, most).

    Attributes:
        lanes: on each side. lane_m: width. speed_mps: of the traffic. curvature_per_m: largest of the road.
        gap_m: between vehicles of a lane. buildings, trees, parked, walkers, cyclists: mean number per 100 m of road.
        setback_m: of the buildings from the kerb. wall: chance that a barrier runs along a side.
    """

    name: str
    lanes: tuple[int, int]
    lane_m: float
    speed_mps: tuple[float, float]
    curvature_per_m: float
    gap_m: tuple[float, float]
    buildings: float
    trees: float
    parked: float
    walkers: float
    cyclists: float
    setback_m: tuple[float, float]
    wall: float


PLACES = (
    Place("street", (1, 2), 3.3, (4.0, 13.0), 0.006, (12, 45), 9.0, 5.0, 7.0, 6.0, 1.5, (2.0, 7.0), 0.1),
    Place("residential", (1, 1), 3.0, (3.0, 9.0), 0.015, (25, 90), 7.0, 9.0, 10.0, 4.0, 1.0, (4.0, 12.0), 0.3),
    Place("avenue", (2, 3), 3.4, (6.0, 16.0), 0.003, (10, 40), 6.0, 8.0, 3.0, 4.0, 2.0, (6.0, 18.0), 0.1),
    Place("expressway", (2, 3), 3.6, (12.0, 30.0), 0.0015, (18, 70), 1.0, 7.0, 0.0, 0.0, 0.0, (15.0, 40.0), 0.8),
    Place("country", (1, 1), 3.2, (8.0, 20.0), 0.008, (40, 150), 0.8, 16.0, 0.5, 0.6, 0.8, (8.0, 30.0), 0.2),
    Place("square", (1, 2), 3.3, (2.0, 7.0), 0.004, (12, 50), 5.0, 4.0, 14.0, 14.0, 3.0, (10.0, 25.0), 0.0),
)


class Road:
    """Centre line and ground of one scene, drawn from `rng`."""

    def __init__(self, place: Place, rng: np.random.Generator) -> None:
        self.place = place
        self.lanes = int(rng.integers(place.lanes[0], place.lanes[1] + 1))
        self.half_m = self.lanes * place.lane_m + rng.uniform(0.2, 1.0)
        self.s = np.arange(-BEHIND_M, AHEAD_M, STEP_M)
        length, phase = rng.uniform(60, 250, 3), rng.uniform(0, 2 * np.pi, 3)
        weight = rng.uniform(-1, 1, 3) * place.curvature_per_m * (rng.random() < 0.8)
        curvature = (weight[:, None] * np.sin(2 * np.pi * self.s / length[:, None] + phase[:, None])).sum(0)
        heading = np.cumsum(curvature) * STEP_M
        zero = int(BEHIND_M / STEP_M)
        self.heading = heading - heading[zero]
        x, y = np.cumsum(np.cos(self.heading)) * STEP_M, np.cumsum(np.sin(self.heading)) * STEP_M
        self.x, self.y = x - x[zero], y - y[zero]
        # Ground: a slope and two long waves, a few decimetres in all over the range of the sensor.
        self._slope = rng.normal(0, 0.006, 2)
        self._wave = rng.uniform(0.0, 0.25, 2), rng.uniform(50, 160, 2), rng.uniform(0, 2 * np.pi, (2, 2))

    def at(self, s_m: Array | float, d_m: Array | float) -> tuple[Array, Array, Array]:
        """World x, y and heading of the road at road coordinates."""
        s = np.asarray(s_m, np.float64)
        heading = np.interp(s, self.s, self.heading)
        x = np.interp(s, self.s, self.x) - np.sin(heading) * d_m
        y = np.interp(s, self.s, self.y) + np.cos(heading) * d_m
        return x, y, heading

    def holds(self, s_m: float) -> bool:
        """Whether the centre line reaches to `s_m`; who is beyond it has left the scene."""
        return bool(self.s[0] < s_m < self.s[-1])

    def height(self, x: Array | float, y: Array | float) -> Array:
        """Ground height z of world places, metres."""
        amplitude, length, phase = self._wave
        z = self._slope[0] * np.asarray(x, np.float64) + self._slope[1] * np.asarray(y, np.float64)
        for i in range(2):
            a = np.sin(2 * np.pi * np.asarray(x) / length[i] + phase[i, 0])
            z = z + amplitude[i] * a * np.cos(2 * np.pi * np.asarray(y) / length[i] + phase[i, 1])
        return z

    def pose(self, s_m: float, d_m: float) -> NDArray[np.float64]:
        """(4, 4) pose of a body on the road: x along it, z up from the ground, tilted as the ground is."""
        x, y, heading = (float(v) for v in self.at(s_m, d_m))
        forward = np.array([np.cos(heading), np.sin(heading)])
        left = np.array([-forward[1], forward[0]])
        rise = [
            float(self.height(*(np.array([x, y]) + u)) - self.height(*(np.array([x, y]) - u))) / 2
            for u in (forward, left)
        ]
        ahead = np.array([*forward, rise[0]])
        ahead /= np.linalg.norm(ahead)
        up = np.cross(ahead, np.array([*left, rise[1]]))
        up /= np.linalg.norm(up)
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([ahead, np.cross(up, ahead), up], axis=1)
        matrix[:3, 3] = x, y, float(self.height(x, y))
        return matrix
