"""The simulated grasp: what it says, in which order, and that it is the same every time."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from wm_ros.data.simulator import tabletop_motion as motion
from wm_ros.data.simulator.tabletop import START_NS, carried_poses, stage, stages, tabletop_samples
from wm_ros.data.simulator.tabletop_plan import grip_m, reachable_scene
from wm_ros.errors import UserError
from wm_ros.kinematics import ARM_JOINTS, G1_JOINTS, hands_of
from wm_ros.types import Frame, HandTrajectory, Instruction, JointCommand, Joints

TIMES = np.arange(120) / 15.0
DIGEST = """
import hashlib
from wm_ros.data.simulator.tabletop import tabletop_samples
digest = hashlib.sha256()
for sample in tabletop_samples(7, seconds=0.4):
    for value in vars(sample).values():
        digest.update(value.tobytes() if hasattr(value, "tobytes") else repr(value).encode())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def episode():
    return list(tabletop_samples(3, seconds=1.0))


def test_each_stamp_has_joints_commands_hands_and_the_frame_last(episode):
    kinds = [type(sample) for sample in episode]
    step = [Joints, JointCommand, HandTrajectory, HandTrajectory, Frame]
    assert kinds == [*step[:2], Instruction, *step[2:], *step * 14]
    assert [s.stamp_ns for s in episode if isinstance(s, Frame)] == [START_NS + round(i / 15 * 1e9) for i in range(15)]


def test_samples_have_the_shapes_and_frames_of_the_contract(episode):
    frame = next(s for s in episode if isinstance(s, Frame))
    assert frame.rgb.shape == (96, 128, 3) and frame.rgb.dtype == np.uint8 and frame.frame_id == "camera"
    joints = [s for s in episode if isinstance(s, Joints)]
    assert all(s.names == G1_JOINTS and s.position_rad.shape == (26,) for s in joints)
    hands = [s for s in episode if isinstance(s, HandTrajectory)]
    assert {s.side for s in hands} == {"left", "right"} and all(s.frame_id == "torso" for s in hands)


def test_hands_are_where_the_measured_joints_put_them(episode):
    joints = {s.stamp_ns: s for s in episode if type(s) is Joints}
    for hand in (s for s in episode if isinstance(s, HandTrajectory)):
        np.testing.assert_allclose(hand.position_m[0], hands_of(joints[hand.stamp_ns])[hand.side], atol=1e-6)


def test_equal_seeds_give_equal_bytes_with_one_and_two_threads():
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1 and len(digests.pop().strip()) == 64


def test_seeds_differ():
    pictures = {
        hashlib.sha256(s.rgb.tobytes()).digest()
        for seed in range(5)
        for s in tabletop_samples(seed, seconds=0.1)
        if isinstance(s, Frame)
    }
    assert len(pictures) >= 5


def test_a_longer_recording_of_a_seed_begins_like_a_short_one():
    short, long = (
        [s.rgb for s in tabletop_samples(4, seconds=seconds) if isinstance(s, Frame)] for seconds in (0.2, 0.6)
    )
    np.testing.assert_array_equal(short, long[: len(short)])


def test_the_picture_is_lit_and_shows_more_than_a_table(episode):
    frame = next(s for s in episode if isinstance(s, Frame)).rgb
    assert 40 < frame.mean() < 220 and frame.std() > 15
    last = [s for s in episode if isinstance(s, Frame)][-1].rgb
    assert (frame != last).any()


@pytest.mark.parametrize("seed", range(12))
def test_the_named_object_rises_with_the_hand(seed):
    scene, _, measured, _ = reachable_scene(seed, TIMES, -1)
    plan, item = scene.plans[0], scene.items[0]
    carried = carried_poses(scene, measured, TIMES)
    at_rest, high = plan.held_s[0] > TIMES, int(np.argmin(np.abs(TIMES - plan.strokes[1].end_s - 0.15)))
    np.testing.assert_array_equal(carried[at_rest], np.broadcast_to(item.pose, carried[at_rest].shape))
    assert carried[high, 2, 3] > item.pose[2, 3] + 0.03
    wrist = motion.g1_arm(plan.side).wrist_pose(measured[:, motion.columns(plan.side, ARM_JOINTS)])
    held = (plan.held_s[0] <= TIMES) & (plan.held_s[1] > TIMES)
    grip = np.linalg.inv(wrist[held]) @ carried[held]
    np.testing.assert_allclose(grip, np.broadcast_to(grip[0], grip.shape), atol=1e-9)
    words = next(s.text for s in tabletop_samples(seed, seconds=0.1) if isinstance(s, Instruction))
    assert item.words in words and sum(other.words in words for other in scene.items) == 1


@pytest.mark.parametrize("seed", range(12))
def test_joints_are_smooth_within_limits_and_follow_their_commands(seed):
    scene, command, measured, _ = reachable_scene(seed, TIMES, -1)
    for side in ("left", "right"):
        arm, places = motion.g1_arm(side), motion.columns(side, ARM_JOINTS)
        assert (command[:, places] >= arm.lower_rad).all() and (command[:, places] <= arm.upper_rad).all()
    assert np.abs(np.diff(command[:, :14], axis=0)).max() * 15 < 5.0
    assert 0.001 < np.abs(measured - command).max() < 0.5
    assert ((command[:, 14:] >= 0) & (command[:, 14:] <= 1)).all()
    mover = scene.plans[0].side
    path = motion.g1_arm(mover).wrist(command[:, motion.columns(mover, ARM_JOINTS)])
    assert np.ptp(path, axis=0).max() > 0.05


def test_a_stroke_rests_at_both_ends_and_passes_its_via_point():
    rng = np.random.default_rng(0)
    start, via, end = rng.normal(size=(3, 6))
    plan = motion.Plan("right", start, (motion.Stroke(1.0, 3.0, end, via, 0.25),), ())
    path = motion.wrist_path(plan, np.array([0.0, 1.0, 1.5, 3.0, 9.0]))
    np.testing.assert_allclose(path, [start, start, via, end, end], atol=1e-9)
    near = motion.wrist_path(plan, np.array([1.0, 1.001, 2.999, 3.0]))
    assert np.abs(np.diff(near, axis=0)[[0, 2]]).max() < 1e-6  # third order in time: no velocity, no acceleration


def test_a_stroke_without_via_point_is_minimum_jerk():
    plan = motion.Plan("left", np.zeros(6), (motion.Stroke(0.0, 1.0, np.ones(6)),), ())
    share = np.linspace(0, 1, 11)
    expected = 10 * share**3 - 15 * share**4 + 6 * share**5
    np.testing.assert_allclose(motion.wrist_path(plan, share)[:, 0], expected, atol=1e-9)


def test_lag_follows_a_ramp_as_the_differential_equation_does():
    command = np.arange(30.0)[:, None] / 15
    measured = motion.follow(command, 1 / 15, 0.1)
    time = np.arange(30) / 15
    np.testing.assert_allclose(measured[:, 0], time - 0.1 * (1 - np.exp(-time / 0.1)), atol=1e-12)


@pytest.mark.parametrize(
    ("option", "value"), [("seconds", 0.0), ("width", 4), ("rate_hz", 0.0), ("objects", 9), ("objects", 0)]
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(UserError, match=f"{option} = {value}"):
        tabletop_samples(0, **{option: value})


@pytest.mark.parametrize("count", [1, 5])
def test_the_number_of_objects_can_be_asked_for(count):
    scene, *_ = reachable_scene(0, TIMES, count)
    assert len(scene.items) == count and len({item.words for item in scene.items}) == count


def test_a_table_too_full_is_refused(monkeypatch):
    monkeypatch.setattr("wm_ros.data.simulator.tabletop_plan._ATTEMPTS", 0)
    with pytest.raises(UserError, match="no room for 6 objects with seed 5"):
        next(tabletop_samples(5, objects=6))


def test_with_a_choice_one_hand_could_take_several_and_only_words_and_motion_tell_them_apart():
    told = stages(11, TIMES, (64, 48), choice=2)
    assert len(told) >= 2
    assert len({shown.text.replace(shown.scene.items[0].words, "") for shown in told}) == 1
    assert len({shown.scene.items[0].words for shown in told}) == len(told)
    first = told[0]
    for shown in told:
        assert shown.scene.plans[0].side == first.scene.plans[0].side
        np.testing.assert_array_equal(shown.picture(0), first.picture(0))
        assert {item.words for item in shown.scene.items} == {item.words for item in first.scene.items}
        assert all(grip_m(first.scene, first.scene.plans[0].side, s.scene.items[0]) is not None for s in told)
        end_s, goal = shown.scene.plans[0].strokes[0].end_s, shown.scene.plans[0].strokes[0].end[:3]
        side = shown.scene.plans[0].side
        wrists = motion.g1_arm(side).wrist(shown.joints[:, motion.columns(side, ARM_JOINTS)])
        assert np.linalg.norm(wrists[round((end_s + 0.3) * 15)] - goal) < 0.01


def test_a_choice_is_drawn_so_that_both_kinds_of_object_are_taken():
    taken = [stage(seed, TIMES[:2], (64, 48), choice=2).scene for seed in range(12)]
    firsts = [stages(seed, TIMES[:2], (64, 48), 2)[0].scene.items[0].words for seed in range(12)]
    same = [scene.items[0].words == words for scene, words in zip(taken, firsts, strict=True)]
    assert 1 <= sum(same) < 12


def test_more_choice_than_objects_is_refused_in_one_line():
    with pytest.raises(UserError, match="choice = 3"):
        tabletop_samples(0, choice=3)


def test_a_point_is_seen_where_its_ray_passes():
    camera = stage(5, TIMES[:2], (64, 48)).camera(0)
    columns, rows = np.array([3.0, 31.5, 60.0]), np.array([7.0, 23.5, 40.0])
    rays = camera.rays(columns, rows).astype(np.float64)
    seen = camera.project(rays[:, :3] + 0.6 * rays[:, 3:])
    np.testing.assert_allclose(seen, np.stack([columns, rows], 1), atol=1e-3)
    assert np.isnan(camera.project(rays[:, :3] - 0.6 * rays[:, 3:])).all()


def test_subtasks_come_in_the_order_of_the_plan():
    for seed in range(6):
        plan = reachable_scene(seed, TIMES[:2], -1)[0].plans[0]
        said = [motion.subtask(plan, time_s) for time_s in np.arange(0.0, 12.0, 0.02)]
        order = [a for a, b in zip(said, said[1:] + [""], strict=True) if a != b]
        whole = [*motion.SUBTASKS, "wait"]
        assert order == (whole if len(plan.strokes) == 4 else whole[:5])
