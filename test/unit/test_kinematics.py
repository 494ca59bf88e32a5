"""Arms: geometry, names, and the way back from positions to joints."""

import numpy as np
import pytest

from wm_ros.kinematics import ARM_JOINTS, G1_JOINTS, Arm, arm_for, hands_of, rotation, rotation_vector
from wm_ros.types import Joints

MIRROR = np.array([1, -1, -1, 1, -1, 1, -1.0])  # joints about y keep their sign from one side to the other


def arm(side: str) -> Arm:
    found = arm_for(G1_JOINTS, side)
    assert found is not None
    return found


def random_joints(side: str, count: int, share: float = 0.8) -> np.ndarray:
    low, high = arm(side).lower_rad * share, arm(side).upper_rad * share
    return np.random.default_rng(5).uniform(low, high, (count, 7))


def test_joint_order_is_that_of_the_recordings():
    assert len(G1_JOINTS) == len(set(G1_JOINTS)) == 26
    assert G1_JOINTS[0] == "kLeftShoulderPitch" and G1_JOINTS[13] == "kRightWristYaw"
    assert G1_JOINTS[14] == "kLeftHandPinky" and G1_JOINTS[25] == "kRightHandThumbRotation"


@pytest.mark.parametrize(("side", "y"), [("left", 0.148699), ("right", -0.148699)])
def test_with_all_joints_zero_the_forearm_points_forward(side, y):
    assert arm(side).wrist(np.zeros(7)) == pytest.approx([0.203739, y, 0.061234], abs=1e-6)
    assert arm(side).wrist_pose(np.zeros(7))[:3, :3] == pytest.approx(np.eye(3), abs=1e-4)


def test_sides_mirror_each_other():
    joints = random_joints("left", 50)
    left, right = arm("left").wrist(joints), arm("right").wrist(joints * MIRROR)
    np.testing.assert_allclose(left * (1, -1, 1), right, atol=1e-12)
    np.testing.assert_allclose(
        arm("left").upper_rad * MIRROR, np.where(MIRROR > 0, arm("right").upper_rad, arm("right").lower_rad)
    )


def test_links_keep_their_lengths():
    lengths = np.linalg.norm(np.diff(arm("right").links(random_joints("right", 100)), axis=1), axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), atol=1e-12)


def test_shoulder_pitch_turns_the_whole_arm_about_its_axis():
    joints = random_joints("right", 1)[0]
    turned = joints + np.eye(7)[0] * 0.4
    shoulder = arm("right").links(joints)[0]
    axis = rotation("x", -0.27931)[:, 1]  # the first joint's y axis, rolled at the shoulder
    before, after = arm("right").wrist(joints) - shoulder, arm("right").wrist(turned) - shoulder
    assert before @ axis == pytest.approx(after @ axis)
    cosine = (before - before @ axis * axis) @ (after - after @ axis * axis)
    assert cosine / (before @ before - (before @ axis) ** 2) == pytest.approx(np.cos(0.4))


def test_batches_of_any_shape_agree_with_single_calls():
    joints = random_joints("left", 6).reshape(2, 3, 7)
    wrists = arm("left").wrist(joints)
    assert wrists.shape == (2, 3, 3) and wrists.dtype == np.float64
    np.testing.assert_allclose(wrists[1, 2], arm("left").wrist(joints[1, 2]))


def test_urdf_names_are_known_too():
    names = [
        f"right_{n}_joint"
        for n in ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")
    ]
    found = arm_for(["waist_yaw_joint", *reversed(names)], "right")
    assert found is not None and found.joint_names == tuple(names)
    np.testing.assert_array_equal(found.wrist(np.full(7, 0.3)), arm("right").wrist(np.full(7, 0.3)))


def test_an_arm_with_a_joint_missing_or_of_another_robot_is_not_an_arm():
    assert arm_for([name for name in G1_JOINTS if name != "kRightElbow"], "right") is None
    assert arm_for(["shoulder_pan.pos", "elbow_flex.pos"], "left") is None


def test_hands_go_by_name_not_by_place():
    position = np.random.default_rng(1).uniform(-0.5, 0.5, 26)
    shuffle = np.random.default_rng(2).permutation(26)
    hands = hands_of(Joints(0, "", G1_JOINTS, position))
    shuffled = hands_of(Joints(0, "", tuple(G1_JOINTS[i] for i in shuffle), position[shuffle]))
    assert set(hands) == {"left", "right"}
    for side in hands:
        np.testing.assert_array_equal(hands[side], shuffled[side])
    one_arm = tuple(f"kLeft{joint}" for joint in ARM_JOINTS)
    assert set(hands_of(Joints(0, "", one_arm, np.zeros(7)))) == {"left"}


@pytest.mark.parametrize("side", ["left", "right"])
def test_inverse_finds_joints_for_poses_that_the_arm_can_take(side):
    posture = np.array([-0.5, 0.0, 0.0, 0.8, 0.0, -0.3, 0.0])
    joints = posture + np.random.default_rng(3).uniform(-0.4, 0.4, (200, 7))
    pose = arm(side).wrist_pose(joints)
    found = arm(side).inverse(pose[:, :3, 3], pose[:, :3, :3], posture)
    assert np.linalg.norm(arm(side).wrist(found) - pose[:, :3, 3], axis=1).max() < 1e-3
    turn = rotation_vector(arm(side).wrist_pose(found)[:, :3, :3] @ pose[:, :3, :3].mT)
    assert np.linalg.norm(turn, axis=1).max() < 0.02


def test_inverse_stays_within_limits_when_the_target_is_out_of_reach():
    found = arm("right").inverse([2.0, 0.0, 0.0], np.eye(3), np.zeros(7))
    assert np.all(found >= arm("right").lower_rad) and np.all(found <= arm("right").upper_rad)
    assert np.isfinite(found).all()


def test_rotation_vector_undoes_rotation():
    for axis, angle in [("x", 0.3), ("y", -1.2), ("z", 3.0)]:
        expected = angle * np.eye(3)["xyz".index(axis)]
        np.testing.assert_allclose(rotation_vector(rotation(axis, angle)), expected, atol=1e-9)
    np.testing.assert_array_equal(rotation_vector(np.eye(3)), np.zeros(3))
