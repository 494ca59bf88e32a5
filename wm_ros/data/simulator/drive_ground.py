"""The ground of a simulated drive: a height map with road crown, pavements, slopes beside the road and roughness."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.drive_road import Line, Network, Street
from wm_ros.data.simulator.drive_shapes import MATERIALS, Mesh

Array = NDArray[np.float64]
CELL_M = 1.0
FINE = 2  # cells of the map of distances along each side of a cell of the height map
MARGIN_M = 95.0
KERB_TOP_M = 0.9


class Ground:
    """Heights and distances around the ego car's path.

    Attributes:
        edge_m: (rows, columns) float32, distance of each node of the height map to the nearest kerb, negative on roads.
    """

    def __init__(self, network: Network, ego: Line, rng: np.random.Generator) -> None:
        self.network, place = network, network.main.place
        self.low = np.array([ego.x.min(), ego.y.min()]) - MARGIN_M
        rows, columns = (int(n) for n in np.ceil(np.array([ego.y.max(), ego.x.max()]) + MARGIN_M - self.low[::-1]))
        self._fine = self._distance([self._outline(s) for s in network.streets], (rows, columns))
        self.edge_m = np.ascontiguousarray(self._fine[::FINE, ::FINE])
        self.kerb_m = (
            float(rng.choice([0.0, rng.uniform(0.08, 0.16)], p=[0.15, 0.85])) if place.pavement_m[1] > 2 else 0.0
        )
        self._slope = rng.normal(0, 0.01, 2)
        self._wave = rng.uniform(0.0, 0.06, 2), rng.uniform(70, 200, 2), rng.uniform(0, 2 * np.pi, (2, 2))
        y, x = (np.arange(n) * CELL_M + o for n, o in zip((rows, columns), self.low[::-1], strict=True))
        self.z = self._base(*np.meshgrid(x, y)) + self._relief(rng)
        mask = np.full((rows, columns), 255, np.uint8)
        path = self._pixels(ego.x, ego.y, 1.0)
        cv2.polylines(mask, [path], False, 0, 1, shift=4)
        mask[path[0, 1] >> 4, path[0, 0] >> 4] = 0  # a car that stands has a path of no length, which is not drawn
        self.from_ego_m = cv2.distanceTransform(mask, cv2.DIST_L2, 5) * CELL_M

    def _outline(self, street: Street) -> Array:
        line = street.line
        left, right = (np.stack(line.at(line.u, d)[:2], 1) for d in (street.half_m, -street.half_m))
        return np.concatenate([left, right[::-1]])

    def _pixels(self, x: Array, y: Array, per_cell: float) -> NDArray[np.int32]:
        """Points as OpenCV draws them, with four bits of fraction."""
        xy = (np.stack([x, y], 1) - self.low) * (per_cell / CELL_M) * 16
        return np.round(xy).astype(np.int32)

    def _distance(self, outlines: list[Array], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Signed distance to the nearest kerb on the fine grid."""
        road = np.zeros((shape[0] * FINE, shape[1] * FINE), np.uint8)
        for outline in outlines:
            cv2.fillPoly(road, [self._pixels(outline[:, 0], outline[:, 1], FINE)], 255, shift=4)
        outside, inside = (cv2.distanceTransform(m, cv2.DIST_L2, 5) for m in (255 - road, road))
        return np.asarray((outside - inside) * np.float32(CELL_M / FINE), np.float32)

    def _base(self, x: Array, y: Array) -> Array:
        amplitude, length, phase = self._wave
        z = self._slope[0] * x + self._slope[1] * y
        for i in range(2):
            a = np.sin(2 * np.pi * x / length[i] + phase[i, 0])
            z = z + amplitude[i] * a * np.cos(2 * np.pi * y / length[i] + phase[i, 1])
        return np.asarray(z)

    def _relief(self, rng: np.random.Generator) -> Array:
        """What is added to the rolling base: by distance from the kerb, and at random."""
        edge, place = self.edge_m, self.network.main.place
        rough = rng.normal(size=edge.shape).astype(np.float32)
        broad = cv2.resize(
            rng.normal(size=(12, 12)).astype(np.float32), edge.shape[::-1], interpolation=cv2.INTER_CUBIC
        )
        beside = np.clip(edge / 0.8, 0, 1)
        soft = np.clip((edge - self.network.main.pavement_m) / 2, 0, 1)
        grass = 0.015 + 0.04 * rng.random()
        crown = 0.02 * np.clip(-edge, 0, 4)
        bank = place.bank_m * float(rng.normal(0, 0.35)) * broad * np.clip((edge - 3) / 10, 0, 1)
        patches = cv2.GaussianBlur(rough, (0, 0), 2.0) * 0.06  # sunk and mended asphalt
        noise = rough * (0.006 + soft * (grass if place.built < 0.8 else 0.01))
        return np.asarray(crown + self.kerb_m * beside + bank + patches + noise, np.float64)

    def height(self, x: Array | float, y: Array | float) -> Array:
        """Ground height z of world places, metres; outside of the map that of its border."""
        return np.asarray(self._look(self.z, x, y, 1.0))

    def clear_m(self, x: Array | float, y: Array | float) -> Array:
        """Distance to the nearest kerb, negative on a road; outside of the map that of its border."""
        return np.asarray(self._look(self._fine, x, y, FINE))

    def _look(self, grid: NDArray[np.floating], x: Array | float, y: Array | float, per_cell: float) -> Array:
        """Bilinear."""
        column, row = (
            np.clip((np.asarray(v) - o) * per_cell / CELL_M, 0, n - 1.001)
            for v, o, n in zip((x, y), self.low, grid.shape[::-1], strict=True)
        )
        j, i = column.astype(np.int64), row.astype(np.int64)
        b, a = column - j, row - i
        top, bottom = (grid[k, j] * (1 - b) + grid[k, j + 1] * b for k in (i, i + 1))
        return np.asarray(top * (1 - a) + bottom * a)

    def mesh(self) -> Mesh:
        """The height map within reach of the ego car, and kerbs."""
        rows, columns = self.z.shape
        y, x = np.meshgrid(*(np.arange(n) * CELL_M for n in (rows, columns)), indexing="ij")
        vertices = np.stack([x + self.low[0], y + self.low[1], self.z], -1).reshape(-1, 3)
        index = np.arange(rows * columns).reshape(rows, columns)
        near = (self.from_ego_m < MARGIN_M)[:-1, :-1]
        a, b, c, d = (v[near] for v in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
        triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        main = self.network.main
        beyond = MATERIALS.index("concrete" if main.place.name in ("street", "square") else "grass")
        edge = self.edge_m[:-1, :-1][near]
        kinds = [MATERIALS.index("asphalt"), MATERIALS.index("concrete")]
        material = np.select([edge < 0, edge < main.pavement_m], kinds, beyond)
        return Mesh(vertices, triangles, np.tile(material, 2))

    def kerbs(self) -> list[Mesh]:
        """The stone edge of each side of each street, where no other street comes in."""
        return [self._kerb(street, side) for street in self.network.streets for side in (-1.0, 1.0) if self.kerb_m]

    def _kerb(self, street: Street, side: float) -> Mesh:
        u = street.line.u[::2]
        inner, outer = (street.line.at(u, side * (street.half_m + d)) for d in (0.0, KERB_TOP_M))
        z = self.height(*street.line.at(u, side * (street.half_m - 1.0))[:2])
        rows = [
            np.stack([inner[0], inner[1], z - 0.1], 1),
            np.stack([inner[0], inner[1], z + self.kerb_m], 1),
            np.stack([outer[0], outer[1], z + self.kerb_m], 1),
        ]
        open_road = np.abs(self.clear_m(*inner[:2])) < 0.6
        i = np.flatnonzero(open_road[:-1] & open_road[1:])
        n = len(u)
        quads = [[np.stack([p, p + 1, p + 1 + n], 1), np.stack([p, p + 1 + n, p + n], 1)] for p in (i, i + n)]
        triangles = np.concatenate([t for quad in quads for t in quad])
        return Mesh(np.concatenate(rows), triangles, np.full(len(triangles), MATERIALS.index("concrete")))
