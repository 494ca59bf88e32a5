"""A real KITTI drive becomes samples with ego-motion."""

import itertools
import lzma
import os
from pathlib import Path

import numpy as np
import pytest

from wm_ros.data.kitti import kitti_episode
from wm_ros.types import EgoPose, Frame, Sweep

DATA = Path(os.environ.get("WM_DATA", "../shared/data"))
DRIVE = DATA / "kitti_raw_seq" / "sfnd3d_2011_09_26"
SWEEPS = 20

pytestmark = pytest.mark.skipif(not DRIVE.is_dir(), reason=f"no real drive at {DRIVE}: set WM_DATA to the data folder")


def decode(blob: bytes) -> np.ndarray:
    """Integer millimetres, delta-coded and in byte planes → (N, 4) float32."""
    planes = np.frombuffer(lzma.decompress(blob), np.uint8).reshape(10, -1).astype(np.int64)
    coded = np.stack([planes[3 * c] | planes[3 * c + 1] << 8 | planes[3 * c + 2] << 16 for c in range(3)], 1)
    millimetres = np.cumsum((coded >> 1) ^ -(coded & 1), 0)
    return np.concatenate([millimetres / 1000.0, planes[9][:, None] / 100.0], 1).astype(np.float32)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drive")
    target = folder / "velodyne_points" / "data"
    target.mkdir(parents=True)
    for file in sorted((DRIVE / "velodyne").glob("*.kmm.xz"))[:SWEEPS]:
        decode(file.read_bytes()).tofile(target / f"{file.name.split('.')[0]}.bin")
    (folder / "image_02" / "data").mkdir(parents=True)
    for image in sorted((DRIVE / "image_02").glob("*.jpg"))[:3]:
        (folder / "image_02" / "data" / image.name).write_bytes(image.read_bytes())
    return folder


def test_sweeps_images_and_poses_come_in_time_order(drive):
    episode = kitti_episode(drive)
    samples = list(episode.samples())
    stamps = [s.stamp_ns for s in samples]
    assert stamps == sorted(stamps)
    assert sum(isinstance(s, Sweep) for s in samples) == SWEEPS
    assert sum(isinstance(s, Frame) for s in samples) == 3
    assert "NC" in episode.licence


def test_estimated_ego_motion_is_that_of_a_car_that_creeps_forward_and_repeats(drive):
    first, second = ([s for s in kitti_episode(drive).samples() if isinstance(s, EgoPose)] for _ in range(2))
    assert all(np.array_equal(a.matrix, b.matrix) for a, b in zip(first, second, strict=True))
    path_m = sum(np.linalg.norm(b.matrix[:3, 3] - a.matrix[:3, 3]) for a, b in itertools.pairwise(first))
    assert 0.2 < path_m < 5  # about one metre a second
    assert first[-1].matrix[0, 3] > 0.2  # forward
