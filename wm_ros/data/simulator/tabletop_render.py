"""Ray-cast pictures of rigid parts with Open3D (no GL): Lambert and ambient light, one lamp with cast shadows.

One primary ray per pixel; pixels on outlines get four more, so edges are smooth at little cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.raycasting import load_open3d
from wm_ros.data.simulator.tabletop_shapes import TABLE, Double, Part

Single = NDArray[np.float32]

_CORNERS = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))  # rotated grid, in pixels
_MISS = np.iinfo(np.uint32).max


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. `pose`: (4, 4) of the optical frame (x right, y down, z forward) in the world."""

    pose: Double
    focal_px: float
    width: int
    height: int

    def rays(self, columns: Double, rows: Double) -> Single:
        """Rays (N, 6), origin and direction, through pixel positions (N,) (0, 0 = middle of the first pixel)."""
        x = (columns - (self.width - 1) / 2) / self.focal_px
        y = (rows - (self.height - 1) / 2) / self.focal_px
        direction = np.stack([x, y, np.ones_like(x)], axis=-1) @ self.pose[:3, :3].T
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        return np.concatenate([np.broadcast_to(self.pose[:3, 3], direction.shape), direction], axis=-1).astype(
            np.float32
        )

    def project(self, points_m: Double) -> Double:
        """Pixel positions (N, 2), column and row, of points (N, 3) in the world; NaN for those behind."""
        seen = (points_m - self.pose[:3, 3]) @ self.pose[:3, :3]
        ahead = np.where(seen[:, 2:] > 1e-6, seen[:, 2:], np.nan)
        middle = np.array([self.width - 1, self.height - 1]) / 2
        pixels: Double = seen[:, :2] / ahead * self.focal_px + middle
        return pixels


@dataclass(frozen=True)
class Light:
    """A lamp and the sky.

    Attributes:
        position_m: (3,) of the lamp. lamp, ambient: (3,) linear colour. background: (3,) colour where no ray hits.
    """

    position_m: Double
    lamp: Double
    ambient: Double
    background: Double


class Renderer:
    """Pictures of a fixed set of parts, each at a new pose per picture."""

    def __init__(
        self, parts: Sequence[Part], light: Light, texture: Single, texel_m: float, centre_m: tuple[float, float]
    ) -> None:
        """`texture`: (A, B, 3) linear colours of the table, by x and y around `centre_m`, `texel_m` apart."""
        self._open3d = load_open3d()
        self._light = light
        self._texture, self._texel_m = texture, texel_m
        self._corner = np.array(texture.shape[:2]) / 2 - np.array(centre_m) / texel_m  # texel at the world's origin
        counts = [len(part.vertices) for part in parts]
        starts = np.cumsum([0, *counts[:-1]])
        self._vertices = np.concatenate([part.vertices for part in parts])
        self._normals = np.concatenate([part.normals for part in parts])
        self._part_of_vertex = np.repeat(np.arange(len(parts)), counts)
        self._triangles = np.concatenate([p.triangles + s for p, s in zip(parts, starts, strict=True)]).astype(
            np.uint32
        )
        self._part_of_triangle = np.repeat(np.arange(len(parts)), [len(part.triangles) for part in parts])
        self._colours = np.concatenate([part.colours for part in parts]).astype(np.float32)
        self._textured = np.array([part.texture == TABLE for part in parts])[self._part_of_triangle]

    def picture(self, camera: Camera, poses: Double) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 of the parts at `poses` (parts, 4, 4)."""
        turns = poses[self._part_of_vertex]
        vertices = (turns[:, :3, :3] @ self._vertices[..., None])[..., 0] + turns[:, :3, 3]
        normals = ((turns[:, :3, :3] @ self._normals[..., None])[..., 0]).astype(np.float32)
        core = self._open3d.core
        scene = self._open3d.t.geometry.RaycastingScene(nthreads=1)
        scene.add_triangles(core.Tensor(vertices.astype(np.float32)), core.Tensor(self._triangles))

        rows, columns = np.divmod(np.arange(camera.height * camera.width), camera.width)
        colour, part = self._shade(scene, camera.rays(columns.astype(float), rows.astype(float)), normals)
        edge = np.flatnonzero(_outline(part.reshape(camera.height, camera.width)))
        if len(edge):
            offsets = np.asarray(_CORNERS)
            fine_columns = (columns[edge, None] + offsets[:, 0]).ravel()
            fine_rows = (rows[edge, None] + offsets[:, 1]).ravel()
            fine, _ = self._shade(scene, camera.rays(fine_columns, fine_rows), normals)
            colour[edge] = fine.reshape(len(edge), len(offsets), 3).mean(axis=1)
        encoded = np.clip(colour, 0.0, 1.0) ** np.float32(1 / 2.2) * 255 + np.float32(0.5)
        return encoded.astype(np.uint8).reshape(camera.height, camera.width, 3)

    def _shade(self, scene: object, rays: Single, normals: Single) -> tuple[Single, NDArray[np.int64]]:
        """Linear colour (N, 3) and number of the part (N,), -1 where nothing is hit."""
        core = self._open3d.core
        answer = scene.cast_rays(core.Tensor(rays), nthreads=1)  # type: ignore[attr-defined]
        triangle = answer["primitive_ids"].numpy()
        hit = np.flatnonzero(triangle != _MISS)
        triangle, ray = triangle[hit].astype(np.int64), rays[hit]
        point = ray[:, :3] + ray[:, 3:] * answer["t_hit"].numpy()[hit, None]
        part = np.full(len(rays), -1, dtype=np.int64)
        part[hit] = self._part_of_triangle[triangle]

        # Most rays end on the flat table; only the others need their normals mixed from those of the corners.
        on_table = self._textured[triangle] & (normals[self._triangles[triangle, 0], 2] > 0.5)
        table, rest = np.flatnonzero(on_table), np.flatnonzero(~on_table)
        albedo, normal = np.empty_like(point), np.empty_like(point)
        albedo[table], normal[table] = self._look_up(point[table]), (0.0, 0.0, 1.0)
        albedo[rest] = self._colours[triangle[rest]]
        corner = normals[self._triangles[triangle[rest]]]
        u, v = answer["primitive_uvs"].numpy()[hit[rest]].T[:, :, None]
        mixed = corner[:, 0] + (corner[:, 1] - corner[:, 0]) * u + (corner[:, 2] - corner[:, 0]) * v
        mixed *= np.where(_dot(mixed, ray[rest, 3:]) > 0, np.float32(-1), np.float32(1))[:, None]
        normal[rest] = _unit(mixed)

        towards = _unit(self._light.position_m.astype(np.float32) - point)
        lamp = np.maximum(_dot(normal, towards), np.float32(0))
        lit = np.flatnonzero(lamp)
        shadow_rays = np.concatenate([point[lit] + np.float32(1e-3) * normal[lit], towards[lit]], axis=1)
        lamp[lit] *= ~scene.test_occlusions(core.Tensor(shadow_rays), 0.0, 10.0, nthreads=1).numpy()  # type: ignore[attr-defined]
        shine = np.zeros_like(lamp)
        half = _unit(towards[rest] - ray[rest, 3:])
        shine[rest] = np.float32(0.12) * (lamp[rest] > 0) * np.maximum(_dot(normal[rest], half), 0) ** 24
        sky = np.float32(0.8) + np.float32(0.2) * normal[:, 2]

        colour = np.tile(self._light.background.astype(np.float32), (len(rays), 1))
        for channel in range(3):  # by channel: broadcasting (N, 1) against (N, 3) is several times slower
            ambient, strength = np.float32(self._light.ambient[channel]), np.float32(self._light.lamp[channel])
            colour[hit, channel] = albedo[:, channel] * (ambient * sky + strength * lamp) + strength * shine
        return colour, part

    def _look_up(self, point: Single) -> Single:
        """Texture of the table at points (N, 3), the four nearest texels mixed."""
        rows, columns = self._texture.shape[:2]
        scale = np.float32(1 / self._texel_m)
        x = np.clip(point[:, 0] * scale + np.float32(self._corner[0]), 0, rows - np.float32(1.01))
        y = np.clip(point[:, 1] * scale + np.float32(self._corner[1]), 0, columns - np.float32(1.01))
        row, column = x.astype(np.int64), y.astype(np.int64)
        fx, fy = (x - row).astype(np.float32), (y - column).astype(np.float32)
        texel, first = self._texture.reshape(-1, 3), row * columns + column
        weights = ((1 - fx) * (1 - fy), (1 - fx) * fy, fx * (1 - fy), fx * fy)
        near = [texel.take(first + step, axis=0) for step in (0, 1, columns, columns + 1)]
        mixed = np.empty_like(point)
        for channel in range(3):
            mixed[:, channel] = sum(w * t[:, channel] for w, t in zip(weights, near, strict=True))
        return mixed


def _dot(a: Single, b: Single) -> Single:
    product: Single = a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]
    return product


def _unit(vectors: Single) -> Single:
    length = np.maximum(np.sqrt(_dot(vectors, vectors)), np.float32(1e-6))
    scaled: Single = (vectors / length[:, None]).astype(np.float32, copy=False)
    return scaled


def _outline(part: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels (H, W) beside one of another part."""
    edge = np.zeros(part.shape, dtype=bool)
    across, down = part[:, 1:] != part[:, :-1], part[1:] != part[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge
