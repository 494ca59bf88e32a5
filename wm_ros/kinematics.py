"""Forward and inverse kinematics of humanoid arms, found by joint names.

The arms are those of the Unitree G1 (7 joints each; offsets and limits from its public robot description). Names are
accepted as in its public recordings (`kRightShoulderPitch`) and as in its URDF (`right_shoulder_pitch_joint`).
Positions are in metres in the robot's torso frame, x forward, y left, z up. All functions are batched, float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_ros.types import Joints

Double = NDArray[np.float64]

SIDES = ("left", "right")
ARM_JOINTS = ("ShoulderPitch", "ShoulderRoll", "ShoulderYaw", "Elbow", "WristRoll", "WristPitch", "WristYaw")
HAND_JOINTS = ("HandPinky", "HandRing", "HandMiddle", "HandIndex", "HandThumbBend", "HandThumbRotation")

# The order of the public G1 recordings: both arms, then both hands. Hand joints are 0 (closed) to 1 (open).
G1_JOINTS: tuple[str, ...] = tuple(
    f"k{side.capitalize()}{joint}" for group in (ARM_JOINTS, HAND_JOINTS) for side in SIDES for joint in group
)

_AXES = "yxzyxyz"
# Offset of each joint from the one before, for the left arm; y changes its sign on the right.
_OFFSETS_M = (
    (0.0039563, 0.10022, 0.24778),
    (0.0, 0.038, -0.013831),
    (0.0, 0.00624, -0.1032),
    (0.015783, 0.0, -0.080518),
    (0.1, 0.00188791, -0.00001),
    (0.038, 0.0, 0.0),
    (0.046, 0.0, 0.0),
)
# Fixed roll about x at the first two offsets, left arm; changes its sign on the right.
_ROLLS_RAD = (0.27931, -0.27925, 0.0, 0.0, 0.0, 0.0, 0.0)
_LOWER_RAD = (-3.0892, -1.5882, -2.618, -1.0472, -1.972222, -1.614430, -1.614430)
_UPPER_RAD = (2.6704, 2.2515, 2.618, 2.0944, 1.972222, 1.614430, 1.614430)


@dataclass(frozen=True)
class Arm:
    """One arm of a robot. Joint positions are given in the order of `joint_names`.

    Attributes:
        side: "left" or "right". joint_names: as the caller spells them, shoulder first.
        frame_id: frame of every position.
        lower_rad, upper_rad: (7,) limits.
    """

    side: str
    joint_names: tuple[str, ...]
    offsets_m: Double
    rolls_rad: Double
    lower_rad: Double
    upper_rad: Double
    frame_id: str = "torso"

    def frames(self, position_rad: ArrayLike) -> Double:
        """Pose of each joint's frame after its turn, (…, 7, 4, 4), from joint positions (…, 7)."""
        position = np.asarray(position_rad, dtype=np.float64)
        frames = np.empty((*position.shape, 4, 4))
        pose: Double = np.eye(4)
        for i, axis in enumerate(_AXES):
            fixed = rotation("x", self.rolls_rad[i])
            step = np.zeros((*position.shape[:-1], 4, 4))
            step[..., :3, :3] = fixed @ rotation(axis, position[..., i])
            step[..., :3, 3] = self.offsets_m[i]
            step[..., 3, 3] = 1.0
            pose = pose @ step
            frames[..., i, :, :] = pose
        return frames

    def links(self, position_rad: ArrayLike) -> Double:
        """Origins of all joints, shoulder to wrist, (…, 7, 3)."""
        return self.frames(position_rad)[..., :3, 3]

    def wrist_pose(self, position_rad: ArrayLike) -> Double:
        """Pose of the wrist (…, 4, 4); its x axis points along the hand, y left, z up when all joints are zero."""
        return self.frames(position_rad)[..., -1, :, :]

    def wrist(self, position_rad: ArrayLike) -> Double:
        """Position of the wrist (…, 3) from joint positions (…, 7)."""
        return self.wrist_pose(position_rad)[..., :3, 3]

    def inverse(
        self,
        position_m: ArrayLike,
        rotation_matrix: ArrayLike,
        posture_rad: ArrayLike,
        turn_weight: float = 0.1,
        posture_weight: float = 0.01,
        iterations: int = 40,
    ) -> Double:
        """Joint positions that bring the wrist to a pose: damped least squares (Levenberg–Marquardt), within limits.

        All targets are solved at once and from the same start, so a smooth path of targets gives a smooth path of
        joints.

        Args:
            position_m: (…, 3). rotation_matrix: (…, 3, 3).
            posture_rad: (…, 7), where the search starts and what it prefers where the pose leaves freedom.
            turn_weight: metres that one radian of wrong orientation costs. posture_weight: likewise, of posture.

        Returns:
            (…, 7) joint positions; compare `wrist_pose` of them with the target to learn whether it was reached.
        """
        target, turn = np.asarray(position_m, np.float64), np.asarray(rotation_matrix, np.float64)
        posture = np.broadcast_to(np.asarray(posture_rad, np.float64), (*target.shape[:-1], 7))
        posture = np.clip(posture, self.lower_rad, self.upper_rad)
        joints: Double = posture.copy()
        for iteration in range(iterations):
            frames = self.frames(joints)
            wrist = frames[..., -1, :, :]
            axes = np.stack([frames[..., i, :3, "xyz".index(a)] for i, a in enumerate(_AXES)], axis=-2)
            arms = wrist[..., None, :3, 3] - frames[..., :3, 3]
            jacobian = np.concatenate([np.cross(axes, arms), turn_weight * axes], axis=-1)  # (…, 7, 6)
            error = np.concatenate(
                [target - wrist[..., :3, 3], turn_weight * rotation_vector(turn @ wrist[..., :3, :3].mT)], axis=-1
            )
            # The pull towards the posture fades, so that it chooses among solutions without moving the wrist away.
            pull = posture_weight * (1.0 - iteration / iterations)
            damping = 1e-5 + pull**2
            normal = jacobian @ jacobian.mT + damping * np.eye(7)
            gradient = (jacobian @ error[..., None])[..., 0] + pull**2 * (posture - joints)
            step = np.linalg.solve(normal, gradient[..., None])[..., 0]
            joints = np.clip(joints + np.clip(step, -0.3, 0.3), self.lower_rad, self.upper_rad)
        return joints


def arm_for(names: Sequence[str], side: str) -> Arm | None:
    """The arm of `side` whose joints are all among `names`, spelled as they are there; None where there is none."""
    there = set(names)
    for style in (_recorded_name, _urdf_name):
        wanted = tuple(style(side, joint) for joint in ARM_JOINTS)
        if there.issuperset(wanted):
            return _g1_arm(side, wanted)
    return None


def hands_of(joints: Joints) -> dict[str, Double]:
    """Side → wrist position (3,) in the torso frame, for each arm whose joints are all in `joints`."""
    hands = {}
    place = {name: i for i, name in enumerate(joints.names)}
    for side in SIDES:
        arm = arm_for(joints.names, side)
        if arm is not None:
            hands[side] = arm.wrist(joints.position_rad[[place[name] for name in arm.joint_names]])
    return hands


def rotation(axis: str, angle_rad: ArrayLike) -> Double:
    """Rotation matrices (…, 3, 3) about "x", "y" or "z" by angles (…), counter-clockwise."""
    angle = np.asarray(angle_rad, dtype=np.float64)
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.zeros((*angle.shape, 3, 3))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix[..., i, i] = 1.0
    matrix[..., j, j] = matrix[..., k, k] = cosine
    matrix[..., j, k] = -sine
    matrix[..., k, j] = sine
    return matrix


def rotation_vector(matrix: Double) -> Double:
    """Axis times angle (…, 3) of rotation matrices (…, 3, 3); accurate below half a turn."""
    skew = np.stack(
        [
            matrix[..., 2, 1] - matrix[..., 1, 2],
            matrix[..., 0, 2] - matrix[..., 2, 0],
            matrix[..., 1, 0] - matrix[..., 0, 1],
        ],
        axis=-1,
    )
    sine = np.linalg.norm(skew, axis=-1, keepdims=True)  # twice the sine of the angle
    cosine = np.trace(matrix, axis1=-2, axis2=-1)[..., None] - 1.0  # twice its cosine
    angle = np.arctan2(sine, cosine)
    return np.where(sine > 1e-9, skew * angle / np.maximum(sine, 1e-9), 0.5 * skew)


def _recorded_name(side: str, joint: str) -> str:
    return f"k{side.capitalize()}{joint}"


def _urdf_name(side: str, joint: str) -> str:
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in joint)
    return f"{side}{snake}_joint"


@cache
def _g1_arm(side: str, joint_names: tuple[str, ...]) -> Arm:
    sign = {"left": 1.0, "right": -1.0}[side]
    mirrored = np.array([-1.0 if axis in "xz" else 1.0 for axis in _AXES]) if side == "right" else np.ones(7)
    limits = np.sort(np.stack([np.array(_LOWER_RAD) * mirrored, np.array(_UPPER_RAD) * mirrored]), axis=0)
    return Arm(
        side=side,
        joint_names=joint_names,
        offsets_m=np.array(_OFFSETS_M) * (1.0, sign, 1.0),
        rolls_rad=np.array(_ROLLS_RAD) * sign,
        lower_rad=limits[0],
        upper_rad=limits[1],
    )
