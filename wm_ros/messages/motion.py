"""Odometry, JointState, Path, JointTrajectory and String ↔ what moves and what was said."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_ros.errors import MessageError
from wm_ros.messages.cdr import (
    NANO,
    deserialise,
    duration_message,
    header,
    make,
    nanoseconds,
    pose,
    require_finite,
    serialise,
    stamp_of,
    vector,
    xyz,
)
from wm_ros.topics import SIDES
from wm_ros.types import HAND_COLUMNS, EgoPose, HandKind, HandTrajectory, Instruction, JointForecast, Joints

ODOMETRY = "nav_msgs/msg/Odometry"
JOINT_STATE = "sensor_msgs/msg/JointState"
PATH = "nav_msgs/msg/Path"
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
STRING = "std_msgs/msg/String"

MAX_TEXT = 4096
MAX_JOINTS = 1024
MAX_KNOTS = 10_000

AnyJoints = TypeVar("AnyJoints", bound=Joints)
AnyForecast = TypeVar("AnyForecast", bound=JointForecast)

# ----------------------------------------------------------------------------- Odometry


def decode_odometry(cdr: bytes | memoryview, stamp_ns: int = 0) -> EgoPose:
    """A pose. The quaternion is normalised; one that is zero or not finite is refused; an unknown twist is zero."""
    message = deserialise(ODOMETRY, cdr)
    matrix = np.eye(4)
    matrix[:3, 3] = xyz(message.pose.pose.position, "Odometry.pose.position")
    matrix[:3, :3] = _rotation(message.pose.pose.orientation, "Odometry.pose.orientation").as_matrix()
    linear, angular = (
        np.nan_to_num(np.array([v.x, v.y, v.z]), nan=0.0, posinf=0.0, neginf=0.0)
        for v in (message.twist.twist.linear, message.twist.twist.angular)
    )
    return EgoPose(
        stamp_of(message.header, stamp_ns), message.header.frame_id, message.child_frame_id, matrix, linear, angular
    )


def encode_odometry(sample: EgoPose) -> bytes:
    """A pose and twist with covariances of zero (unknown)."""
    require_finite(sample.matrix, "Odometry.pose")
    x, y, z, w = Rotation.from_matrix(sample.matrix[:3, :3]).as_quat(canonical=True)
    twist = make("geometry_msgs/Twist", linear=vector(*sample.linear_mps), angular=vector(*sample.angular_radps))
    here = pose(sample.matrix[:3, 3], (x, y, z, w))
    return serialise(
        make(
            "nav_msgs/Odometry",
            header=header(sample.stamp_ns, sample.frame_id),
            child_frame_id=sample.child_frame_id,
            pose=make("geometry_msgs/PoseWithCovariance", pose=here, covariance=np.zeros(36)),
            twist=make("geometry_msgs/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
        )
    )


def _rotation(quaternion: Any, field: str) -> Rotation:
    values = np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w])
    largest = np.abs(values).max()
    if not np.isfinite(values).all() or largest < 1e-6:
        raise MessageError(f"{field}: {values.tolist()} is no rotation")
    return Rotation.from_quat(values / largest)  # the division keeps huge values from overflowing when squared


# ----------------------------------------------------------------------------- JointState


def decode_joints(cdr: bytes | memoryview, kind: type[AnyJoints], stamp_ns: int = 0) -> AnyJoints:
    """Joints by name. Names given twice, lengths that differ and positions that are not finite are refused."""
    message = deserialise(JOINT_STATE, cdr)
    names = _names(message.name, "JointState.name")
    position = np.asarray(message.position, np.float64)
    velocity = np.asarray(message.velocity, np.float64)
    if len(position) != len(names):
        raise MessageError(f"JointState.position: {len(position)} values for {len(names)} names")
    if len(velocity) not in (0, len(names)):
        raise MessageError(f"JointState.velocity: {len(velocity)} values for {len(names)} names")
    require_finite(position, "JointState.position")
    if not np.isfinite(velocity).all():  # drivers that do not measure it write NaN
        velocity = np.zeros(0)
    return kind(stamp_of(message.header, stamp_ns), message.header.frame_id, names, position, velocity)


def encode_joints(sample: Joints) -> bytes:
    """Joints, measured or commanded; efforts stay empty."""
    require_finite(sample.position_rad, "JointState.position")
    return serialise(
        make(
            "sensor_msgs/JointState",
            header=header(sample.stamp_ns, sample.frame_id),
            name=list(sample.names),
            position=np.array(sample.position_rad, np.float64),
            velocity=np.array(sample.velocity_radps, np.float64),
            effort=np.zeros(0),
        )
    )


def _names(names: list[str], field: str) -> tuple[str, ...]:
    if not 0 < len(names) <= MAX_JOINTS:
        raise MessageError(f"{field}: {len(names)} names")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise MessageError(f"{field}: '{twice[:60]}' is given twice")
    return tuple(names)


# ----------------------------------------------------------------------------- Path


HAND_PREFIXES: dict[str, HandKind] = {"": "wrist_m", "pose_": "pose", "box_": "box"}


def hand_of(topic: str) -> tuple[str, HandKind]:
    """'future/hand_left' → ('left', 'wrist_m'), 'hand_box_right' → ('right', 'box'). Raises MessageError for others."""
    name = topic.rpartition("hand_")[2]
    for side in SIDES:
        if name.endswith(side) and name.removesuffix(side) in HAND_PREFIXES:
            return side, HAND_PREFIXES[name.removesuffix(side)]
    raise MessageError(f"topic '{topic}': a hand is named by …/hand_left or …/hand_right (hand_pose_…, hand_box_…)")


def decode_path(cdr: bytes | memoryview, topic: str, stamp_ns: int = 0) -> HandTrajectory:
    """A hand's trajectory; `topic` says which hand, and whether of wrists or of poses (their gripper is not known).

    Offsets are relative to the stamp of the header.
    """
    message = deserialise(PATH, cdr)
    side, kind = hand_of(topic)
    if kind == "box":
        raise MessageError(f"topic '{topic}': boxes in an image are no Path")
    if len(message.poses) > MAX_KNOTS:
        raise MessageError(f"Path.poses: {len(message.poses)} poses, more than {MAX_KNOTS}")
    stamp = stamp_of(message.header, stamp_ns)
    stamps = [nanoseconds(p.header.stamp) for p in message.poses]
    if any(later <= earlier for earlier, later in pairwise(stamps)):
        raise MessageError("Path.poses: their stamps do not ascend")
    rows = [xyz(p.pose.position, "Path.poses") for p in message.poses]
    if kind == "pose":
        turns = [_rotation(p.pose.orientation, "Path.poses.pose.orientation").as_rotvec() for p in message.poses]
        rows = [np.array([*position, *turn, np.nan]) for position, turn in zip(rows, turns, strict=True)]
    return HandTrajectory(
        stamp,
        message.header.frame_id,
        side,
        np.array([(s - stamp) / NANO for s in stamps], np.float64),
        np.array(rows, np.float32).reshape(-1, len(HAND_COLUMNS[kind])),
        np.ones(len(stamps), np.bool_),
        kind,
    )


def encode_path(hand: HandTrajectory) -> bytes:
    """A trajectory of wrists or poses as a Path: each pose carries its own stamp; rows that are not valid are left out.

    The gripper is left out too: a Path has no place for it.
    """
    if hand.kind == "box":
        raise MessageError(f"Path.poses of the {hand.side} hand: boxes in an image are no poses")
    rows = hand.values[hand.valid]
    require_finite(rows[:, :6], f"Path.poses of the {hand.side} hand")
    quaternions = (
        Rotation.from_rotvec(rows[:, 3:6]).as_quat(canonical=True)
        if hand.kind == "pose" and len(rows)
        else np.tile([0.0, 0.0, 0.0, 1.0], (len(rows), 1))
    )
    stamps = [hand.stamp_ns + round(float(s) * NANO) for s in hand.offsets_s[hand.valid]]
    poses = [
        make("geometry_msgs/PoseStamped", header=header(s, hand.frame_id), pose=pose(row[:3], tuple(quaternion)))
        for s, row, quaternion in zip(stamps, rows, quaternions, strict=True)
    ]
    return serialise(make("nav_msgs/Path", header=header(hand.stamp_ns, hand.frame_id), poses=poses))


# ----------------------------------------------------------------------------- JointTrajectory


def decode_joint_trajectory(cdr: bytes | memoryview, kind: type[AnyForecast], stamp_ns: int = 0) -> AnyForecast:
    """Joints to come, as predicted or as asked for; velocities and efforts are not read."""
    message = deserialise(JOINT_TRAJECTORY, cdr)
    names = _names(message.joint_names, "JointTrajectory.joint_names")
    if len(message.points) > MAX_KNOTS:
        raise MessageError(f"JointTrajectory.points: {len(message.points)} points, more than {MAX_KNOTS}")
    for knot in message.points:
        if len(knot.positions) != len(names):
            raise MessageError(f"JointTrajectory.points: {len(knot.positions)} positions for {len(names)} joints")
    offsets: NDArray[np.float64] = np.array([nanoseconds(k.time_from_start) / NANO for k in message.points], np.float64)
    if (np.diff(offsets) <= 0).any():
        raise MessageError("JointTrajectory.points: time_from_start does not ascend")
    position = np.array([k.positions for k in message.points], np.float64).reshape(-1, len(names))
    require_finite(position, "JointTrajectory.points")
    return kind(
        stamp_of(message.header, stamp_ns), message.header.frame_id, names, offsets, position.astype(np.float32)
    )


def encode_joint_trajectory(forecast: JointForecast) -> bytes:
    """Joints to come; `time_from_start` counts from the stamp of the header (fits joint_trajectory_controller)."""
    require_finite(forecast.position_rad, "JointTrajectory.points")
    nothing = np.zeros(0)
    points = [
        make(
            "trajectory_msgs/JointTrajectoryPoint",
            positions=position.astype(np.float64),
            velocities=nothing,
            accelerations=nothing,
            effort=nothing,
            time_from_start=duration_message(offset),
        )
        for offset, position in zip(forecast.offsets_s, forecast.position_rad, strict=True)
    ]
    return serialise(
        make(
            "trajectory_msgs/JointTrajectory",
            header=header(forecast.stamp_ns, forecast.frame_id),
            joint_names=list(forecast.names),
            points=points,
        )
    )


# ----------------------------------------------------------------------------- String


def decode_instruction(cdr: bytes | memoryview, stamp_ns: int = 0) -> Instruction:
    """What the robot was told; a String has no header, so the time of receipt is its stamp."""
    text = deserialise(STRING, cdr).data
    if len(text) > MAX_TEXT:
        raise MessageError(f"String.data: {len(text)} characters, more than {MAX_TEXT}")
    return Instruction(stamp_ns, "", text)


def encode_instruction(sample: Instruction) -> bytes:
    """The words."""
    return serialise(make("std_msgs/String", data=sample.text))
