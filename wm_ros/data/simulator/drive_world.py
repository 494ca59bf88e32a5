"""Ray-casting (Open3D, no GL) at what stands, built once, and at what moves, built for each sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.drive_shapes import POROSITY, Mesh
from wm_ros.data.simulator.raycasting import load_open3d

Float = NDArray[np.float32]
THROUGH_M = 0.02
LAYERS = 2


@dataclass
class Hits:
    """What each ray meets. range_m: (R,) infinite where nothing. cosine: of incidence. material: see `MATERIALS`."""

    range_m: Float
    cosine: Float
    material: NDArray[np.int64]


class World:
    """The scene as rays see it; rays pass through porous materials by chance."""

    def __init__(self, static: Mesh) -> None:
        self.o3d = load_open3d()
        self._static = self._scene(static), static.material

    def cast(self, origins: Float, rays: Float, moving: Mesh | None, rng: np.random.Generator) -> Hits:
        """Nearest hits of rays (R, 3) from `origins` (R, 3)."""
        targets = [self._static] + ([] if moving is None else [(self._scene(moving), moving.material)])
        query = np.concatenate([origins, rays], 1)
        found = self._nearest(targets, query)
        for _ in range(LAYERS):
            porosity = POROSITY.astype(np.float32)[found.material] * np.isfinite(found.range_m)
            through = np.flatnonzero(rng.random(len(porosity), dtype=np.float32) < porosity)
            if not len(through):
                break
            gone = found.range_m[through] + np.float32(THROUGH_M)
            part = query[through]
            part[:, :3] += gone[:, None] * part[:, 3:]
            behind = self._nearest(targets, part)
            found.range_m[through] = behind.range_m + gone
            found.cosine[through], found.material[through] = behind.cosine, behind.material
        return found

    def _nearest(self, targets: list[tuple[Any, NDArray[np.int64]]], query: Float) -> Hits:
        first = self._cast(*targets[0], query)
        for scene, material in targets[1:]:
            other = self._cast(scene, material, query)
            nearer = np.flatnonzero(other.range_m < first.range_m)
            for mine, its in ((first.range_m, other.range_m), (first.cosine, other.cosine)):
                mine[nearer] = its[nearer]
            first.material[nearer] = other.material[nearer]
        return first

    def _scene(self, mesh: Mesh) -> Any:
        scene = self.o3d.t.geometry.RaycastingScene(nthreads=1)
        tensor = self.o3d.core.Tensor
        scene.add_triangles(tensor(mesh.vertices.astype(np.float32)), tensor(mesh.triangles.astype(np.uint32)))
        return scene

    def _cast(self, scene: Any, material: NDArray[np.int64], query: Float) -> Hits:
        hit = scene.cast_rays(self.o3d.core.Tensor(query), nthreads=1)
        range_m = hit["t_hit"].numpy()
        triangle = np.where(np.isfinite(range_m), hit["primitive_ids"].numpy(), 0)
        normal = hit["primitive_normals"].numpy()
        cosine = np.abs(normal[:, 0] * query[:, 3] + normal[:, 1] * query[:, 4] + normal[:, 2] * query[:, 5])
        return Hits(range_m.copy(), cosine, material[triangle])
