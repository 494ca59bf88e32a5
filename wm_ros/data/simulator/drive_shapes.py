"""Triangles of the things that a LiDAR meets beside the road. Each triangle has a material.

A `Builder` collects boxes, poles, foliage and sheets one by one and makes one mesh of all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Vec3 = Sequence[float] | NDArray[np.float64]

# name: diffuse reflectivity at the laser's wavelength (drawn around it by scene), share of rays that pass through
_MATERIALS = {
    "asphalt": (0.20, 0.0),
    "grass": (0.35, 0.0),
    "concrete": (0.40, 0.0),
    "leaves": (0.40, 0.03),
    "bark": (0.30, 0.0),
    "paint": (0.45, 0.0),
    "dark_paint": (0.07, 0.0),
    "glass": (0.04, 0.25),
    "cloth": (0.30, 0.0),
    "metal": (0.40, 0.0),
    "plate": (0.95, 0.0),
    "mesh_fence": (0.35, 0.6),
    "picket_fence": (0.40, 0.35),
    "brick": (0.35, 0.0),
}
MATERIALS = tuple(_MATERIALS)
REFLECTIVITY = np.array([_MATERIALS[name][0] for name in MATERIALS])
POROSITY = np.array([_MATERIALS[name][1] for name in MATERIALS])

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0.0, 1.0)])
_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4]]
    + [[1, 5, 7], [1, 7, 3]]
)
_POLE_SIDES = 6


@dataclass
class Mesh:
    """Triangles. vertices: (V, 3). triangles: (T, 3). material: (T,) index into `MATERIALS`."""

    vertices: Array
    triangles: NDArray[np.int64]
    material: NDArray[np.int64]

    def moved(self, matrix: NDArray[np.float64]) -> Mesh:
        """The same in another frame; `matrix` (4, 4) maps this one into it."""
        turned = np.einsum("vj,ij->vi", self.vertices, matrix[:3, :3])  # einsum: no BLAS, same bytes
        return Mesh(turned + matrix[:3, 3], self.triangles, self.material)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of all; an empty one of none."""
    if not meshes:
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros(0, np.int64))
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes[:-1])])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.triangles + o for m, o in zip(meshes, offsets, strict=True)]),
        np.concatenate([m.material for m in meshes]),
    )


def _turned(local: Array, yaw: Array, at: Array) -> Array:
    """(N, K, 3) places around the origin, turned by `yaw` (N,) and moved to `at` (N, 3)."""
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y, z = local[..., 0], local[..., 1], local[..., 2]
    return np.stack([c * x - s * y, s * x + c * y, z], -1) + at[:, None]


def _copies(places: Array, faces: NDArray[np.int64], material: NDArray[np.int64]) -> Mesh:
    """(N, K, 3) corners of N things with the same faces."""
    count, corners = places.shape[:2]
    triangles = (faces[None] + np.arange(count)[:, None, None] * corners).reshape(-1, 3)
    return Mesh(places.reshape(-1, 3), triangles, np.repeat(material, len(faces)))


@dataclass
class Builder:
    """Collects shapes; places are (x, y, z) of the middle of their foot, metres, yaw counter-clockwise in rad."""

    _boxes: list[tuple[float, ...]] = field(default_factory=list)
    _poles: list[tuple[float, ...]] = field(default_factory=list)
    _foliage: list[tuple[float, ...]] = field(default_factory=list)
    _meshes: list[Mesh] = field(default_factory=list)

    def box(self, size: Vec3, material: str, at: Vec3 = (0, 0, 0), yaw: float = 0.0) -> None:
        """A box (length, width, height)."""
        self._boxes.append((*size, *at, yaw, MATERIALS.index(material)))

    def pole(self, radius_m: float, height_m: float, material: str, at: Vec3 = (0, 0, 0)) -> None:
        self._poles.append((radius_m, height_m, *at, MATERIALS.index(material)))

    def foliage(self, radius: Vec3, centre: Vec3, count: int, size_m: float, yaw: float = 0.0, hedge: int = 0) -> None:
        """`count` triangles of about `size_m` at random in an ellipsoid, or in a box (`hedge` 1), of half axes
        `radius`: rays enter it and some pass."""
        self._foliage.append((*radius, *centre, yaw, size_m, hedge, count))

    def mesh(self, mesh: Mesh) -> None:
        self._meshes.append(mesh)

    def build(self, rng: np.random.Generator) -> Mesh:
        """One mesh of everything, in float64."""
        meshes = list(self._meshes)
        if self._boxes:
            rows = np.array(self._boxes)
            corners = _turned(_CORNERS[None] * rows[:, None, :3], rows[:, 6], rows[:, 3:6])
            meshes.append(_copies(corners, _FACES, rows[:, 7].astype(np.int64)))
        if self._poles:
            meshes.append(_prisms(np.array(self._poles)))
        if self._foliage:
            meshes.append(_leaves(np.array(self._foliage), rng))
        return join(meshes)


def _prisms(rows: Array) -> Mesh:
    """Standing cylinders of few sides from rows (radius, height, x, y, z, material)."""
    i = np.arange(_POLE_SIDES)
    j = (i + 1) % _POLE_SIDES
    faces = np.concatenate([np.stack([i, j, j + _POLE_SIDES], 1), np.stack([i, j + _POLE_SIDES, i + _POLE_SIDES], 1)])
    angle = i * 2 * np.pi / _POLE_SIDES
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(_POLE_SIDES)], 1)
    places = np.concatenate([ring, ring + [0, 0, 1]])[None] * rows[:, None, [0, 0, 1]] + rows[:, None, 2:5]
    return _copies(places, faces, rows[:, 5].astype(np.int64))


def _leaves(rows: Array, rng: np.random.Generator) -> Mesh:
    """Foliage from rows (half axes 3, centre 3, yaw, size, hedge or not, count)."""
    rows = rows[np.repeat(np.arange(len(rows)), rows[:, 9].astype(np.int64))]
    count = len(rows)
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    inside = direction * rng.random((count, 1)) ** 0.3
    inside = np.where(rows[:, 8:9] > 0, rng.uniform(-1, 1, (count, 3)), inside) * rows[:, :3]
    middle = _turned(inside[:, None], rows[:, 6], rows[:, 3:6])
    vertices = middle + rng.normal(size=(count, 3, 3)) * rows[:, 7, None, None]
    leaf = np.full(count, MATERIALS.index("leaves"))
    return Mesh(vertices.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3), leaf)
