"""Who else is on the way in a simulated drive: traffic, parked cars, cyclists, people on foot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator import drive_bodies as bodies
from wm_ros.data.simulator.drive_bodies import Body
from wm_ros.data.simulator.drive_ego import SIDES, EgoWay, passes_origin
from wm_ros.data.simulator.drive_ground import Ground
from wm_ros.data.simulator.drive_road import SIDE_LENGTH_M, Junction, Line, Network, Street
from wm_ros.data.simulator.drive_traffic import (
    END_S,
    LIGHTS_OFF_S,
    STEP_S,
    TIMES,
    WARM_UP_S,
    Light,
    Queue,
    Space,
    Track,
    turn,
)

Array = NDArray[np.float64]
EGO_SIZE_M = (4.4, 1.8)
GAP_TO_EGO_M = 9.0


@dataclass(frozen=True)
class User:
    """A road user. track_id: of its box. track: where it is over time."""

    track_id: int
    body: Body
    track: Track

    def place(self, t_s: float) -> tuple[float, float, float]:
        """x, y, heading."""
        at = self.track
        if len(at.x) == 1:
            return float(at.x[0]), float(at.y[0]), float(at.heading[0])
        step = min(max((t_s + WARM_UP_S) / STEP_S, 0.0), len(TIMES) - 1.001)
        i, w = int(step), step - int(step)
        x, y, heading = (float(v[i] * (1 - w) + v[i + 1] * w) for v in (at.x, at.y, at.heading))
        return x, y, heading


class Users:
    """Everybody but the ego car, in `all`; nobody ever touches another."""

    def __init__(self, network: Network, ego: EgoWay) -> None:
        self.network, self.ego = network, ego
        self.space, self.all, self._next = Space(), list[User](), 1
        where = ego.u(TIMES)
        self.space.take(Track(*ego.line.at(where), *EGO_SIZE_M, bool(np.ptp(where) > 0.05)), 0.0)

    def _add(self, body: Body, track: Track, margin_m: float = 0.25) -> None:
        if self.space.take(track, margin_m):
            self.all.append(User(self._next, body, track))
            self._next += 1

    def add_vehicles(self, rng: np.random.Generator) -> None:
        """Lane by lane; whoever would touch another is left out."""
        lights = {id(junction): self._light(junction, rng) for junction in self.network.junctions}
        main = self.network.main
        for forward in (True, False):
            for lane in range(main.lanes):
                self._lane(main, lane, forward, lights, rng)
        for junction in self.network.junctions:
            for forward in (True, False):
                self._lane(junction.street, 0, forward, lights, rng, junction)

    def _light(self, junction: Junction, rng: np.random.Generator) -> Light:
        """Times of red for the main street that let the ego car pass as it does."""
        passes = [t for t in np.arange(0, END_S, 0.5) if abs(np.hypot(*self._to(junction, t))) < 18]
        if rng.random() < 0.3:
            return Light(LIGHTS_OFF_S, LIGHTS_OFF_S)
        if not passes:
            begin = float(rng.uniform(-15, 15))
            return Light(begin, begin + float(rng.uniform(10, 25)))
        if passes[0] > 6:
            return Light(-20.0, float(passes[0] - rng.uniform(3, 5)))
        return Light(float(passes[-1] + rng.uniform(0.5, 4)), 100.0)

    def _to(self, junction: Junction, t_s: float) -> Array:
        x, y, _ = self.network.main.line.at(junction.u_m)
        return np.array(self.ego.at(t_s)[:2]) - [float(x), float(y)]

    def _lane(
        self,
        street: Street,
        lane: int,
        forward: bool,
        lights: dict[int, Light],
        rng: np.random.Generator,
        junction: Junction | None = None,
    ) -> None:
        """The vehicles of one lane, some of which turn off at a junction."""
        main, way = junction is None, 1.0 if forward else -1.0
        line = street.line.lane(-way * street.lane_d(lane), forward)
        queue = Queue()
        crossed = self.network.junctions if junction is None else [junction]
        for other in crossed:
            light, width = lights[id(other)], (other.street if main else self.network.main).half_m
            x, y, _ = street.line.at(other.u_m if main else 0.0)
            middle = float(line.u[np.argmin(np.hypot(line.x - x, line.y - y))])
            if middle > width + 4:  # a street that only leaves has nothing to wait for
                queue.stops.append((middle - width - 2.0, lambda t, light=light: light.red(t, main)))  # type: ignore[misc]
        place = street.place
        wanted = float(rng.uniform(*place.speed_mps))
        ego_lane = main and forward and lane == self.ego.lane
        ego_u = passes_origin(line)
        wanted = self.ego.speed_mps * 1.3 if ego_lane and self.ego.speed_mps > 1 else wanted
        turns = [(o, into) for o in crossed for into in SIDES if o.crosses or not main or into > 0]
        u, sparse = float(line.u[-1]) - float(rng.uniform(0, 20)), float(rng.uniform(0.4, 0.9)) * (1.0 if main else 1.6)
        who: list[tuple[int, Body, Line]] = []
        told_ego = False
        while u > 0:
            if ego_lane and not told_ego and u < ego_u + GAP_TO_EGO_M + 4:
                body = Body("ego", (*EGO_SIZE_M, 1.5), bodies.NOTHING)
                number = queue.add(line, body, ego_u, self.ego.speed_mps)
                queue.led[number] = self._led(ego_u)
                told_ego, u = True, ego_u - GAP_TO_EGO_M
                continue
            body = bodies.vehicle(rng, 0.2 if place.name == "expressway" else 0.05)
            u -= body.size_m[0] / 2
            path, slow, wish = line, (1e9, 1e9), wanted * float(rng.uniform(0.9, 1.1))
            if turns and lane == street.lanes - 1 and rng.random() < (0.15 if main else 0.5):
                other, into = turns[int(rng.integers(len(turns)))]
                path, corner = turn(self.network, other, into, way, main)
                if corner > u:
                    slow = (corner, corner + 16)
                else:
                    path = line
            who.append((queue.add(path, body, u, wish, slow), body, path))
            u -= body.size_m[0] / 2 + float(rng.uniform(*place.gap_m)) * sparse
        if who:
            driven = queue.drive()
            for number, body, path in who:
                distance = driven[:, number]
                inside = np.clip(distance, 0, path.u[-1])
                track = Track.along(path, inside, body)
                over = distance - inside  # past the end of the line: straight on
                track.x, track.y = track.x + over * np.cos(track.heading), track.y + over * np.sin(track.heading)
                self._add(body, track)

    def _led(self, ego_u: float) -> Callable[[float], float]:
        zero = float(self.ego.u(0.0))
        return lambda t: float(self.ego.u(t)) - zero + ego_u

    def add_parked(self, rng: np.random.Generator, ground: Ground, drives: list[tuple[float, float, float]]) -> None:
        """Rows along the kerb with gaps, cars on drives, and on a square rows across."""
        for street in self.network.streets:
            for side, used in zip(SIDES, street.parking, strict=True):
                if not used:
                    continue
                u, fill = float(street.line.u[0]), float(rng.uniform(0.35, 0.95))
                while u < street.line.u[-1]:
                    body = bodies.vehicle(rng, 0.01)
                    x, y, heading = (float(v) for v in street.line.at(u + 3, side * (street.half_m - 1.15)))
                    if rng.random() < fill and -1.8 < float(ground.clear_m(x, y)) < 0.2:
                        against = (side > 0) != (rng.random() < 0.1)
                        self._stand(body, x, y, heading + np.pi * against + float(rng.normal(0, 0.02)))
                    u += body.size_m[0] + float(rng.uniform(0.6, 2.0))
            if street.place.name == "square":
                for side in SIDES:
                    for u in np.arange(street.line.u[0], street.line.u[-1], 2.7):
                        if rng.random() < 0.5:
                            d = side * (street.half_m + street.pavement_m + 3.0)
                            x, y, heading = (float(v) for v in street.line.at(u, d))
                            if float(ground.clear_m(x, y)) > 3.0:
                                self._stand(bodies.vehicle(rng, 0.0), x, y, heading + np.pi / 2 * rng.choice(SIDES))
        for x, y, heading in drives:
            self._stand(bodies.vehicle(rng, 0.0), x, y, heading)

    def _stand(self, body: Body, x: float, y: float, heading: float) -> None:
        track = Track(np.array([x]), np.array([y]), np.array([heading]), body.size_m[0], body.size_m[1], False)
        self._add(body, track)

    def _count(self, street: Street, per_100_m: float, rng: np.random.Generator) -> int:
        length = float(np.ptp(street.line.u)) if street is self.network.main else SIDE_LENGTH_M * 0.6
        return int(rng.poisson(per_100_m * length / 100))

    def add_cyclists(self, rng: np.random.Generator) -> None:
        for street in self.network.streets:
            for _ in range(self._count(street, street.place.cyclists, rng)):
                side, body = float(rng.choice(SIDES)), bodies.cyclist(rng)
                d = side * (street.half_m - (0.6 if not any(street.parking) else 2.8))
                u = rng.uniform(street.line.u[0], street.line.u[-1]) - side * rng.uniform(2, 6.5) * TIMES
                self._add(body, Track.along(street.line, u, body, d, side > 0))

    def add_walkers(self, rng: np.random.Generator) -> None:
        """Along the pavements, standing about, and some across the road."""
        for street in self.network.streets:
            for _ in range(self._count(street, street.place.walkers, rng)):
                side, facing, body = float(rng.choice(SIDES)), float(rng.choice(SIDES)), bodies.pedestrian(rng)
                u0, pace = float(rng.uniform(street.line.u[0], street.line.u[-1])), float(rng.uniform(0.5, 1.8))
                d = side * (street.half_m + rng.uniform(0.3, street.pavement_m + 0.5))
                kind = rng.random()
                if kind < 0.25:
                    x, y, heading = (float(v) for v in street.line.at(u0, d))
                    self._stand(body, x, y, heading + float(rng.uniform(-np.pi, np.pi)))
                elif kind < 0.4:
                    xs, ys, ahead = street.line.at(np.full(len(TIMES), u0), d - side * pace * TIMES)
                    self._add(body, Track(xs, ys, ahead - side * np.pi / 2, body.size_m[0], body.size_m[1]), 0.5)
                else:
                    u = np.clip(u0 + facing * pace * TIMES, street.line.u[0], street.line.u[-1])
                    self._add(body, Track.along(street.line, u, body, d, facing < 0))
