"""KITTI raw drives as samples: sweeps, camera images, and ego-motion.

Layout (as published): `velodyne_points/data/*.bin`, and where there are, `velodyne_points/timestamps.txt`,
`image_02/data/*.{png,jpg}`, `oxts/data/*.txt`, `calib_imu_to_velo.txt` beside the drive or in it. Ego-motion comes from
`oxts` (Mercator projection of the development kit); without it, it is estimated from the sweeps by kiss-icp.

The data is under CC BY-NC-SA 3.0: weights trained on it inherit that.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from wm_ros.data.sources import Episode
from wm_ros.errors import UserError
from wm_ros.types import EgoPose, Frame, Sample, Sweep

LICENCE = "CC BY-NC-SA 3.0 (KITTI)"
START_NS = 1_000_000_000_000
PERIOD_NS = 100_000_000
EARTH_RADIUS_M = 6378137.0
MAX_RANGE_M = 100.0
Poses = NDArray[np.float64]


def kitti_episode(path: Path) -> Episode:
    """The drive in folder `path`. Raises UserError where its sweeps are missing or do not fit their timestamps."""
    path = Path(path)
    sweeps = sorted((path / "velodyne_points" / "data").glob("*.bin"))
    if not sweeps:
        raise UserError(f"'{path}': no velodyne_points/data/*.bin; give a KITTI raw drive (…_drive_0001_sync)")
    stamps = _stamps(path / "velodyne_points" / "timestamps.txt", sweeps)
    return Episode(path.name, LICENCE, lambda: _samples(path, sweeps, stamps))


def _samples(path: Path, sweeps: list[Path], stamps: list[int]) -> Iterator[Sample]:
    poses = _oxts_poses(path, sweeps)
    if poses is None:
        poses = estimate_poses(sweeps)
    linear, angular = _twists(poses, stamps)
    for index, (file, stamp_ns) in enumerate(zip(sweeps, stamps, strict=True)):
        yield EgoPose(stamp_ns, "odom", "lidar", poses[index], linear[index], angular[index])
        for suffix in ("png", "jpg"):
            image = path / "image_02" / "data" / f"{file.stem}.{suffix}"
            if image.is_file():
                bgr = cv2.imread(str(image), cv2.IMREAD_COLOR)
                if bgr is None:
                    raise UserError(f"'{image}' is not an image; remove it or copy it again")
                yield Frame(stamp_ns, "camera", np.ascontiguousarray(bgr[..., ::-1]))
        yield Sweep(stamp_ns, "lidar", read_sweep(file))


def read_sweep(file: Path) -> NDArray[np.float32]:
    """(N, 4) float32: x, y, z (m, sensor frame), intensity 0..1. Raises UserError where bytes are missing."""
    values = np.fromfile(file, np.float32)
    if len(values) % 4:
        raise UserError(f"'{file}' is cut off: {len(values)} numbers are not a multiple of 4; copy it again")
    return values.reshape(-1, 4)


def estimate_poses(sweeps: list[Path]) -> Poses:
    """(N, 4, 4) poses of the sensor, the first at the origin, by kiss-icp; one thread, so that runs repeat."""
    from kiss_icp.config import KISSConfig
    from kiss_icp.kiss_icp import KissICP

    config = KISSConfig()
    config.data.max_range, config.data.min_range, config.data.deskew = MAX_RANGE_M, 2.5, False
    config.mapping.voxel_size = MAX_RANGE_M / 100
    config.registration.max_num_threads = 1
    odometry = KissICP(config)
    poses = []
    for file in track(sweeps, "ego-motion by kiss-icp", console=Console(stderr=True)):
        points = read_sweep(file)[:, :3].astype(np.float64)
        odometry.register_frame(points, np.zeros(len(points)))
        poses.append(odometry.last_pose.copy())
    return np.stack(poses)


def _stamps(file: Path, sweeps: list[Path]) -> list[int]:
    """Nanoseconds of each sweep: as recorded, or ten a second where nothing was recorded."""
    if not file.is_file():
        return [START_NS + PERIOD_NS * index for index in range(len(sweeps))]
    stamps = []
    for line in filter(None, (line.strip() for line in file.read_text().splitlines())):
        whole, _, fraction = line.partition(".")
        try:
            seconds = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
            stamps.append(int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0))
        except ValueError:
            raise UserError(f"'{file}': '{line:.40}' is not a time such as 2011-09-26 14:14:10.904785920") from None
    if len(stamps) < len(sweeps):
        raise UserError(f"'{file}': {len(stamps)} times for {len(sweeps)} sweeps; copy the drive again")
    if len(stamps) > len(sweeps):  # a drive with missing sweeps: file names are indices
        stamps = [stamps[int(sweep.stem)] for sweep in sweeps]
    return stamps


def _oxts_poses(path: Path, sweeps: list[Path]) -> Poses | None:
    """Poses of the sensor from GPS and inertial measurements, the first at the origin; None where there are none."""
    files = [path / "oxts" / "data" / f"{sweep.stem}.txt" for sweep in sweeps]
    if not all(file.is_file() for file in files):
        return None
    rows = np.stack([np.array(file.read_text().split()[:6], np.float64) for file in files])
    latitude, longitude, altitude, roll, pitch, yaw = rows.T
    scale = np.cos(np.deg2rad(latitude[0]))
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, 0, 3] = scale * np.deg2rad(longitude) * EARTH_RADIUS_M
    poses[:, 1, 3] = scale * EARTH_RADIUS_M * np.log(np.tan(np.deg2rad(90 + latitude) / 2))
    poses[:, 2, 3] = altitude
    for matrix, *angles in zip(poses, roll, pitch, yaw, strict=True):
        matrix[:3, :3] = _rotation(*angles)
    poses = poses @ np.linalg.inv(_imu_to_lidar(path))
    return np.linalg.inv(poses[0]) @ poses


def _rotation(roll: float, pitch: float, yaw: float) -> Poses:
    (cr, sr), (cp, sp), (cy, sy) = ((np.cos(a), np.sin(a)) for a in (roll, pitch, yaw))
    rx = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    ry = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    rz = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def _imu_to_lidar(path: Path) -> Poses:
    """(4, 4): points of the IMU's frame into the LiDAR's; the identity where the calibration is not there."""
    matrix = np.eye(4)
    for folder in (path, path.parent):
        file = folder / "calib_imu_to_velo.txt"
        if file.is_file():
            rows = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
            matrix[:3, :3] = np.array(rows["R"].split(), np.float64).reshape(3, 3)
            matrix[:3, 3] = np.array(rows["T"].split(), np.float64)
            break
    return matrix


def _twists(poses: Poses, stamps: list[int]) -> tuple[Poses, Poses]:
    """Linear and angular velocity in the body frame, from the pose before and the one after."""
    linear, angular = np.zeros((len(poses), 3)), np.zeros((len(poses), 3))
    for i in range(len(poses)):
        before, after = max(0, i - 1), min(len(poses) - 1, i + 1)
        dt_s = (stamps[after] - stamps[before]) / 1e9
        if dt_s <= 0:
            continue
        change = np.linalg.inv(poses[before]) @ poses[after]
        r = change[:3, :3]
        linear[i] = change[:3, 3] / dt_s
        angular[i] = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]) / 2 / dt_s
    return linear, angular
