"""A simulated drive: a spinning LiDAR on a car among road users, ray-cast with Open3D (no GL).

A sweep is a snapshot at its stamp: what a driver gives after removing the motion of the turn. Ranges have noise, rays
are lost on grazing, dark and far surfaces and on the car's own roof, edges give points in between, and coordinates are
whole multiples of 1/256 m (real sensors resolve 2 to 4 mm; it also lets a bag compress). The sensor is about 1.73 m
above the road, right above `base_link`, whose axes are parallel to its own and which is about on the ground.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.drive_scene import Scene
from wm_ros.data.simulator.drive_sensor import Sensor
from wm_ros.data.simulator.drive_shapes import REFLECTIVITY, join
from wm_ros.data.simulator.drive_users import User
from wm_ros.data.simulator.drive_world import World
from wm_ros.errors import UserError
from wm_ros.types import Boxes, EgoPose, Sample, Sweep

START_NS = 1_000_000_000_000
BOX_RANGE_M = 75.0
Array = NDArray[np.float64]


def drive_samples(
    seed: int,
    seconds: float = 6.0,
    beams: int = 64,
    azimuths: int = 1800,
    rate_hz: float = 10.0,
    speed_mps: float = -1.0,
    odometry_noise: float = 0.0,
) -> Iterator[Sample]:
    """One simulated drive: for each sweep its EgoPose (with twist), Boxes (frame "lidar") and Sweep.

    Args:
        seed: of the scene, 0 or more.
        seconds: length, at most 20.
        beams, azimuths: rays of a sweep. rate_hz: of the sweeps.
        speed_mps: mean speed of the ego car, around which it swings by up to a quarter (slower where it turns off);
            negative: drawn, 0 to 15, with stops and starts in some drives.
        odometry_noise: 0 for exact poses; 1 for errors as of good LiDAR odometry: 1 % of the way, 0.05° and 1 cm a
            sweep; other values scale them. Scenes and sweeps are the same at any value.

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
    if not 0 <= odometry_noise <= 100:
        raise UserError(f"drive: odometry_noise {odometry_noise}: give 0 (exact) to 100")
    rng = np.random.default_rng([seed, 1])
    scene = Scene(rng, speed_mps)
    sensor = Sensor(beams, azimuths, rng)
    world = World(scene.static)
    reflectivity = (REFLECTIVITY * rng.uniform(0.7, 1.3, len(REFLECTIVITY))).astype(np.float32)
    car = _Car(scene, sensor, rng)
    drift = _Drift(odometry_noise, np.random.default_rng([seed, 2]))
    start = car.pose(0.0)
    for index in range(round(seconds * rate_hz)):
        t_s = index / rate_hz
        stamp_ns = START_NS + round(t_s * 1e9)
        body = car.pose(t_s)
        pose = drift.add(np.linalg.inv(start) @ body)
        yield EgoPose(stamp_ns, "odom", "base_link", pose, *_twist(car.pose(t_s - 0.01), car.pose(t_s + 0.01), 0.02))
        lidar = body.copy()
        lidar[:3, 3] += body[:3, 2] * sensor.height_m
        placed = [(user, user.place(t_s)) for user in scene.users]
        near = [
            (user, scene.pose(*at))
            for user, at in placed
            if np.hypot(at[0] - lidar[0, 3], at[1] - lidar[1, 3]) < min(sensor.reach_m + 10, 90)
        ]
        yield _boxes(stamp_ns, np.asarray(np.linalg.inv(lidar), np.float64), near)
        meshes = [user.body.mesh.moved(pose) for user, pose in near if user.track.moves]
        rotation = lidar[:3, :3].astype(np.float32)
        rays = np.einsum("ri,ji->rj", sensor.rays, rotation)  # no BLAS: the same bytes at any thread count
        origins = lidar[:3, 3].astype(np.float32) + sensor.start_z[:, None] * rotation[:, 2]
        hits = world.cast(origins, rays, join(meshes) if meshes else None, rng)
        points = sensor.measure(hits.range_m, hits.cosine, reflectivity[hits.material], rng, hits.material)
        yield Sweep(stamp_ns, "lidar", points)


class _Car:
    """The ego car's body on its springs, with the axes of the sensor: it nods when it brakes and rolls in the waves."""

    def __init__(self, scene: Scene, sensor: Sensor, rng: np.random.Generator) -> None:
        self._scene, self._tilt = scene, sensor.tilt
        self._waves = rng.uniform(0.5, 1.8, 4), rng.uniform(0, 2 * np.pi, 4), rng.uniform(0, np.deg2rad(0.08), 4)

    def pose(self, t_s: float) -> Array:
        """(4, 4) in the world."""
        hz, phase, size = self._waves
        pace = min(1.0, self._scene.speed_mps / 5.0)
        wave = pace * size * np.sin(2 * np.pi * hz * t_s + phase)
        nod = float(np.clip(-self._scene.ego.accel_mps2(t_s) * np.deg2rad(0.2), -0.01, 0.01))
        roll, pitch = self._tilt[0] + wave[0] + wave[1], self._tilt[1] + wave[2] + wave[3] + nod
        return np.asarray(self._scene.pose(*self._scene.ego.at(t_s)) @ _rotation(roll, pitch, 0.0), np.float64)


class _Drift:
    """Odometry that is a little wrong: errors add up as the car goes on."""

    def __init__(self, noise: float, rng: np.random.Generator) -> None:
        self._noise, self._rng = noise, rng
        self._scale = 1 + 0.01 * noise * float(rng.normal())
        self._true, self._told = np.eye(4), np.eye(4)

    def add(self, true: Array) -> Array:
        """The pose told for a true one; both relative to the start."""
        if self._noise == 0:
            return true
        step = np.linalg.inv(self._true) @ true
        step[:3, 3] = step[:3, 3] * self._scale + self._rng.normal(0, 0.01 * self._noise, 3) * [1, 1, 0.5]
        turned = np.deg2rad(0.05) * self._noise * self._rng.normal(size=3)
        self._true, self._told = true, self._told @ step @ _rotation(*turned)
        return self._told.copy()


def _rotation(roll: float, pitch: float, yaw: float) -> Array:
    """(4, 4), small angles or large, applied in the order roll, pitch, yaw."""
    (cr, sr), (cp, sp), (cy, sy) = ((np.cos(a), np.sin(a)) for a in (roll, pitch, yaw))
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return matrix


def _twist(before: Array, after: Array, dt_s: float) -> tuple[Any, Any]:
    """Linear and angular velocity in the body frame from two poses close in time."""
    change = np.linalg.inv(before) @ after
    r = change[:3, :3]
    return change[:3, 3] / dt_s, np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]) / 2 / dt_s


def _boxes(stamp_ns: int, to_lidar: Array, placed: list[tuple[User, Array]]) -> Boxes:
    """Everybody within `BOX_RANGE_M`, moving or standing, seen or hidden."""
    rows, labels, tracks = [], [], []
    for user, pose in placed:
        local = to_lidar @ pose
        if np.hypot(local[0, 3], local[1, 3]) > BOX_RANGE_M:
            continue
        centre = (local @ [0, 0, user.body.size_m[2] / 2, 1])[:3]
        rows.append([*centre, *user.body.size_m, np.arctan2(local[1, 0], local[0, 0])])
        labels.append(user.body.label)
        tracks.append(user.track_id)
    boxes = np.array(rows, np.float32).reshape(-1, 7)
    return Boxes(stamp_ns, "lidar", boxes, tuple(labels), tuple(tracks))
