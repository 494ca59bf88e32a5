"""KITTI folders made here: stamps, the three origins of ego-motion, and what is refused."""

import itertools

import numpy as np
import pytest

from wm_ros.data import kitti_poses
from wm_ros.data.kitti import LICENCE, PERIOD_NS, kitti_episode
from wm_ros.errors import UserError
from wm_ros.types import EgoPose, Sweep

# x of the camera is right, y down, z ahead; it is 0.27 m ahead of the LiDAR and 0.08 m below.
LIDAR_TO_CAMERA = np.array([[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]], float)


def make_drive(folder, sweeps=3):
    data = folder / "velodyne_points" / "data"
    data.mkdir(parents=True)
    for index in range(sweeps):
        np.full((5, 4), index + 0.5, np.float32).tofile(data / f"{index:010d}.bin")
    return folder


def make_oxts(folder, rows):
    (folder / "oxts" / "data").mkdir(parents=True)
    for index, row in enumerate(rows):
        (folder / "oxts" / "data" / f"{index:010d}.txt").write_text(" ".join(map(repr, row)) + " 0 0\n")


def poses_of(folder):
    return [sample for sample in kitti_episode(folder).samples() if isinstance(sample, EgoPose)]


def homogeneous(matrix):
    return np.vstack([matrix, [0, 0, 0, 1]])


def turn(yaw, x=0.0, y=0.0):
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_sweeps_without_times_are_ten_a_second_and_keep_their_bytes(tmp_path):
    make_oxts(make_drive(tmp_path), [(49.0, 8.4, 110.0, 0.0, 0.0, 0.0)] * 3)
    episode = kitti_episode(tmp_path)
    sweeps = [sample for sample in episode.samples() if isinstance(sample, Sweep)]
    assert [b.stamp_ns - a.stamp_ns for a, b in itertools.pairwise(sweeps)] == [PERIOD_NS] * 2
    assert [float(sweep.points[0, 0]) for sweep in sweeps] == [0.5, 1.5, 2.5]
    assert episode.licence == LICENCE


def test_recorded_times_keep_their_nanoseconds(tmp_path):
    make_oxts(make_drive(tmp_path, 2), [(49.0, 8.4, 110.0, 0.0, 0.0, 0.0)] * 2)
    times = "2011-09-26 14:14:10.904785920\n2011-09-26 14:14:11.008086528\n"
    (tmp_path / "velodyne_points" / "timestamps.txt").write_text(times)
    first, second = poses_of(tmp_path)
    assert first.stamp_ns == 1317046450904785920
    assert second.stamp_ns - first.stamp_ns == 103300608


def test_a_missing_sweep_takes_its_time_with_it(tmp_path):
    make_oxts(make_drive(tmp_path), [(49.0, 8.4, 110.0, 0.0, 0.0, 0.0)] * 3)
    (tmp_path / "velodyne_points" / "data" / "0000000001.bin").unlink()
    times = "".join(f"2011-09-26 14:14:1{second}.0\n" for second in range(3))
    (tmp_path / "velodyne_points" / "timestamps.txt").write_text(times)
    first, second = poses_of(tmp_path)
    assert second.stamp_ns - first.stamp_ns == 2 * 10**9


def test_gps_north_of_the_start_is_left_of_a_car_that_faces_east(tmp_path):
    # A hundred-thousandth of a degree of latitude is 1.11 m; yaw 0 is east in this data.
    make_oxts(make_drive(tmp_path), [(49.0 + 1e-5 * k, 8.4, 110.0 + 0.5 * k, 0.0, 0.0, 0.0) for k in range(3)])
    last = poses_of(tmp_path)[-1]
    expected_m = [0, 2e-5 * np.pi / 180 * kitti_poses.EARTH_RADIUS_M, 1.0]
    assert np.allclose(last.matrix[:3, 3], expected_m, atol=2e-3)
    assert np.allclose(last.linear_mps, [0, expected_m[1] / 0.2, 5.0], atol=0.02)


def test_a_turn_about_the_inertial_unit_swings_the_lidar_by_its_lever(tmp_path):
    make_oxts(make_drive(tmp_path, 2), [(49.0, 8.4, 110.0, 0.0, 0.0, yaw) for yaw in (0.0, np.pi / 2)])
    (tmp_path / "calib_imu_to_velo.txt").write_text("R: 1 0 0 0 1 0 0 0 1\nT: -0.8 0.3 -0.8\n")
    assert np.allclose(poses_of(tmp_path)[1].matrix, turn(np.pi / 2, x=-0.5, y=1.1), atol=1e-6)


@pytest.mark.parametrize("calibration", ["calib.txt", "calib_velo_to_cam.txt"])
def test_camera_poses_of_the_odometry_benchmark_become_those_of_the_lidar(tmp_path, calibration):
    wanted = [turn(0.0), turn(0.1, 1.0, 0.0), turn(0.3, 2.0, 0.2)]
    mounting = homogeneous(LIDAR_TO_CAMERA)
    rows = [(mounting @ pose @ np.linalg.inv(mounting))[:3].ravel() for pose in wanted]
    np.savetxt(make_drive(tmp_path) / "poses.txt", rows)
    numbers = {
        "Tr": LIDAR_TO_CAMERA.ravel(),
        "R": LIDAR_TO_CAMERA[:, :3].ravel(),
        "T": LIDAR_TO_CAMERA[:, 3],
    }
    keys = ("Tr",) if calibration == "calib.txt" else ("R", "T")
    (tmp_path / calibration).write_text("".join(f"{key}: {' '.join(map(str, numbers[key]))}\n" for key in keys))
    for pose, true in zip(poses_of(tmp_path), wanted, strict=True):
        assert np.allclose(pose.matrix, true, atol=1e-6)
        assert pose.child_frame_id == "lidar"


def test_ego_motion_from_sweeps_alone_is_the_true_one(tmp_path):
    """A car turns left among two hundred posts, which are all that its sweeps show."""
    data = tmp_path / "velodyne_points" / "data"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    posts = np.repeat(rng.uniform(-50, 50, (200, 2)), 25, axis=0)
    world = np.column_stack([posts, np.tile(np.linspace(-1.5, 3, 25), 200), np.ones(len(posts))])
    true = [turn(0.02 * k, 0.6 * k, 0.006 * k * k) for k in range(8)]
    for index, pose in enumerate(true):
        seen = world @ np.linalg.inv(pose).T + np.append(rng.normal(0, 0.02, 3), 0.0)
        seen.astype(np.float32).tofile(data / f"{index:010d}.bin")
    found = poses_of(tmp_path)
    for pose, wanted in zip(found, true, strict=True):
        assert np.linalg.norm(pose.matrix[:3, 3] - wanted[:3, 3]) < 0.15
    assert np.allclose(found[4].linear_mps[:2], [6.0, 0.0], atol=1.0)
    assert abs(found[4].angular_radps[2] - 0.2) < 0.1


def test_ego_motion_is_worked_out_once_for_an_episode(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        kitti_poses, "estimate_poses", lambda sweeps, read: asked.append(1) or np.tile(np.eye(4), (len(sweeps), 1, 1))
    )
    episode = kitti_episode(make_drive(tmp_path))
    assert len(list(episode.samples())) == len(list(episode.samples())) == 6
    assert asked == [1]


def test_what_is_wrong_is_named(tmp_path):
    def refused(folder, pattern):
        with pytest.raises(UserError, match=pattern) as caught:
            list(kitti_episode(folder).samples())
        assert "\n" not in str(caught.value)

    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no velodyne_points")

    drive = make_drive(tmp_path / "drive")
    (drive / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 3)
    refused(drive, "put calib.txt")
    (drive / "calib.txt").write_text("Tr: 1 0 0\n")
    refused(drive, "'Tr:' with 12 numbers")
    (drive / "calib.txt").write_text("Tr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n")
    (drive / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    refused(drive, "1 poses for 3 sweeps")
    (drive / "poses.txt").write_text("1 0 0\n" * 4)
    refused(drive, "not lines of 12 numbers")
    (drive / "poses.txt").unlink()

    make_oxts(drive, [(49.0, 8.4, 110.0, 0.0, 0.0, 0.0), ("north",), (49.0, 8.4, 110.0, 0.0, 0.0, 0.0)])
    refused(drive, "0000000001.txt")
    times = drive / "velodyne_points" / "timestamps.txt"
    times.write_text("yesterday\n" * 3)
    refused(drive, "'yesterday' is not a time")
    times.write_text("2011-09-26 14:14:10.0\n")
    refused(drive, "1 times for 3 sweeps")
    times.write_text("2011-09-26 14:14:10.0\n" * 3)
    refused(drive, "do not increase")
    times.unlink()

    (drive / "oxts" / "data" / "0000000001.txt").unlink()
    (drive / "velodyne_points" / "data" / "0000000001.bin").write_bytes(b"123")
    refused(drive, "cut off")
