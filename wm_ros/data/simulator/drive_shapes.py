"""Triangles of the things that a LiDAR meets: boxes, poles, trees, vehicles, people. Each triangle has a material."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Diffuse reflectivity at the laser's wavelength, by material; drawn around these values by scene.
MATERIALS = (
    "asphalt",
    "grass",
    "concrete",
    "leaves",
    "bark",
    "paint",
    "dark_paint",
    "glass",
    "cloth",
    "metal",
    "plate",
)
REFLECTIVITY = np.array([0.17, 0.35, 0.45, 0.40, 0.30, 0.45, 0.06, 0.03, 0.30, 0.40, 0.95])

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0.0, 1.0)])
_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4]]
    + [[1, 5, 7], [1, 7, 3]]
)


@dataclass
class Mesh:
    """Triangles. vertices: (V, 3). triangles: (T, 3). material: (T,) index into `MATERIALS`."""

    vertices: Array
    triangles: NDArray[np.int64]
    material: NDArray[np.int64]

    def moved(self, matrix: NDArray[np.float64]) -> Mesh:
        """The same in another frame; `matrix` (4, 4) maps this one into it."""
        return Mesh(self.vertices @ matrix[:3, :3].T + matrix[:3, 3], self.triangles, self.material)


def join(meshes: list[Mesh]) -> Mesh:
    """One mesh of all."""
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes[:-1])])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.triangles + o for m, o in zip(meshes, offsets, strict=True)]),
        np.concatenate([m.material for m in meshes]),
    )


def box(
    size: tuple[float, float, float], material: str, at: tuple[float, float, float] = (0, 0, 0), yaw: float = 0
) -> Mesh:
    """A box (length, width, height in metres) standing on `at`, turned by `yaw` (rad, CCW)."""
    c, s = np.cos(yaw), np.sin(yaw)
    corners = _CORNERS * size @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + at
    return Mesh(corners, _FACES.copy(), np.full(len(_FACES), MATERIALS.index(material)))


def pole(radius_m: float, height_m: float, material: str, at: tuple[float, float, float]) -> Mesh:
    """A standing cylinder of eight sides."""
    angle = np.arange(8) * np.pi / 4
    ring = np.stack([radius_m * np.cos(angle), radius_m * np.sin(angle), np.zeros(8)], 1)
    vertices = np.concatenate([ring, ring + [0, 0, height_m]]) + at
    i = np.arange(8)
    j = (i + 1) % 8
    triangles = np.concatenate([np.stack([i, j, j + 8], 1), np.stack([i, j + 8, i + 8], 1)])
    return Mesh(vertices, triangles, np.full(16, MATERIALS.index(material)))


def leaves(radius_m: Array, centre: Array, count: int, rng: np.random.Generator) -> Mesh:
    """Foliage: `count` small triangles at random in an ellipsoid, so that rays enter it and some pass."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    middle = centre + direction * rng.random((count, 1)) ** 0.45 * radius_m
    size = 0.28 * float(np.mean(radius_m)) ** 0.5
    vertices = (middle[:, None] + rng.normal(0, size, (count, 3, 3))).reshape(-1, 3)
    return Mesh(vertices, np.arange(3 * count).reshape(-1, 3), np.full(count, MATERIALS.index("leaves")))


def tree(at: Array, height_m: float, rng: np.random.Generator) -> Mesh:
    """Trunk and crown."""
    trunk = height_m * rng.uniform(0.25, 0.45)
    radius = np.array([1.0, 1.0, 0.0]) * height_m * rng.uniform(0.16, 0.3) + [0, 0, (height_m - trunk) * 0.55]
    crown = leaves(radius, np.asarray(at) + [0, 0, trunk + radius[2] * 0.85], int(rng.integers(110, 240)), rng)
    return join([pole(rng.uniform(0.1, 0.3), trunk + 0.6, "bark", tuple(at)), crown])


@dataclass(frozen=True)
class Body:
    """A road user. size_m: its true box (length, width, height). mesh: centred on its place on the ground, x ahead."""

    label: str
    size_m: tuple[float, float, float]
    mesh: Mesh


def vehicle(rng: np.random.Generator) -> Body:
    """A car, van or truck: wheels, a lower body, a cabin that is mostly glass."""
    label = str(rng.choice(["car", "car", "car", "car", "van", "truck"]))
    least, most = {
        "car": ((3.6, 1.6, 1.4), (5.0, 1.95, 1.75)),
        "van": ((4.6, 1.8, 1.9), (6.2, 2.1, 2.6)),
        "truck": ((6.5, 2.2, 2.8), (12.0, 2.55, 3.8)),
    }[label]
    length, width, height = (float(v) for v in rng.uniform(least, most))
    paint = "dark_paint" if rng.random() < 0.35 else "paint"
    wheel = [
        box((0.6, 0.22, 0.6), "dark_paint", (sx * length * 0.32, sy * (width / 2 - 0.12), 0))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    if label == "car":
        waist, back = height * 0.58, rng.uniform(-0.12, 0.0) * length
        cabin = box((length * 0.52, width * 0.86, height - waist), "glass", (back, 0, waist))
        roof = box((length * 0.42, width * 0.8, 0.05), paint, (back, 0, height - 0.05))
        parts = [box((length, width, waist - 0.25), paint, (0, 0, 0.25)), cabin, roof]
    else:
        cab = min(2.2, length * 0.3)
        load = box((length - cab - 0.2, width, height - 0.6), paint, (-cab / 2 - 0.1, 0, 0.6))
        front = box((cab, width * 0.96, min(height, 2.6) - 0.4), paint, ((length - cab) / 2, 0, 0.4))
        parts = [load, front, box((length * 0.9, width * 0.7, 0.35), "dark_paint", (0, 0, 0.3))]
    plate = box((0.02, 0.5, 0.12), "plate", (-length / 2 - 0.01, 0, 0.6))
    return Body(label, (length, width, height), join([*parts, *wheel, plate]))


def pedestrian(rng: np.random.Generator, stride: float) -> Body:
    """A person in mid-step; `stride` in −1..1 says how far the legs are apart."""
    height, width = float(rng.uniform(1.5, 1.9)), float(rng.uniform(0.42, 0.58))
    hip, reach = height * 0.5, 0.22 * stride
    legs = [box((0.16, 0.15, hip), "cloth", (sign * reach, sign * 0.1, 0)) for sign in (-1, 1)]
    torso = box((0.26, width, height * 0.36), "cloth", (0, 0, hip))
    head = pole(0.1, height * 0.14, "cloth", (0, 0, height * 0.86))
    return Body("pedestrian", (0.6, width, height), join([*legs, torso, head]))


def cyclist(rng: np.random.Generator) -> Body:
    """A bicycle with its rider."""
    length, height = float(rng.uniform(1.6, 1.85)), float(rng.uniform(1.6, 1.85))
    wheels = [box((0.6, 0.05, 0.65), "metal", (sign * (length / 2 - 0.32), 0, 0)) for sign in (-1, 1)]
    rider = [
        box((0.3, 0.42, height * 0.36), "cloth", (-0.05, 0, height * 0.5)),
        pole(0.1, height * 0.14, "cloth", (0.1, 0, height * 0.86)),
        box((0.25, 0.3, height * 0.3), "cloth", (-0.1, 0, height * 0.25)),
        box((0.06, 0.5, 0.06), "metal", (length * 0.25, 0, 0.95)),
    ]
    return Body("cyclist", (length, 0.6, height), join([*wheels, *rider]))
