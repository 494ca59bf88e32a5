"""The simulated drive: repeatable, varied, and consistent with itself."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from wm_ros.data.simulator import drive_samples
from wm_ros.data.simulator.drive_scene import Scene
from wm_ros.data.simulator.drive_sensor import STEP_M, Sensor
from wm_ros.data.simulator.drive_shapes import MATERIALS
from wm_ros.errors import UserError
from wm_ros.types import Boxes, EgoPose, Sweep

SMALL = {"beams": 32, "azimuths": 360}
DIGEST = """
import dataclasses, hashlib, numpy
from wm_ros.data.simulator import drive_samples
digest = hashlib.sha256()
for sample in drive_samples(7, 0.3, beams=32, azimuths=360):
    for value in dataclasses.astuple(sample):
        digest.update(value.tobytes() if isinstance(value, numpy.ndarray) else repr(value).encode())
print(digest.hexdigest())
"""


def of(kind, samples):
    return [sample for sample in samples if isinstance(sample, kind)]


def test_same_seed_gives_the_same_bytes_at_any_number_of_threads():
    said = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={"OMP_NUM_THREADS": threads, "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(said) == 1


def test_another_seed_is_another_scene():
    first, second = (of(Sweep, drive_samples(seed, 0.1, **SMALL))[0] for seed in (1, 2))
    assert first.points.shape != second.points.shape or not np.array_equal(first.points, second.points)


def test_each_stamp_has_pose_then_boxes_then_sweep():
    kinds = [type(sample) for sample in drive_samples(3, 0.3, **SMALL)]
    assert kinds == [EgoPose, Boxes, Sweep] * 3


def test_points_are_finite_in_reach_and_their_intensity_is_a_share():
    for sweep in of(Sweep, drive_samples(4, 0.3, **SMALL)):
        range_m = np.linalg.norm(sweep.points[:, :3], axis=1)
        assert sweep.points.dtype == np.float32
        assert np.isfinite(sweep.points).all()
        assert range_m.min() > 1.5 and range_m.max() < 121
        assert sweep.points[:, 3].min() >= 0 and sweep.points[:, 3].max() <= 1


def test_most_rays_that_point_down_meet_the_ground_below_the_sensor():
    sweep = of(Sweep, drive_samples(5, 0.1, **SMALL))[0]
    near = np.hypot(*sweep.points[:, :2].T) < 8
    assert near.sum() > 500
    assert abs(np.median(sweep.points[near, 2]) + 1.73) < 0.3
    on_ground = []
    for seed in range(5, 9):  # elsewhere a wall or a parked car may stand in the way
        points = of(Sweep, drive_samples(seed, 0.1, **SMALL))[0].points
        near = np.hypot(*points[:, :2].T) < 8
        on_ground.append((np.abs(points[near, 2] + 1.73) < 0.3).sum() / SMALL["azimuths"])
    assert np.mean(on_ground) > 5  # of the rings that could


def test_boxes_near_by_hold_points():
    held = []
    for seed in range(6):
        samples = list(drive_samples(seed, 0.1, **SMALL))
        boxes, points = of(Boxes, samples)[0].boxes, of(Sweep, samples)[0].points
        for x, y, z, length, width, height, yaw in boxes:
            if np.hypot(x, y) > 20:
                continue
            c, s = np.cos(yaw), np.sin(yaw)
            local = (points[:, :3] - [x, y, z]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
            held.append((np.abs(local) < np.array([length, width, height]) / 2 + 0.1).all(1).any())
    assert len(held) > 10
    assert np.mean(held) > 0.6  # the rest is hidden behind others


def corners(box, shrink_m=0.1):
    """(4, 2) outline of a box on the ground, slightly shrunk."""
    half = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * (box[3:5] / 2 - shrink_m)
    c, s = np.cos(box[6]), np.sin(box[6])
    return half @ np.array([[c, s], [-s, c]]) + box[:2]


def overlap(first, second):
    """Whether two convex outlines meet: no edge of either separates them."""
    for outline in (first, second):
        for edge in np.roll(outline, -1, 0) - outline:
            one, other = first @ [-edge[1], edge[0]], second @ [-edge[1], edge[0]]
            if one.max() < other.min() or other.max() < one.min():
                return False
    return True


def test_no_vehicle_drives_into_another_or_into_the_ego_car():
    ego = corners(np.array([0, 0, 0, 4.4, 1.8, 1.5, 0.0]))
    drives = [drive_samples(seed, 4.0, beams=1, azimuths=36, rate_hz=1.0) for seed in range(8)]
    drives.append(drive_samples(0, 20.0, beams=1, azimuths=36, rate_hz=1.0, speed_mps=15.0))  # to the end of the road
    for drive in drives:
        for sample in of(Boxes, drive):
            assert not any(overlap(corners(box), ego) for box in sample.boxes)
            cars = [
                corners(box)
                for box, label in zip(sample.boxes, sample.labels, strict=True)
                if label in ("car", "van", "truck")
            ]
            assert not any(overlap(a, b) for a, b in itertools.combinations(cars, 2))


def test_boxes_keep_their_track_and_size_and_stay_within_range():
    known = {}
    for sample in of(Boxes, drive_samples(4, 1.0, beams=1, azimuths=36)):
        assert len(set(sample.track_ids)) == len(sample.track_ids) == len(sample.boxes) > 0
        assert np.hypot(sample.boxes[:, 0], sample.boxes[:, 1]).max() <= 75
        for track, box, label in zip(sample.track_ids, sample.boxes, sample.labels, strict=True):
            size, before = known.setdefault(track, (tuple(box[3:6]), label))
            assert size == tuple(box[3:6]) and before == label


def test_odometry_agrees_with_its_own_speed():
    poses = of(EgoPose, drive_samples(6, 1.0, speed_mps=8.0, **SMALL))
    for before, after in itertools.pairwise(poses):
        travelled = np.linalg.norm(after.matrix[:3, 3] - before.matrix[:3, 3])
        mean_mps = (before.linear_mps[0] + after.linear_mps[0]) / 2
        assert abs(travelled - 0.1 * mean_mps) < 0.02
    assert 5 < poses[0].linear_mps[0] < 11


def test_standing_things_stay_where_they_are_when_ego_motion_is_taken_out():
    def cells(points):
        tall = points[(points[:, 2] > -0.8) & (np.hypot(points[:, 0], points[:, 1]) < 30)]
        return {tuple(c) for c in np.floor(tall[:, :2] / 1.0).astype(int)}

    shared, unmoved = [], []
    for seed in (9, 10, 11):
        samples = list(drive_samples(seed, 1.0, beams=64, azimuths=720, rate_hz=2.0, speed_mps=8.0))
        sweeps, poses = of(Sweep, samples), of(EgoPose, samples)
        first, last = sweeps[0].points[:, :3], sweeps[-1].points[:, :3]
        mounting = np.eye(4)
        mounting[2, 3] = 1.73
        change = np.linalg.inv(poses[0].matrix @ mounting) @ poses[-1].matrix @ mounting
        moved = last @ change[:3, :3].T + change[:3, 3]
        for kept, points in ((shared, moved), (unmoved, last)):
            kept.append(len(cells(first) & cells(points)) / len(cells(first) | cells(points)))
    assert all(ours > 1.5 * theirs for ours, theirs in zip(shared, unmoved, strict=True))
    assert np.mean(shared) > 0.4


def test_who_is_parked_has_a_box_and_points_in_it():
    standing = []
    for seed in range(4):
        samples = list(drive_samples(seed, 1.0, rate_hz=2.0, speed_mps=0.0, **SMALL))
        before, after = (dict(zip(s.track_ids, s.boxes, strict=True)) for s in of(Boxes, samples))
        points = of(Sweep, samples)[0].points
        for track in before.keys() & after.keys():
            box, moved_m = before[track], np.linalg.norm(before[track][:2] - after[track][:2])
            if moved_m < 0.02 and np.hypot(*box[:2]) < 25:
                standing.append((np.hypot(*(points[:, :2] - box[:2]).T) < box[3] / 2).any())
    assert len(standing) > 5 and np.mean(standing) > 0.5


def test_in_some_drives_the_ego_car_turns_off_and_in_some_it_stops_or_starts():
    def somewhere(speed_mps, seen):
        return any(seen(Scene(np.random.default_rng([seed, 1]), speed_mps)) for seed in range(30))

    def turns(scene):
        headings = np.array([scene.ego.at(t)[2] for t in (0.0, 20.0)])
        return abs(headings[1] - headings[0]) > 1.0

    def stops(scene):
        places = np.array([scene.ego.at(t)[:2] for t in (0.0, 0.5, 19.5, 20.0)])
        first, last = np.linalg.norm(places[1] - places[0]), np.linalg.norm(places[3] - places[2])
        return min(first, last) < 0.05 and max(first, last) > 1

    assert somewhere(6.0, turns)
    assert somewhere(-1.0, stops)


def test_odometry_noise_changes_poses_and_nothing_else():
    exact, noisy = (list(drive_samples(5, 1.0, odometry_noise=n, speed_mps=8.0, **SMALL)) for n in (0.0, 1.0))
    for a, b in zip(of(Sweep, exact), of(Sweep, noisy), strict=True):
        assert np.array_equal(a.points, b.points)
    error_m = np.linalg.norm(of(EgoPose, exact)[-1].matrix[:3, 3] - of(EgoPose, noisy)[-1].matrix[:3, 3])
    assert 0.005 < error_m < 0.5
    with pytest.raises(UserError, match="odometry_noise -1"):
        next(drive_samples(0, odometry_noise=-1.0))


def measured(sensor, range_m, cosine, reflectivity, rng):
    """The sweep of a world that is the same in all directions."""
    values = (np.full(len(sensor.rays), v, np.float32) for v in (range_m, cosine, reflectivity))
    return sensor.measure(*values, rng, np.full(len(sensor.rays), MATERIALS.index("concrete")))


def test_a_sensor_loses_rays_at_random_on_dark_and_on_far_surfaces():
    rng = np.random.default_rng(0)
    sensor = Sensor(16, 360, rng)
    count = len(sensor.rays)

    def share(range_m, cosine=1.0, reflectivity=0.4):
        return len(measured(sensor, range_m, cosine, reflectivity, rng)) / count

    assert share(1.0) == 0 == share(np.inf) == share(130.0)
    assert 0.9 < share(10.0) < 1
    assert share(70.0, cosine=0.05, reflectivity=0.06) < 0.2 < share(70.0)


def test_ranges_are_noisy_by_a_few_centimetres_and_whole_steps():
    rng = np.random.default_rng(0)
    sensor = Sensor(16, 360, rng)
    points = measured(sensor, 20.0, 1.0, 0.5, rng)[:, :3]
    assert 0.005 < (np.linalg.norm(points - [0, 0, sensor.start_z.mean()], axis=1) - 20).std() < 0.04
    assert np.array_equal(points, np.round(points / STEP_M) * STEP_M)


def test_a_wrong_argument_is_named():
    with pytest.raises(UserError, match="beams 0"):
        next(drive_samples(0, beams=0))
    with pytest.raises(UserError, match="seed -1"):
        next(drive_samples(-1))
