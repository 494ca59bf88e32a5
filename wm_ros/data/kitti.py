"""KITTI raw drives as samples: sweeps, camera images, and ego-motion.

Layout (as published): `velodyne_points/data/*.bin`, and where there are, `velodyne_points/timestamps.txt` and
`image_02/data/*.{png,jpg}`; where ego-motion comes from is said in `kitti_poses`. An image is given the stamp of the
sweep of its number: in synchronised drives the camera fires when the laser looks ahead. Sweeps are taken as they are
(the published ones are not deskewed).

The data is under CC BY-NC-SA 3.0: weights trained on it inherit that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.data.kitti_poses import Poses, drive_poses
from wm_ros.data.sources import Episode
from wm_ros.errors import UserError
from wm_ros.types import EgoPose, Frame, Sample, Sweep

LICENCE = "CC BY-NC-SA 3.0 (KITTI)"
START_NS = 1_000_000_000_000
PERIOD_NS = 100_000_000


def kitti_episode(path: Path) -> Episode:
    """The drive in folder `path`.

    Its ego-motion is worked out when the first sample is asked for, and once only.

    Raises:
        UserError: sweeps are missing or do not fit their timestamps.
    """
    path = Path(path)
    sweeps = sorted((path / "velodyne_points" / "data").glob("*.bin"))
    if not sweeps:
        raise UserError(f"'{path}': no velodyne_points/data/*.bin; give a KITTI raw drive (…_drive_0001_sync)")
    stamps = _stamps(path / "velodyne_points" / "timestamps.txt", sweeps)
    poses = cache(lambda: drive_poses(path, sweeps, read_sweep))
    return Episode(path.resolve().name, LICENCE, lambda: _samples(path, sweeps, stamps, poses))


def _samples(path: Path, sweeps: list[Path], stamps: list[int], find: Callable[[], Poses]) -> Iterator[Sample]:
    poses = find()
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
    size = file.stat().st_size
    if size == 0 or size % 16:
        raise UserError(f"'{file}' is cut off: {size} bytes are not a whole number of 16-byte points; copy it again")
    return np.fromfile(file, "<f4").reshape(-1, 4)


def _stamps(file: Path, sweeps: list[Path]) -> list[int]:
    """Nanoseconds of each sweep: as recorded, or ten a second where nothing was recorded."""
    if not file.is_file():
        return [START_NS + PERIOD_NS * index for index in range(len(sweeps))]
    stamps = []
    for line in filter(None, (line.strip() for line in file.read_text().splitlines())):
        whole, _, fraction = line.partition(".")
        try:
            seconds = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
            stamps.append(int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9]))
        except ValueError:
            raise UserError(f"'{file}': '{line:.40}' is not a time such as 2011-09-26 14:14:10.904785920") from None
    if len(stamps) != len(sweeps):  # a drive with missing sweeps: file names are indices
        names = [sweep.stem for sweep in sweeps]
        if not all(name.isdecimal() and int(name) < len(stamps) for name in names):
            raise UserError(f"'{file}': {len(stamps)} times for {len(sweeps)} sweeps; copy the drive again")
        stamps = [stamps[int(name)] for name in names]
    if any(after <= before for before, after in pairwise(stamps)):
        raise UserError(f"'{file}': times do not increase; remove the file, and ten sweeps a second are assumed")
    return stamps


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
