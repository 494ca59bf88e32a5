"""KITTI object frames as samples: one sweep with the boxes that people drew, each frame an episode of its own.

Layout (as published, e.g. the folder `training`): `velodyne/*.bin`, `label_2/*.txt`, `calib/*.txt`, and where there
are, `image_2/*.{png,jpg}`. A label is given in the rectified camera frame (x right, y down, z ahead; the place is the
middle of the bottom face; heading about y); here it becomes a box in the LiDAR frame. Only what the left colour camera
sees is labelled, so a box says what is there but its absence beyond the picture says nothing.

The data is under CC BY-NC-SA 3.0: weights trained on it inherit that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.data.kitti import LICENCE, START_NS, read_sweep
from wm_ros.data.sources import Episode
from wm_ros.errors import UserError
from wm_ros.types import EgoPose, Frame, PictureBoxes, Sample, Sweep

Double = NDArray[np.float64]
IMAGE_SIZE = (1242, 375)  # width, height of a picture where the frame has none
_FIELDS = 15


def kitti_object_episodes(path: Path) -> list[Episode]:
    """The frames of folder `path`, each an episode. Raises UserError where a frame lacks label or calibration."""
    path = Path(path)
    sweeps = sorted((path / "velodyne").glob("*.bin"))
    if not sweeps:
        raise UserError(f"'{path}': no velodyne/*.bin; give a KITTI object folder such as training")
    for sweep in sweeps:
        for folder in ("label_2", "calib"):
            if not (path / folder / f"{sweep.stem}.txt").is_file():
                raise UserError(f"'{path}': {folder}/{sweep.stem}.txt is missing for {sweep.name}; copy it too")
    name = path.resolve().name
    return [Episode(f"{name}-{sweep.stem}", LICENCE, partial(_samples, path, sweep.stem)) for sweep in sweeps]


def _samples(path: Path, stem: str) -> Iterator[Sample]:
    # The frame stands alone: `odom` begins where its sweep was taken.
    yield EgoPose(START_NS, "odom", "lidar", np.eye(4))
    rgb = _image(path / "image_2", stem)
    size = IMAGE_SIZE if rgb is None else (rgb.shape[1], rgb.shape[0])
    yield read_labels(path / "label_2" / f"{stem}.txt", path / "calib" / f"{stem}.txt", size)
    if rgb is not None:
        yield Frame(START_NS, "camera", rgb)
    yield Sweep(START_NS, "lidar", read_sweep(path / "velodyne" / f"{stem}.bin"))


def _image(folder: Path, stem: str) -> NDArray[np.uint8] | None:
    """(H, W, 3) or None where the frame has no picture."""
    file = next((f for suffix in ("png", "jpg") if (f := folder / f"{stem}.{suffix}").is_file()), None)
    if file is None:
        return None
    bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if bgr is None:
        raise UserError(f"'{file}' is not an image; remove it or copy it again")
    return np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8, copy=False)


def read_labels(labels: Path, calibration: Path, size: tuple[int, int] = IMAGE_SIZE) -> PictureBoxes:
    """The boxes of one frame; regions marked DontCare have no box and are left out. Raises UserError."""
    camera_from_lidar, projection = _calibration(calibration)
    lidar_from_camera = np.linalg.inv(camera_from_lidar)
    names: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(labels.read_text(errors="replace").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] == "DontCare":
            continue
        try:
            values = [float(field) for field in fields[1:_FIELDS]]
        except ValueError:
            values = []
        if len(values) != _FIELDS - 1 or not np.isfinite(values).all():
            raise UserError(f"'{labels}' line {number}: not a name and {_FIELDS - 1} numbers; copy the labels again")
        names.append(fields[0].lower())
        rows.append(values)
    table = np.array(rows, np.float64).reshape(-1, _FIELDS - 1)
    height, width, length = table[:, 7], table[:, 8], table[:, 9]
    bottom = np.concatenate([table[:, 10:13], np.ones((len(table), 1))], 1)
    bottom[:, 1] -= height / 2  # y is down: the middle of the box lies above that of its bottom face
    centre = np.einsum("nj,ij->ni", bottom, lidar_from_camera)[:, :3]
    turn = table[:, 13]
    heading = np.stack([np.cos(turn), np.zeros_like(turn), -np.sin(turn)], 1)
    ahead = np.einsum("nj,ij->ni", heading, lidar_from_camera[:3, :3])
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0])
    boxes = np.concatenate([centre, np.stack([length, width, height, yaw], 1)], 1).astype(np.float32)
    return PictureBoxes(
        START_NS,
        "lidar",
        boxes,
        tuple(names),
        tuple(range(1, len(names) + 1)),
        truncated=table[:, 0],
        occluded=table[:, 1].astype(np.int64),
        height_px=table[:, 6] - table[:, 4],
        projection=np.einsum("ij,jk->ik", projection, camera_from_lidar),
        image_size=size,
    )


def _calibration(file: Path) -> tuple[Double, Double]:
    """(4, 4) LiDAR → rectified camera, and its (3, 4) projection P2."""
    rows = dict(line.split(":", 1) for line in file.read_text(errors="replace").splitlines() if ":" in line)
    found = {}
    for key, shape in (("P2", (3, 4)), ("R0_rect", (3, 3)), ("Tr_velo_to_cam", (3, 4))):
        try:
            values = np.array(rows.get(key, "").split(), np.float64)
        except ValueError:
            values = np.zeros(0)
        if values.size != shape[0] * shape[1] or not np.isfinite(values).all():
            raise UserError(
                f"'{file}': no line '{key}:' with {shape[0] * shape[1]} numbers; copy the calibration again"
            )
        found[key] = values.reshape(shape)
    rectify, mounting = np.eye(4), np.eye(4)
    rectify[:3, :3], mounting[:3] = found["R0_rect"], found["Tr_velo_to_cam"]
    return rectify @ mounting, found["P2"]
