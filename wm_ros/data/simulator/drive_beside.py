"""What stands beside the streets: pavements with poles and trees, plots with hedges and fences, houses, barriers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.drive_ground import Ground
from wm_ros.data.simulator.drive_house import add_house
from wm_ros.data.simulator.drive_road import Street
from wm_ros.data.simulator.drive_shapes import Builder

Array = NDArray[np.float64]
SIDES = (-1.0, 1.0)
SEEN_M = 88.0
WALLS = ("concrete", "brick", "concrete", "picket_fence")


class Dresser:
    """Puts things beside streets into `made`. drives: places (x, y, heading) of cars on private ground, for later."""

    def __init__(self, ground: Ground, rng: np.random.Generator) -> None:
        self.ground, self.rng, self.made = ground, rng, Builder()
        self.drives: list[tuple[float, float, float]] = []
        self._houses: list[tuple[float, float, float]] = []

    def street(self, street: Street) -> None:
        for side in SIDES:
            if street.place.name == "expressway":
                self._barriers(street, side)
            self._row(street, side)
            self._pavement(street, side)
            self._plots(street, side)
        if street.median_m > 0.8:
            self._median(street)

    # ------------------------------------------------------------------ where

    def _at(self, street: Street, u: float, d: float, clear_m: float = 0.0) -> tuple[list[float], float] | None:
        """Foot and heading of a place beside a street; None on a road, in a house, or where no ray comes."""
        x, y, heading = (float(v) for v in street.line.at(u, d))
        if float(self.ground.clear_m(x, y)) < clear_m or self._far(x, y):
            return None
        if any((x - hx) ** 2 + (y - hy) ** 2 < r * r for hx, hy, r in self._houses):
            return None
        return [x, y, float(self.ground.height(x, y))], heading

    def _far(self, x: float, y: float) -> bool:
        column, row = (int(v) for v in np.array([x, y]) - self.ground.low)
        rows, columns = self.ground.from_ego_m.shape
        return not (0 <= row < rows and 0 <= column < columns) or bool(self.ground.from_ego_m[row, column] > SEEN_M)

    def _spots(self, street: Street, per_100_m: float) -> Array:
        """Places along a street, at random."""
        u = street.line.u
        return self.rng.uniform(u[0], u[-1], self.rng.poisson(per_100_m * (u[-1] - u[0]) / 100))

    # ------------------------------------------------------------------ plants

    def tree(self, at: list[float], height_m: float) -> None:
        """Trunk and crown; of many the crown hangs as low as a person is tall."""
        rng = self.rng
        trunk = float(np.clip(height_m * rng.uniform(0.12, 0.4), 0.6, 3.5))
        radius = [height_m * rng.uniform(0.16, 0.3)] * 2 + [(height_m - trunk) * 0.5]
        self.made.pole(float(rng.uniform(0.08, 0.3)), trunk + 0.8, "bark", at)
        centre = [at[0], at[1], at[2] + trunk + radius[2] * 0.92]
        self.made.foliage(radius, centre, int(min(160 + 80 * radius[0] * radius[2], 700)), 0.32)

    def bush(self, at: list[float], largest_m: float) -> None:
        radius = self.rng.uniform(0.4, largest_m, 3)
        count = int(40 + 70 * radius[0] * radius[2])
        self.made.foliage(radius, [at[0], at[1], at[2] + radius[2] * 0.75], count, 0.22)

    def _edge(self, street: Street, d: float, u0: float, u1: float, kind: str, height: float, material: str) -> None:
        """A hedge, fence or wall along a street, in pieces of up to 3 m that follow ground and road."""
        pieces = max(1, round((u1 - u0) / 3.0))
        length = (u1 - u0) / pieces
        for u in u0 + (np.arange(pieces) + 0.5) * length:
            place = self._at(street, u, d, 0.4)
            if place is None:
                continue
            at, heading = place
            if kind == "hedge":
                half = [length / 2, self.rng.uniform(0.25, 0.6), height / 2]
                middle = [at[0], at[1], at[2] + height / 2]
                self.made.foliage(half, middle, int(length * (20 + 24 * height)), 0.2, heading, 1)
            elif kind == "bushes":
                self.bush(at, 1.3)
            elif kind == "rail":
                self.made.box((length, 0.1, 0.32), "metal", [at[0], at[1], at[2] + 0.45], heading)
                self.made.box((0.12, 0.1, 0.7), "metal", at, heading)
            else:
                self.made.box((length, 0.06 if kind == "fence" else 0.25, height), material, at, heading)
                if kind == "fence":
                    self.made.pole(0.04, height + 0.05, "metal", at)

    # ------------------------------------------------------------------ rows along the street

    def _barriers(self, street: Street, side: float) -> None:
        """Guard rail, and here and there a noise barrier behind it."""
        rng, u, d = self.rng, street.line.u, side * (street.half_m + 0.6)
        if rng.random() < 0.8:
            self._edge(street, d, float(u[0]), float(u[-1]), "rail" if rng.random() < 0.8 else "wall", 0.8, "concrete")
        begin = float(u[0])
        while begin < u[-1]:
            end = min(begin + rng.uniform(30, 120), float(u[-1]))
            draw, back = rng.random(), side * (street.half_m + rng.uniform(2.0, 6.0))
            if draw < 0.4:
                self._edge(street, back, begin, end, "wall", rng.uniform(2.0, 4.5), "concrete")
            elif draw < 0.8:
                for u_bush in rng.uniform(begin, end, int((end - begin) / 2.2)):
                    place = self._at(street, u_bush, back + side * rng.exponential(3.0), 1.0)
                    if place is not None:
                        self.bush(place[0], 2.2)
            begin = end

    def _median(self, street: Street) -> None:
        """Between the directions: rail, wall, hedge or nothing."""
        kind = str(self.rng.choice(["rail", "wall", "hedge", "none"], p=[0.4, 0.2, 0.2, 0.2]))
        u = np.arange(street.line.u[0], street.line.u[-1], 3.0)
        for begin in u if kind != "none" else ():
            x, y, heading = (float(v) for v in street.line.at(begin))
            if float(self.ground.clear_m(x, y)) < -street.half_m - 1.0 or self._far(x, y):
                continue
            at = [x, y, float(self.ground.height(x, y))]
            if kind == "hedge":
                half = [1.5, min(street.median_m, 1.4) / 2 - 0.1, 0.5]
                self.made.foliage(half, [x, y, at[2] + 0.5], 70, 0.12, heading, 1)
            elif kind == "rail":
                self.made.box((3.0, 0.2, 0.32), "metal", [x, y, at[2] + 0.45], heading)
            else:
                self.made.box((3.02, 0.4, 0.85), "concrete", at, heading)

    def _row(self, street: Street, side: float) -> None:
        """What repeats along the kerb: lamps, bollards, a row of trees, reflector posts."""
        rng, u = self.rng, street.line.u
        d = side * (street.half_m + rng.uniform(0.4, 0.9))
        rows = [(rng.uniform(22, 40), "lamp", 0.8)]
        rows.append((rng.uniform(6, 14), "tree", 0.35 if street.place.trees > 4.5 else 0.1))
        rows.append((rng.uniform(1.6, 3), "bollard", 0.15 if street.place.built > 0.5 else 0.0))
        rows.append((rng.uniform(20, 45), "reflector", 0.7 if street.place.built < 0.5 else 0.0))
        for step, kind, chance in rows:
            if rng.random() > chance:
                continue
            for where in np.arange(u[0] + rng.uniform(0, step), u[-1], step):
                place = self._at(street, where, d, 0.2)
                if place is None or rng.random() < 0.15:
                    continue
                if kind == "tree":
                    self.tree(place[0], rng.uniform(4, 9))
                else:
                    radius, height = {"lamp": (0.09, 7.0), "bollard": (0.06, 0.9), "reflector": (0.06, 1.0)}[kind]
                    self.made.pole(radius, height, "metal", place[0])

    def _pavement(self, street: Street, side: float) -> None:
        """What stands about on a pavement: signs, boxes, bins, shelters."""
        rng = self.rng
        for u in self._spots(street, 3.0 if street.place.built > 0.5 else 1.0):
            place = self._at(street, u, side * (street.half_m + rng.uniform(0.3, street.pavement_m + 0.3)), 0.2)
            if place is None:
                continue
            at, heading = place
            kind = rng.random()
            if kind < 0.45:
                self.made.pole(0.04, 2.4, "metal", at)
                self.made.box((0.05, rng.uniform(0.4, 0.9), 0.6), "plate", [at[0], at[1], at[2] + 1.9], heading)
            elif kind < 0.9:
                size = rng.uniform((0.4, 0.4, 0.7), (1.4, 0.8, 1.5))
                self.made.box(size, "metal", at, heading)
            else:
                self.made.box((3.5, 0.1, 2.3), "glass", at, heading)
                self.made.box((3.6, 1.4, 0.15), "metal", [at[0], at[1], at[2] + 2.3], heading)

    def _plots(self, street: Street, side: float) -> None:
        """Plot after plot: what bounds it, what grows on it, and a house on most."""
        rng, place = self.rng, street.place
        u, end = float(street.line.u[0]), float(street.line.u[-1])
        back = street.half_m + street.pavement_m
        same = float(rng.uniform(*place.setback_m))  # houses of a street keep a line
        kinds = ("open", "hedge", "fence", "wall", "bushes")
        while u < end:
            width = float(rng.uniform(8, 24))
            edge_d = side * (back + rng.uniform(0.1, 0.5))
            setback = max(0.2, same + rng.normal(0, 0.5)) if rng.random() < 0.8 else rng.uniform(*place.setback_m)
            house = rng.random() < place.built
            if not house or setback > 1.5:
                kind = str(rng.choice(kinds, p=place.bounds))
                gate = float(rng.uniform(0, 3.5)) if house else 0.0
                material = (
                    str(rng.choice(("mesh_fence", "picket_fence"))) if kind == "fence" else str(rng.choice(WALLS))
                )
                if kind != "open":
                    height = float(rng.uniform(0.7, 2.0))
                    self._edge(street, edge_d, u, u + width - gate, kind, height, material)
                if rng.random() < 0.4 and place.built > 0.4 and setback > 4:  # between neighbours
                    for d in np.arange(back + 0.5, back + setback + 6, 2.0):
                        spot = self._at(street, u, side * d, 0.5)
                        if spot is not None:
                            self.made.foliage([0.4, 1.0, 0.7], np.add(spot[0], [0, 0, 0.7]), 45, 0.12, spot[1], 1)
                if gate > 2.4 and setback > 5:
                    x, y, heading = (float(v) for v in street.line.at(u + width - gate / 2, side * (back + 2.8)))
                    self.drives.append((x, y, heading + side * np.pi / 2 * rng.choice(SIDES)))
            if house:
                self._house(street, side, u, width, back + setback)
            elif rng.random() < 0.9:
                self._thicket(street, side, u, width, back + min(same, 10.0) * float(rng.uniform(0.1, 0.8)))
            self._garden(street, side, u, width, back, setback if house else 25.0)
            u += width + (rng.uniform(0, 3) if rng.random() < 0.85 else rng.uniform(4, 12))

    def _thicket(self, street: Street, side: float, u: float, width: float, front_d: float) -> None:
        """A wild edge: bushes and low trees close together, which nothing is seen behind."""
        rng = self.rng
        for where in np.arange(u, u + width, 1.1):
            d = side * (front_d + rng.exponential(1.2))
            spot = self._at(street, where + rng.normal(0, 0.4), d, 1.0)
            if spot is not None and rng.random() < 0.25:
                self.tree(spot[0], rng.uniform(3, 9))
            elif spot is not None:
                self.bush(spot[0], 2.0)

    def _garden(self, street: Street, side: float, u: float, width: float, back: float, depth: float) -> None:
        rng, green = self.rng, 0.35 if street.place.name in ("street", "square") else 1.0
        for _ in range(rng.poisson(green * 0.012 * width * min(depth, 12))):
            spot = self._at(street, u + rng.uniform(0, width), side * (back + rng.uniform(0.5, max(0.5, depth))), 1.0)
            if spot is not None:
                self.bush(spot[0], 1.1)
        for _ in range(rng.poisson(street.place.trees * width / 100)):
            d = back + (rng.uniform(0.8, depth) if depth > 1.5 else rng.uniform(-1, 0))
            spot = self._at(street, u + rng.uniform(0, width), side * d, 1.2)
            if spot is not None:
                self.tree(spot[0], rng.uniform(3, 12))

    def _house(self, street: Street, side: float, u: float, width: float, front_d: float) -> None:
        rng, depth = self.rng, float(self.rng.uniform(7, 14))
        front = width - (rng.uniform(0, 4) if street.place.name == "residential" else 0.0)
        place = self._at(street, u + front / 2, side * (front_d + depth / 2), depth / 2)
        if place is None or float(self.ground.clear_m(*place[0][:2])) < max(depth, front) / 2 + 0.5:
            return
        at, heading = place
        heading += float(rng.normal(0, 0.02))
        add_house(self.made, rng, (at[0], at[1], at[2] - 0.5), heading, front, depth, side)
        self._houses.append((at[0], at[1], min(depth, front) / 2))
