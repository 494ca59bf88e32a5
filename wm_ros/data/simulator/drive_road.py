"""The streets of a simulated drive: kinds of place, lines, a main street and the side streets that meet it.

Places along a line are given by `u_m` along it and `d_m` to its left (REP 103: y is left). Traffic keeps right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEP_M = 0.5
BEHIND_M = 95.0
SIDE_LENGTH_M = 95.0
PARKING_M = 2.2
Range = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """What a kind of place looks like; ranges are (least, most).

    Attributes:
        share: of the drives. lanes: on each side. lane_m: width. median_m: between the directions.
        speed_mps: of the traffic. curvature_per_m: largest of the road. gap_m: between vehicles of a lane.
        junctions: mean number of side streets per 100 m. parking: chance that a side has a lane of parked cars.
        pavement_m: width. setback_m: of the buildings from the back of the pavement. built: share of the frontage.
        bounds: chances that the edge of a plot is open, hedge, fence, wall, bushes.
        trees, walkers, cyclists: mean number per 100 m. bank_m: typical height of slopes beside the road.
    """

    name: str
    share: float
    lanes: tuple[int, int]
    lane_m: float
    median_m: Range
    speed_mps: Range
    curvature_per_m: float
    gap_m: Range
    junctions: float
    parking: float
    pavement_m: Range
    setback_m: Range
    built: float
    bounds: tuple[float, float, float, float, float]
    trees: float
    walkers: float
    cyclists: float
    bank_m: float


# fmt: off
PLACES = (
    Place("street", 0.24, (1, 2), 3.2, (0, 0), (4, 13), 0.006, (10, 60), 1.3, 0.7, (1.8, 4), (0, 4), 0.9,
          (0.5, 0.15, 0.1, 0.15, 0.1), 5, 6, 1.5, 0.05),
    Place("residential", 0.32, (1, 1), 2.9, (0, 0), (3, 9), 0.015, (15, 80), 1.5, 0.6, (1.2, 2.5), (1, 7), 0.8,
          (0.15, 0.35, 0.2, 0.15, 0.15), 8, 3, 0.8, 0.15),
    Place("avenue", 0.1, (2, 3), 3.3, (0.5, 4), (6, 16), 0.003, (14, 70), 0.9, 0.4, (2.5, 5), (1, 10), 0.85,
          (0.4, 0.2, 0.1, 0.1, 0.2), 8, 4, 2.0, 0.1),
    Place("expressway", 0.12, (2, 3), 3.6, (1, 4), (12, 28), 0.0015, (15, 70), 0.0, 0.0, (0.5, 2), (15, 40), 0.15,
          (0.3, 0.1, 0.1, 0.1, 0.4), 12, 0, 0.0, 1.0),
    Place("country", 0.12, (1, 1), 3.1, (0, 0), (8, 20), 0.008, (25, 120), 0.4, 0.05, (0.5, 1.5), (6, 25), 0.15,
          (0.35, 0.2, 0.2, 0.02, 0.23), 14, 0.6, 0.6, 0.6),
    Place("square", 0.1, (1, 2), 3.2, (0, 2), (2, 8), 0.004, (8, 50), 1.5, 0.8, (3, 7), (8, 20), 0.8,
          (0.6, 0.12, 0.08, 0.08, 0.12), 5, 12, 2.5, 0.05),
)
# fmt: on


class Line:
    """A smooth curve on the ground, given every `STEP_M`. u: arc length. x, y, heading: there."""

    def __init__(self, u: Array, x: Array, y: Array, heading: Array) -> None:
        self.u, self.x, self.y, self.heading = u, x, y, heading

    @classmethod
    def through(cls, x: Array, y: Array, start_u: float = 0.0) -> Line:
        """Arc length and heading of points that are close to each other."""
        step = np.hypot(np.diff(x), np.diff(y))
        keep = np.concatenate([[True], step > 1e-6])
        x, y = x[keep], y[keep]
        u = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))]) + start_u
        return cls(u, x, y, np.unwrap(np.arctan2(np.gradient(y, u), np.gradient(x, u))))

    def at(self, u_m: Array | float, d_m: Array | float = 0.0) -> tuple[Array, Array, Array]:
        """World x, y and heading."""
        heading = np.asarray(np.interp(u_m, self.u, self.heading))
        x = np.interp(u_m, self.u, self.x) - np.sin(heading) * d_m
        return x, np.interp(u_m, self.u, self.y) + np.cos(heading) * d_m, heading

    def lane(self, d_m: Array | float, forward: bool) -> Line:
        """The parallel line at `d_m`, driven forward or back; its u starts at 0."""
        x, y, _ = self.at(self.u, d_m)
        return Line.through(x, y) if forward else Line.through(x[::-1], y[::-1])


class Street:
    """A line with its profile. half_m: from the middle to the kerb. parking: on the right and on the left."""

    def __init__(
        self, line: Line, place: Place, lanes: int, median_m: float, pavement_m: float, parking: tuple[bool, bool]
    ) -> None:
        self.line, self.place, self.lanes, self.median_m, self.pavement_m = line, place, lanes, median_m, pavement_m
        self.parking = parking
        self.half_m = median_m / 2 + lanes * place.lane_m + 0.3 + PARKING_M * any(parking)

    def lane_d(self, lane: int) -> float:
        """Distance of a lane's middle from the middle of the road."""
        return self.median_m / 2 + (lane + 0.5) * self.place.lane_m


@dataclass(frozen=True)
class Junction:
    """Where a side street meets the main one: at `u_m` of the main line and at 0 of its own."""

    u_m: float
    street: Street
    crosses: bool


class Network:
    """The main street, from 95 m behind the start to 95 m after the end of a drive of `travel_m`, and side streets."""

    def __init__(self, place: Place, travel_m: float, rng: np.random.Generator) -> None:
        lanes = int(rng.integers(place.lanes[0], place.lanes[1] + 1))
        self.main = self._street(_wavy(travel_m, place.curvature_per_m, rng), place, lanes, rng)
        self.junctions: list[Junction] = []
        count = rng.poisson(place.junctions * (travel_m + BEHIND_M) / 100)
        near = rng.uniform(
            20, 45, int(place.junctions > 0 and rng.random() < 0.3)
        )  # soon reached, also in short drives
        for u in sorted([*rng.uniform(-60, travel_m + 60, count), *near]):
            if not self.junctions or u - self.junctions[-1].u_m > 35:
                self.junctions.append(self._junction(float(u), rng))

    @property
    def streets(self) -> list[Street]:
        return [self.main, *(junction.street for junction in self.junctions)]

    def _street(self, line: Line, place: Place, lanes: int, rng: np.random.Generator) -> Street:
        parking = (bool(rng.random() < place.parking), bool(rng.random() < place.parking))
        median_m, pavement_m = float(rng.uniform(*place.median_m)), float(rng.uniform(*place.pavement_m))
        return Street(line, place, lanes, median_m, pavement_m, parking)

    def _junction(self, u_m: float, rng: np.random.Generator) -> Junction:
        x, y, heading = (float(v) for v in self.main.line.at(u_m))
        heading += float(rng.choice([-1.0, 1.0])) * np.pi / 2 + float(rng.normal(0, 0.08))
        crosses = bool(rng.random() < 0.5)
        u = np.arange(-SIDE_LENGTH_M if crosses else 0.0, SIDE_LENGTH_M, STEP_M)
        bend = rng.normal(0, 0.0015)
        turned = heading + bend * u
        px, py = np.cumsum(np.cos(turned)) * STEP_M, np.cumsum(np.sin(turned)) * STEP_M
        zero = int(np.argmin(np.abs(u)))
        line = Line(u, px - px[zero] + x, py - py[zero] + y, turned)
        side = PLACES[1] if rng.random() < 0.6 or self.main.place.name == "residential" else PLACES[0]
        return Junction(u_m, self._street(line, side, 1, rng), crosses)


def _wavy(travel_m: float, curvature_per_m: float, rng: np.random.Generator) -> Line:
    """A line whose curvature is a sum of slow waves, through the origin along x."""
    u = np.arange(-BEHIND_M, travel_m + BEHIND_M, STEP_M)
    length, phase = rng.uniform(60, 250, 3), rng.uniform(0, 2 * np.pi, 3)
    weight = rng.uniform(-1, 1, 3) * curvature_per_m * (rng.random() < 0.8)
    curvature = (weight[:, None] * np.sin(2 * np.pi * u / length[:, None] + phase[:, None])).sum(0)
    heading = np.cumsum(curvature) * STEP_M
    zero = round(BEHIND_M / STEP_M)
    heading -= heading[zero]
    x, y = np.cumsum(np.cos(heading)) * STEP_M, np.cumsum(np.sin(heading)) * STEP_M
    return Line(u, x - x[zero], y - y[zero], heading)
