"""A simulated drive: a spinning LiDAR on a car among road users, ray-cast with Open3D (no GL).

A sweep is a snapshot at its stamp: what a driver gives after removing the motion of the turn. Ranges have noise, rays
are lost on grazing, dark and far surfaces, intensity follows material and incidence, and coordinates are whole
multiples of 1/256 m (real sensors resolve 2 to 4 mm; it also lets a bag compress). The sensor is about 1.73 m above the
road, right above `base_link`, which is on the ground.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.drive_scene import Mover, Scene
from wm_ros.data.simulator.drive_shapes import REFLECTIVITY, Mesh, join
from wm_ros.data.simulator.raycasting import load_open3d
from wm_ros.errors import UserError
from wm_ros.types import Boxes, EgoPose, Sample, Sweep

START_NS = 1_000_000_000_000
STEP_M = 1 / 256
BOX_RANGE_M = 75.0


class Sensor:
    """A spinning LiDAR: rings as on an HDL-64E (dense above, sparse below), thinned or stretched to `beams`."""

    def __init__(self, beams: int, azimuths: int, rng: np.random.Generator) -> None:
        elevation = np.concatenate([2.0 - np.arange(32) / 3, -8.83 - np.arange(32) / 2])
        elevation = np.interp(np.linspace(0, 63, beams), np.arange(64), elevation) + rng.uniform(-0.3, 0.3)
        azimuth = 2 * np.pi * (np.arange(azimuths) + rng.random()) / azimuths
        e, a = np.meshgrid(np.deg2rad(elevation), -azimuth, indexing="ij")
        rays = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], -1)
        self.rays = rays.reshape(-1, 3)
        self.height_m = 1.73 + float(rng.normal(0, 0.04))
        self.noise_m = float(rng.uniform(0.01, 0.03))
        self.loss = float(rng.uniform(0.01, 0.06))
        self.reach_m = float(rng.uniform(80, 120))
        self.near_m = 2.0

    def measure(
        self,
        range_m: NDArray[np.float64],
        cosine: NDArray[np.float64],
        reflectivity: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """True hits → the (N, 4) points of a sweep. Inputs: one value for each ray, infinite range where none hit."""
        draws = rng.random((2, len(range_m)))
        # Returned power falls with the square of the range; below a threshold that varies the ray is lost.
        power = reflectivity * cosine * (50.0 / np.maximum(np.where(np.isfinite(range_m), range_m, 1e3), 5.0)) ** 2
        seen = np.isfinite(range_m) & (range_m > self.near_m) & (range_m < self.reach_m)
        seen &= (draws[0] > self.loss) & (power > 0.01 + 0.05 * draws[1])
        noisy = range_m[seen] + rng.normal(0, self.noise_m, int(seen.sum()))
        points = self.rays[seen] * noisy[:, None]
        intensity = np.clip(reflectivity * (0.25 + 0.75 * cosine), 0, 1)[seen]
        points = np.round(points / STEP_M) * STEP_M
        return np.concatenate([points, np.round(intensity, 2)[:, None]], 1).astype(np.float32)


class World:
    """Casts rays at what stands (built once) and what moves (built for each sweep)."""

    def __init__(self, static: Mesh, reflectivity: NDArray[np.float64]) -> None:
        self.o3d = load_open3d()
        self.reflectivity = reflectivity
        self.static, self.static_scene = static, self._scene(static)

    def cast(self, origin: NDArray[np.float64], rays: NDArray[np.float64], moving: Mesh | None) -> tuple[Any, Any, Any]:
        """(range_m, |cos incidence|, reflectivity) of the nearest hit of each ray."""
        query = np.concatenate([np.broadcast_to(origin, rays.shape), rays], 1).astype(np.float32)
        parts = [self._cast(self.static_scene, self.static, query)]
        if moving is not None:
            parts.append(self._cast(self._scene(moving), moving, query))
            nearer = parts[1][0] < parts[0][0]
            return tuple(np.where(nearer, b, a) for a, b in zip(*parts, strict=True))
        return parts[0]

    def _scene(self, mesh: Mesh) -> Any:
        scene = self.o3d.t.geometry.RaycastingScene(nthreads=1)
        tensor = self.o3d.core.Tensor
        scene.add_triangles(tensor(mesh.vertices.astype(np.float32)), tensor(mesh.triangles.astype(np.uint32)))
        return scene

    def _cast(self, scene: Any, mesh: Mesh, query: NDArray[np.float32]) -> tuple[Any, Any, Any]:
        hit = scene.cast_rays(self.o3d.core.Tensor(query), nthreads=1)
        range_m = hit["t_hit"].numpy().astype(np.float64)
        struck = np.isfinite(range_m)
        triangle = np.where(struck, hit["primitive_ids"].numpy().astype(np.int64), 0)
        cosine = np.abs((hit["primitive_normals"].numpy() * query[:, 3:]).sum(1)).astype(np.float64)
        return range_m, cosine, self.reflectivity[mesh.material[triangle]]


def drive_samples(
    seed: int,
    seconds: float = 6.0,
    beams: int = 64,
    azimuths: int = 1800,
    rate_hz: float = 10.0,
    speed_mps: float = -1.0,
) -> Iterator[Sample]:
    """One simulated drive: for each sweep its EgoPose (exact, with twist), Boxes (frame "lidar") and Sweep.

    Args:
        seed: of the scene, 0 or more.
        seconds: length, at most 20; what stands beside the road ends 220 m after the start.
        beams, azimuths: rays of a sweep. rate_hz: of the sweeps.
        speed_mps: mean speed of the ego car, around which it swings by up to a quarter; negative: drawn, 0 to 15.

    Raises:
        UserError: an argument out of range.
    """
    if seed < 0:
        raise UserError(f"drive: seed {seed}: give a whole number from 0 on")
    if not (
        0 < seconds <= 20 and 1 <= beams <= 256 and 36 <= azimuths <= 8192 and 1 <= rate_hz <= 50 and speed_mps <= 15
    ):
        raise UserError(
            f"drive: seconds {seconds}, beams {beams}, azimuths {azimuths}, rate_hz {rate_hz}, speed_mps {speed_mps}: "
            "give at most 20 s, 1–256 beams, 36–8192 azimuths, 1–50 Hz, at most 15 m/s"
        )
    rng = np.random.default_rng([seed, 1])
    scene = Scene(rng, speed_mps)
    sensor = Sensor(beams, azimuths, rng)
    world = World(scene.static, REFLECTIVITY * rng.uniform(0.7, 1.3, len(REFLECTIVITY)))
    mount = np.eye(4)
    mount[2, 3] = sensor.height_m
    start = scene.road.pose(0.0, scene.ego_lane)

    def ego(t_s: float) -> NDArray[np.float64]:
        return scene.road.pose(scene.ego(t_s), scene.ego_lane)

    for index in range(round(seconds * rate_hz)):
        t_s = index / rate_hz
        stamp_ns = START_NS + round(t_s * 1e9)
        body = ego(t_s)
        yield _pose(stamp_ns, np.linalg.inv(start) @ body, *_twist(ego(t_s - 0.01), ego(t_s + 0.01), 0.02))
        lidar = body @ mount
        placed = [(m, _place(scene, m, t_s)) for m in scene.movers if scene.road.holds(m.place(t_s)[0])]
        near = [(m, p) for m, p in placed if np.linalg.norm(p[:2, 3] - body[:2, 3]) < sensor.reach_m + 10]
        yield _boxes(stamp_ns, np.asarray(np.linalg.inv(lidar), np.float64), near)
        moving = join([m.body.mesh.moved(p) for m, p in near]) if near else None
        rays = np.einsum("ri,ji->rj", sensor.rays, lidar[:3, :3])  # no BLAS: the same bytes at any thread count
        points = sensor.measure(*world.cast(lidar[:3, 3], rays, moving), rng)
        yield Sweep(stamp_ns, "lidar", points)


def _place(scene: Scene, mover: Mover, t_s: float) -> NDArray[np.float64]:
    s, d, yaw = mover.place(t_s)
    c, n = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, -n, 0, 0], [n, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return np.asarray(scene.road.pose(s, d) @ turn, np.float64)


def _twist(before: NDArray[np.float64], after: NDArray[np.float64], dt_s: float) -> tuple[Any, Any]:
    """Linear and angular velocity in the body frame from two poses close in time."""
    change = np.linalg.inv(before) @ after
    r = change[:3, :3]
    return change[:3, 3] / dt_s, np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]) / 2 / dt_s


def _pose(stamp_ns: int, matrix: NDArray[np.float64], linear: Any, angular: Any) -> EgoPose:
    return EgoPose(stamp_ns, "odom", "base_link", matrix, linear, angular)


def _boxes(stamp_ns: int, to_lidar: NDArray[np.float64], placed: list[tuple[Any, NDArray[np.float64]]]) -> Boxes:
    rows, labels, tracks = [], [], []
    for mover, pose in placed:
        local = to_lidar @ pose
        if np.linalg.norm(local[:2, 3]) > BOX_RANGE_M:
            continue
        centre = (local @ [0, 0, mover.body.size_m[2] / 2, 1])[:3]
        rows.append([*centre, *mover.body.size_m, np.arctan2(local[1, 0], local[0, 0])])
        labels.append(mover.body.label)
        tracks.append(mover.track_id)
    boxes = np.array(rows, np.float32).reshape(-1, 7)
    return Boxes(stamp_ns, "lidar", boxes, tuple(labels), tuple(tracks))
