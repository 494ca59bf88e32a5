"""Ego-motion of a KITTI drive, from the best that its folder holds.

1. `poses.txt` as in the odometry benchmark: twelve numbers a line, the (3, 4) pose of the rectified left camera.
   It needs the mounting of the LiDAR: `Tr:` of `calib.txt`, or `calib_velo_to_cam.txt`.
2. `oxts/data/*.txt`, GPS and inertial: Mercator projection and rotation as in the raw development kit.
3. The sweeps themselves, registered by kiss-icp (Vizzo et al. 2023).

Calibration files are looked for in the folder of the drive and in the one above it, where the raw data has them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from wm_ros.errors import UserError

Poses = NDArray[np.float64]
EARTH_RADIUS_M = 6378137.0
MAX_RANGE_M = 100.0
MIN_RANGE_M = 2.5
# Where the LiDAR of the recording car is as seen from its inertial unit, to a centimetre, for drives without the file.
IMU_TO_LIDAR_M = (-0.81, 0.32, -0.80)


def drive_poses(path: Path, sweeps: list[Path], read: Callable[[Path], NDArray[np.float32]]) -> Poses:
    """(N, 4, 4) float64 poses of the LiDAR at each of `sweeps`, the first at the origin.

    Args:
        path: the drive. read: gives the (N, 4) points of a sweep's file.

    Raises:
        UserError: a file of poses or calibration is damaged or does not fit the sweeps.
    """
    if (path / "poses.txt").is_file():
        poses = _listed(path, sweeps)
    elif all((path / "oxts" / "data" / f"{sweep.stem}.txt").is_file() for sweep in sweeps):
        poses = _oxts(path, sweeps)
    else:
        poses = estimate_poses(sweeps, read)
    return np.linalg.inv(poses[0]) @ poses


def estimate_poses(sweeps: list[Path], read: Callable[[Path], NDArray[np.float32]]) -> Poses:
    """Poses of the sensor by kiss-icp; one thread, so that runs repeat, and no deskewing: stamps of points are lost."""
    from kiss_icp.config import KISSConfig
    from kiss_icp.kiss_icp import KissICP

    config = KISSConfig()
    config.data.max_range, config.data.min_range, config.data.deskew = MAX_RANGE_M, MIN_RANGE_M, False
    config.mapping.voxel_size = MAX_RANGE_M / 100
    config.registration.max_num_threads = 1
    odometry = KissICP(config)
    poses = []
    for file in track(sweeps, "ego-motion by kiss-icp", console=Console(stderr=True)):
        points = read(file)[:, :3].astype(np.float64)
        odometry.register_frame(points, np.zeros(len(points)))
        poses.append(odometry.last_pose.copy())
    return np.stack(poses)


def _listed(path: Path, sweeps: list[Path]) -> Poses:
    """`poses.txt`: camera poses, turned into those of the LiDAR by its mounting."""
    rows = _numbers(path / "poses.txt", 12)
    if len(rows) != len(sweeps):
        names = [sweep.stem for sweep in sweeps]  # file names are indices where sweeps are missing
        if not all(name.isdecimal() and int(name) < len(rows) for name in names):
            raise UserError(f"'{path / 'poses.txt'}': {len(rows)} poses for {len(sweeps)} sweeps; give one for each")
        rows = rows[[int(name) for name in names]]
    return _homogeneous(rows) @ _lidar_to_camera(path)


def _oxts(path: Path, sweeps: list[Path]) -> Poses:
    """`oxts/data`: latitude, longitude (deg), altitude (m), roll, pitch, yaw (rad), and more that is not used."""
    rows = np.concatenate([_numbers(path / "oxts" / "data" / f"{sweep.stem}.txt", 6)[:1] for sweep in sweeps])
    latitude, longitude, altitude, roll, pitch, yaw = rows.T
    scale = np.cos(np.deg2rad(latitude[0]))
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, 0, 3] = scale * np.deg2rad(longitude) * EARTH_RADIUS_M
    poses[:, 1, 3] = scale * EARTH_RADIUS_M * np.log(np.tan(np.deg2rad(90 + latitude) / 2))
    poses[:, 2, 3] = altitude
    for matrix, *angles in zip(poses, roll, pitch, yaw, strict=True):
        matrix[:3, :3] = _rotation(*angles)
    mounting = np.eye(4)
    mounting[:3, 3] = IMU_TO_LIDAR_M
    file = _calibration(path, "calib_imu_to_velo.txt")
    return poses @ np.linalg.inv(mounting if file is None else _rigid(file))


def _rotation(roll: float, pitch: float, yaw: float) -> Poses:
    (cr, sr), (cp, sp), (cy, sy) = ((np.cos(a), np.sin(a)) for a in (roll, pitch, yaw))
    rx = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    ry = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    rz = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def _lidar_to_camera(path: Path) -> Poses:
    """(4, 4): points of the LiDAR into the rectified left camera."""
    whole = _calibration(path, "calib.txt")
    if whole is not None:
        return _homogeneous(_entry(whole, "Tr", 12)[None])[0]
    file = _calibration(path, "calib_velo_to_cam.txt")
    if file is None:
        raise UserError(f"'{path / 'poses.txt'}' holds camera poses: put calib.txt or calib_velo_to_cam.txt beside it")
    rectify, cameras = np.eye(4), _calibration(path, "calib_cam_to_cam.txt")
    if cameras is not None:
        rectify[:3, :3] = _entry(cameras, "R_rect_00", 9).reshape(3, 3)
    return np.asarray(rectify @ _rigid(file))


def _calibration(path: Path, name: str) -> Path | None:
    return next((folder / name for folder in (path, path.resolve().parent) if (folder / name).is_file()), None)


def _rigid(file: Path) -> Poses:
    """A calibration file with `R:` and `T:` as a (4, 4) matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = _entry(file, "R", 9).reshape(3, 3)
    matrix[:3, 3] = _entry(file, "T", 3)
    return matrix


def _entry(file: Path, key: str, count: int) -> Poses:
    """The numbers of the line `key: …`."""
    rows = dict(line.split(":", 1) for line in file.read_text(errors="replace").splitlines() if ":" in line)
    try:
        values = np.array(rows.get(key, "").split(), np.float64)
    except ValueError:
        values = np.zeros(0)
    if len(values) != count or not np.isfinite(values).all():
        raise UserError(f"'{file}': no line '{key}:' with {count} numbers; copy the calibration again")
    return values


def _numbers(file: Path, count: int) -> Poses:
    """(lines, count): the first `count` numbers of each line."""
    rows = [line.split()[:count] for line in file.read_text(errors="replace").splitlines() if line.strip()]
    try:
        values = np.array(rows, np.float64)
    except ValueError:
        values = np.zeros(0)
    if values.ndim != 2 or values.shape[1] != count or not np.isfinite(values).all():
        raise UserError(f"'{file}': not lines of {count} numbers; copy it again")
    return values


def _homogeneous(rows: Poses) -> Poses:
    """(N, 12) rows of (3, 4) matrices → (N, 4, 4)."""
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    return poses
