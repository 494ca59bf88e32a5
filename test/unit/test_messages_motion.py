"""Poses, joints, hands, words, boxes and grids: round trips, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from wm_ros.errors import MessageError
from wm_ros.messages import (
    TYPESTORE,
    Status,
    decode,
    decode_clock,
    decode_diagnostics,
    decode_numbers,
    encode_clock,
    encode_diagnostics,
    encode_numbers,
    encode_sample,
    header_stamp,
)
from wm_ros.messages.cdr import make, serialise
from wm_ros.messages.grids import UNKNOWN, decode_grid, encode_grid
from wm_ros.messages.markers import encode_detections
from wm_ros.messages.motion import encode_joint_trajectory, encode_path
from wm_ros.types import (
    ActionChunk,
    Boxes,
    Detections,
    EgoPose,
    HandTrajectory,
    Instruction,
    JointCommand,
    JointForecast,
    Joints,
    OccupancyForecast,
)

STAMP = 1_000_000_000_123
ODOMETRY, JOINTS = "nav_msgs/msg/Odometry", "sensor_msgs/msg/JointState"
numbers = st.floats(-1e6, 1e6)


def changed(sample, **edits):
    """The message of `sample` with fields set by dotted names."""
    ((topic, cdr),) = encode_sample(sample)
    message = TYPESTORE.deserialize_cdr(cdr, topic.type)
    for path, value in edits.items():
        *parents, last = path.split("__")
        target = message
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, value)
    return serialise(message)


@settings(max_examples=50, deadline=None)
@given(
    position=arrays(np.float64, 3, elements=numbers),
    turn=arrays(np.float64, 3, elements=st.floats(-3, 3)),
    twist=arrays(np.float64, 6, elements=numbers),
)
def test_any_pose_survives(position, turn, twist):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), position
    ((topic, cdr),) = encode_sample(EgoPose(STAMP, "odom", "base_link", matrix, twist[:3], twist[3:]))
    back = decode(topic.type, cdr)
    assert (topic.name, back.stamp_ns, back.frame_id, back.child_frame_id) == ("odom", STAMP, "odom", "base_link")
    assert np.allclose(back.matrix, matrix, atol=1e-12)
    assert np.array_equal(back.linear_mps, twist[:3])
    assert np.array_equal(back.angular_radps, twist[3:])


POSE = EgoPose(STAMP, "odom", "base_link", np.eye(4), np.ones(3), np.ones(3))


@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0, 1e200])
def test_a_quaternion_is_normalised(scale):
    quarter = make("geometry_msgs/Quaternion", x=0.0, y=0.0, z=scale, w=scale)
    back = decode(ODOMETRY, changed(POSE, pose__pose__orientation=quarter))
    assert np.allclose(back.matrix[:2, :2], [[0, -1], [1, 0]])


@pytest.mark.parametrize("bad", [(0, 0, 0, 0), (np.nan, 0, 0, 1), (np.inf, 0, 0, 1)])
def test_a_quaternion_that_is_no_rotation_is_refused(bad):
    quaternion = make("geometry_msgs/Quaternion", **dict(zip("xyzw", map(float, bad), strict=True)))
    with pytest.raises(MessageError, match=r"Odometry.pose.orientation"):
        decode(ODOMETRY, changed(POSE, pose__pose__orientation=quaternion))


def test_a_position_that_is_not_finite_is_refused_and_such_a_twist_is_unknown():
    with pytest.raises(MessageError, match=r"Odometry.pose.position"):
        decode(ODOMETRY, changed(POSE, pose__pose__position__y=float("nan")))
    back = decode(ODOMETRY, changed(POSE, twist__twist__linear__x=float("nan")))
    assert back.linear_mps.tolist() == [0, 1, 1]


def test_a_stamp_of_too_many_nanoseconds_is_refused():
    with pytest.raises(MessageError, match="nanosec"):
        decode(ODOMETRY, changed(POSE, header__stamp__nanosec=1_000_000_000))


MEASURED = Joints(STAMP, "torso", ("left", "right"), np.array([0.25, -0.5]), np.array([1.0, 2.0]))


def test_joints_and_commands_share_a_message_and_differ_by_what_is_asked_for():
    command = JointCommand(STAMP, "torso", MEASURED.names, MEASURED.position_rad)
    ((measured_topic, cdr),) = encode_sample(MEASURED)
    ((command_topic, command_cdr),) = encode_sample(command)
    assert (measured_topic.name, command_topic.name) == ("joint_states", "joint_commands")
    back, again = decode(JOINTS, cdr), decode(JOINTS, command_cdr, sample=JointCommand)
    assert type(back) is Joints
    assert type(again) is JointCommand
    assert back.names == again.names == MEASURED.names
    assert np.array_equal(back.position_rad, MEASURED.position_rad)
    assert np.array_equal(back.velocity_radps, MEASURED.velocity_radps)
    assert again.velocity_radps.size == 0


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"name": ["a", "a"]}, "JointState.name: 'a' is given twice"),
        ({"name": ["a"]}, "JointState.position: 2 values for 1 names"),
        ({"name": []}, "JointState.name: 0 names"),
        ({"velocity": np.zeros(3)}, "JointState.velocity: 3 values for 2 names"),
        ({"position": np.array([0, np.nan])}, "JointState.position"),
        ({"position": np.zeros(0)}, "JointState.position: 0 values"),
    ],
)
def test_joints_that_cannot_be_addressed_are_refused(edits, words):
    with pytest.raises(MessageError, match=words):
        decode(JOINTS, changed(MEASURED, **edits))


def test_a_velocity_that_was_not_measured_is_left_out():
    assert decode(JOINTS, changed(MEASURED, velocity=np.array([np.nan, 1]))).velocity_radps.size == 0


HAND = HandTrajectory(
    STAMP,
    "torso",
    "right",
    np.array([-0.1, 0.0, 1 / 15, 0.5]),
    np.arange(12, dtype=np.float32).reshape(4, 3) / 10,
    np.array([True, True, False, True]),
)


def test_a_hand_becomes_a_path_whose_poses_carry_their_own_stamps():
    cdr = encode_path(HAND)
    poses = TYPESTORE.deserialize_cdr(cdr, "nav_msgs/msg/Path").poses
    assert [p.header.stamp.sec * 10**9 + p.header.stamp.nanosec - STAMP for p in poses] == [-(10**8), 0, 5 * 10**8]
    assert {p.header.frame_id for p in poses} == {"torso"}
    back = decode("nav_msgs/msg/Path", cdr, topic="/robot/future/hand_right")
    assert (back.stamp_ns, back.side, back.valid.all()) == (STAMP, "right", True)
    assert back.offsets_s.tolist() == [-0.1, 0.0, 0.5]
    assert np.array_equal(back.position_m, HAND.position_m[HAND.valid])


def test_a_path_of_no_hand_and_one_that_goes_back_in_time_are_refused():
    with pytest.raises(MessageError, match="/plan"):
        decode("nav_msgs/msg/Path", encode_path(HAND), topic="/plan")
    backward = dataclasses.replace(HAND, offsets_s=HAND.offsets_s[::-1])
    with pytest.raises(MessageError, match="ascend"):
        decode("nav_msgs/msg/Path", encode_path(backward), topic="hand_right")


def test_a_hand_that_is_not_finite_is_not_published():
    bad = HAND.position_m.copy()
    bad[3, 1] = np.inf
    with pytest.raises(MessageError, match="right hand"):
        encode_sample(dataclasses.replace(HAND, values=bad))


@pytest.mark.parametrize("kind", [JointForecast, ActionChunk])
def test_joints_to_come_survive_with_time_from_start(kind):
    chunk = kind(STAMP, "torso", ("a", "b"), np.arange(1, 6) / 15, np.arange(10, dtype=np.float32).reshape(5, 2) / 7)
    cdr = encode_joint_trajectory(chunk)
    knots = TYPESTORE.deserialize_cdr(cdr, "trajectory_msgs/msg/JointTrajectory").points
    assert [k.time_from_start.nanosec for k in knots] == [round(i * 1e9 / 15) for i in range(1, 6)]
    back = decode("trajectory_msgs/msg/JointTrajectory", cdr, sample=kind)
    assert type(back) is kind
    assert (back.names, back.stamp_ns) == (("a", "b"), STAMP)
    assert np.allclose(back.offsets_s, chunk.offsets_s, atol=1e-9)
    assert np.array_equal(back.position_rad, chunk.position_rad)


def test_a_trajectory_that_does_not_ascend_or_lacks_a_joint_is_refused():
    good = JointForecast(STAMP, "torso", ("a", "b"), np.array([0.1, 0.1]), np.zeros((2, 2), np.float32))
    with pytest.raises(MessageError, match="ascend"):
        decode("trajectory_msgs/msg/JointTrajectory", encode_joint_trajectory(good))
    short = dataclasses.replace(good, names=("a", "b", "c"))
    with pytest.raises(MessageError, match="2 positions for 3 joints"):
        decode("trajectory_msgs/msg/JointTrajectory", encode_joint_trajectory(short))


def test_words_take_the_time_of_receipt_and_are_bounded():
    ((topic, cdr),) = encode_sample(Instruction(STAMP, "", "Heb het blik op — 持ち上げて"))
    assert decode(topic.type, cdr, stamp_ns=7) == Instruction(7, "", "Heb het blik op — 持ち上げて")
    ((_, cdr),) = encode_sample(Instruction(STAMP, "", "x" * 5000))
    with pytest.raises(MessageError, match="5000 characters"):
        decode(topic.type, cdr)


def test_boxes_survive_after_a_marker_that_clears():
    boxes = np.array([[1, 2, 3, 4, 5, 6, 0.5], [-1, 0, 1, 1, 1, 1, -3.0]], np.float32)
    ((topic, cdr),) = encode_sample(Boxes(STAMP, "lidar", boxes, ("car", "cyclist"), (7, 8)))
    first = TYPESTORE.deserialize_cdr(cdr, topic.type).markers[0]
    assert first.action == 3
    back = decode(topic.type, cdr)
    assert (back.stamp_ns, back.frame_id, back.labels, back.track_ids) == (STAMP, "lidar", ("car", "cyclist"), (7, 8))
    assert np.allclose(back.boxes, boxes, atol=1e-6)


def test_detections_carry_their_scores():
    boxes = np.array([[1, 2, 3, 4, 5, 6, 0.5], [-1, 0, 1, 1, 1, 1, -3.0]], np.float32)
    scores = np.array([0.875, 0.25], np.float32)
    sample = Detections(STAMP, "lidar", boxes, ("car", "pedestrian"), (0, 1), scores)
    cdr = encode_detections(sample)
    back = decode("visualization_msgs/msg/MarkerArray", cdr, sample=Detections)
    assert isinstance(back, Detections) and back.labels == sample.labels and back.frame_id == "lidar"
    assert np.allclose(back.scores, scores, atol=1e-4) and np.allclose(back.boxes, boxes, atol=1e-6)
    assert decode("visualization_msgs/msg/MarkerArray", cdr, sample=Boxes).labels == sample.labels
    ((_, unscored),) = encode_sample(Boxes(STAMP, "lidar", boxes, ("car", "pedestrian"), (0, 1)))
    with pytest.raises(MessageError, match=r"text: is not the score"):
        decode("visualization_msgs/msg/MarkerArray", unscored, sample=Detections)


def test_no_boxes_still_have_a_stamp():
    ((topic, cdr),) = encode_sample(Boxes(STAMP, "lidar", np.zeros((0, 7), np.float32), (), ()))
    back = decode(topic.type, cdr)
    assert (back.stamp_ns, back.frame_id, back.boxes.shape) == (STAMP, "lidar", (0, 7))


def test_a_grid_keeps_its_place_and_whole_per_cents():
    probability = np.round(np.random.default_rng(0).random((2, 5, 7)), 2).astype(np.float32)
    forecast = OccupancyForecast(STAMP, "lidar", (0.5, 1.0), probability, 0.4, (-51.2, -1.0))
    back = decode("nav_msgs/msg/OccupancyGrid", encode_grid(forecast, 1), topic="/bev/occupancy/t_1000")
    assert (back.horizons_s, back.cell_m, back.origin_m) == ((1.0,), 0.4, (-51.2, -1.0))
    assert np.allclose(back.probability[0], probability[1], atol=1e-6)


def grid(**edits):
    cdr = encode_grid(OccupancyForecast(STAMP, "map", (1.0,), np.zeros((1, 2, 3), np.float32), 0.5, (0.0, 0.0)), 0)
    message = TYPESTORE.deserialize_cdr(cdr, "nav_msgs/msg/OccupancyGrid")
    message.data = edits.pop("data", message.data)
    for name, value in edits.items():
        setattr(message.info, name, value)
    return serialise(message)


def test_unknown_cells_have_even_odds():
    data = np.array([-1, 0, 50, 100, -1, 7], np.int8)
    back = decode_grid(grid(data=data), 1.0)
    assert np.allclose(back.probability[0], [[UNKNOWN, 0, 0.5], [1, UNKNOWN, 0.07]])


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"width": 4}, "6 cells, 4 × 2"),
        ({"width": 2**32 - 1, "height": 2**32 - 1}, "OccupancyGrid.data"),
        ({"resolution": 0.0}, "resolution"),
        ({"resolution": float("nan")}, "resolution"),
        ({"data": np.array([0, 0, 0, 0, 0, 101], np.int8)}, "outside"),
        ({"data": np.array([0, 0, 0, 0, 0, -2], np.int8)}, "outside"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(edits, words):
    with pytest.raises(MessageError, match=words):
        decode_grid(grid(**edits), 1.0)


def test_clock_diagnostics_and_numbers_survive():
    assert decode_clock(encode_clock(STAMP)) == STAMP
    statuses = [Status("lidar_encoder: latency", 1, "slow", {"p95_ms": "210"}), Status("policy: input", 0, "")]
    assert decode_diagnostics(encode_diagnostics(STAMP, statuses)) == statuses
    rows = [("hand_left", [1.0, 2.5]), ("occupancy", []), ("action", [3.0])]
    assert decode_numbers(encode_numbers(rows)) == rows


@pytest.mark.parametrize("stamp", [-1, (2**31) * 10**9])
def test_a_stamp_that_a_message_cannot_hold_is_refused(stamp):
    with pytest.raises(MessageError, match="stamp"):
        encode_clock(stamp)


def test_the_stamp_of_a_header_is_read_without_decoding():
    ((topic, cdr),) = encode_sample(MEASURED)
    assert header_stamp(topic.type, cdr) == STAMP
    big = bytes(TYPESTORE.serialize_cdr(TYPESTORE.deserialize_cdr(cdr, JOINTS), JOINTS, little_endian=False))
    assert header_stamp(JOINTS, big) == STAMP
    assert header_stamp("std_msgs/msg/String", cdr) is None
    assert header_stamp("nobody_msgs/msg/Knows", cdr) is None
