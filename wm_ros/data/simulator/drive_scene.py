"""What stands and what moves in a simulated drive: all of it drawn from one generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wm_ros.data.simulator import drive_shapes as shapes
from wm_ros.data.simulator.drive_road import PLACES, Place, Road
from wm_ros.data.simulator.drive_shapes import Body, Mesh

Array = NDArray[np.float64]
GROUND_STEP_M = 2.0
GROUND_HALF_M = 120.0
SIDES = (-1.0, 1.0)


@dataclass(frozen=True)
class Mover:
    """A road user and where it is: `place(t_s)` gives (s_m, d_m, yaw relative to the road)."""

    track_id: int
    body: Body
    place: Callable[[float], tuple[float, float, float]]


class Scene:
    """One place with its road users; the ego car is the one at `ego`."""

    def __init__(self, rng: np.random.Generator, speed_mps: float = -1.0) -> None:
        self.place: Place = PLACES[rng.integers(len(PLACES))]
        self.road = Road(self.place, rng)
        low, high = self.place.speed_mps
        if speed_mps < 0:
            speed_mps = 0.0 if rng.random() < 0.12 else float(min(15.0, rng.uniform(min(low, 3.0), high)))
        self.ego_lane = -(int(rng.integers(self.road.lanes)) + 0.5) * self.place.lane_m
        self.ego = _speed_profile(speed_mps, rng)
        self.movers: list[Mover] = []
        self._add_traffic(rng, speed_mps)
        self._add_walkers(rng)
        self.static = shapes.join([self._ground(), *self._standing(rng)])

    # ------------------------------------------------------------------ what moves

    def _add(self, body: Body, place: Callable[[float], tuple[float, float, float]]) -> None:
        self.movers.append(Mover(len(self.movers) + 1, body, place))

    def _add_traffic(self, rng: np.random.Generator, ego_mps: float) -> None:
        """Vehicles lane by lane; those of one lane keep their gaps, so that none runs into another."""
        for side in SIDES:
            for lane in range(self.road.lanes):
                d = side * (lane + 0.5) * self.place.lane_m
                own = abs(d - self.ego_lane) < 0.1
                lane_mps = ego_mps if own else float(rng.uniform(*self.place.speed_mps))
                if not own and rng.random() < 0.15:
                    lane_mps = 0.0  # a queue
                travel = self.ego if own else _speed_profile(lane_mps, rng)
                s = -120.0 + rng.uniform(0, 30)
                while s < 260:
                    body = shapes.vehicle(rng)
                    s += body.size_m[0] / 2
                    if not own or abs(s) > 9 + body.size_m[0]:
                        self._add(body, _along(s, d + rng.normal(0, 0.15), -side, travel))
                    gap = rng.uniform(*self.place.gap_m)
                    s += body.size_m[0] / 2 + (gap if lane_mps > 1 else 0.25 * gap)
        for _ in range(rng.poisson(self.place.cyclists * 2.5)):
            side = float(rng.choice(SIDES))
            travel = _speed_profile(float(rng.uniform(2.5, 7.0)), rng)
            self._add(
                shapes.cyclist(rng), _along(rng.uniform(-60, 140), side * (self.road.half_m + 0.6), -side, travel)
            )

    def _add_walkers(self, rng: np.random.Generator) -> None:
        for _ in range(rng.poisson(self.place.walkers * 2.0)):
            s, side = rng.uniform(-50, 120), float(rng.choice(SIDES))
            pace, facing = float(rng.uniform(0.5, 1.8)), float(rng.choice(SIDES))
            body = shapes.pedestrian(rng, float(rng.uniform(-1, 1)))
            d = side * (self.road.half_m + rng.uniform(1.4, 4.0))
            kind = rng.random()
            if kind < 0.2:
                self._add(body, _standing_at(s, d, float(rng.uniform(-np.pi, np.pi))))
            elif kind < 0.35 and abs(s) > 15:
                self._add(body, _crossing(s, d, -side * pace))
            else:
                self._add(body, _along(s, d, facing, _speed_profile(pace, rng)))

    # ------------------------------------------------------------------ what stands

    def _ground(self) -> Mesh:
        """A grid under the whole drive; asphalt on the road, something else beside it."""
        x0, x1 = self.road.x.min() - GROUND_HALF_M / 2, self.road.x.max() + GROUND_HALF_M / 2
        y0, y1 = self.road.y.min() - GROUND_HALF_M, self.road.y.max() + GROUND_HALF_M
        x, y = np.meshgrid(np.arange(x0, x1, GROUND_STEP_M), np.arange(y0, y1, GROUND_STEP_M), indexing="ij")
        vertices = np.stack([x, y, self.road.height(x, y)], -1).reshape(-1, 3)
        index = np.arange(x.size).reshape(x.shape)
        a, b, c, d = index[:-1, :-1].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel(), index[:-1, 1:].ravel()
        triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        middle = vertices[triangles].mean(1)[:, :2]
        line = np.stack([self.road.x, self.road.y], 1)[::4]
        near = cKDTree(line).query(middle, distance_upper_bound=self.road.half_m + 1)[0] < self.road.half_m + 1
        beside = "concrete" if self.place.buildings > 4 else "grass"
        material = np.where(near, shapes.MATERIALS.index("asphalt"), shapes.MATERIALS.index(beside))
        return Mesh(vertices, triangles, material)

    def _spots(self, rng: np.random.Generator, per_100_m: float) -> list[tuple[float, float]]:
        """(s, side) drawn along the road."""
        count = rng.poisson(per_100_m * 3.4)
        return list(zip(rng.uniform(-120, 220, count), rng.choice(SIDES, count), strict=True))

    def _at(self, s_m: float, d_m: float) -> tuple[tuple[float, float, float], float]:
        x, y, heading = (float(v) for v in self.road.at(s_m, d_m))
        return (x, y, float(self.road.height(x, y))), heading

    def _standing(self, rng: np.random.Generator) -> list[Mesh]:
        place, road, meshes = self.place, self.road, []
        kerb = road.half_m + (2.2 if place.parked else 1.2)
        for side in SIDES:  # a row of buildings with gaps, or none
            s = -130.0
            while s < 230 and place.buildings > 0:
                front, depth = rng.uniform(7, 28), rng.uniform(7, 18)
                if rng.random() < place.buildings / 10:
                    d = side * (kerb + 2.0 + rng.uniform(*place.setback_m) + depth / 2)
                    at, heading = self._at(s + front / 2, d)
                    size = (front, depth, rng.uniform(3, 18))
                    meshes.append(shapes.box(size, "concrete", at, heading + rng.normal(0, 0.03)))
                s += front + (rng.uniform(0, 4) if rng.random() < 0.6 else rng.uniform(6, 25))
            if rng.random() < place.wall:  # a barrier in pieces that follow the road
                d, height = side * (kerb + rng.uniform(0.3, 2.5)), rng.uniform(0.6, 2.4)
                for s in np.arange(-120, 220, 4.0):
                    at, heading = self._at(s, d)
                    meshes.append(shapes.box((4.2, 0.18, height), "concrete", at, heading))
        for s, side in self._spots(rng, place.parked):
            if abs(s) < 8 and side < 0:
                continue
            turn = np.diag([side * -1.0, side * -1.0, 1.0, 1.0])  # parked as the traffic of its side drives
            meshes.append(shapes.vehicle(rng).mesh.moved(road.pose(s, side * (road.half_m + 1.2)) @ turn))
        for s, side in self._spots(rng, place.trees):
            at, _ = self._at(s, side * (kerb + rng.exponential(6.0)))
            meshes.append(shapes.tree(np.array(at), rng.uniform(3.5, 13), rng))
        for s, side in self._spots(rng, 3.0):
            at, _ = self._at(s, side * (kerb + rng.uniform(-0.6, 1.0)))
            meshes.append(shapes.pole(rng.uniform(0.05, 0.18), rng.uniform(2.2, 9), "metal", at))
        for s, side in self._spots(rng, place.trees * 0.6):  # bushes
            at, _ = self._at(s, side * (kerb + rng.uniform(0.5, 12)))
            radius = rng.uniform(0.4, 1.4, 3)
            meshes.append(shapes.leaves(radius, np.array(at) + [0, 0, radius[2] * 0.8], int(rng.integers(30, 90)), rng))
        for s, side in self._spots(rng, 1.5):  # boxes, bins, kiosks
            at, heading = self._at(s, side * (kerb + rng.uniform(0.2, 3.0)))
            meshes.append(shapes.box(tuple(rng.uniform((0.4, 0.4, 0.6), (2.0, 1.2, 2.0))), "metal", at, heading))
        return meshes


def _speed_profile(speed_mps: float, rng: np.random.Generator) -> Callable[[float], float]:
    """Distance travelled by time t: a steady speed with a slow swing, never backwards."""
    swing, period, phase = rng.uniform(0, 0.25) * speed_mps, rng.uniform(6, 20), rng.uniform(0, 2 * np.pi)
    omega = 2 * np.pi / period
    return lambda t: speed_mps * t + swing / omega * (np.sin(phase) - np.sin(phase - omega * t))


def _along(
    s: float, d: float, facing: float, travel: Callable[[float], float]
) -> Callable[[float], tuple[float, float, float]]:
    yaw = 0.0 if facing > 0 else np.pi
    return lambda t: (s + facing * travel(t), d, yaw)


def _standing_at(s: float, d: float, yaw: float) -> Callable[[float], tuple[float, float, float]]:
    return lambda t: (s, d, yaw)


def _crossing(s: float, d: float, pace_mps: float) -> Callable[[float], tuple[float, float, float]]:
    return lambda t: (s, d + pace_mps * t, np.pi / 2 * np.sign(pace_mps))
