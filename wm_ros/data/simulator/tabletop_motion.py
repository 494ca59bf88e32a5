"""How the robot moves: a minimum-jerk reach over a via point, grasp, lift, hold, and sometimes putting it back.

Minimum jerk through a via point: Flash and Hogan, "The coordination of arm movements" (1985); the path is the quintic
spline that rests at both ends. A wrist path is six numbers per time: x, y, z (m), then inward yaw, upward pitch and
pronation (rad) of the hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline, make_interp_spline

from wm_ros.data.simulator.tabletop_shapes import Double
from wm_ros.kinematics import ARM_JOINTS, G1_JOINTS, HAND_JOINTS, Arm, arm_for, rotation

REST_POSTURE_RAD = {
    "right": np.array([-0.7, -0.2, -0.22, 1.1, 0.1, -0.55, 0.2]),
    "left": np.array([-0.7, 0.2, 0.22, 1.1, -0.1, -0.55, -0.2]),
}
SUBTASKS = (
    "wait",
    "reach for the object",
    "close the hand",
    "lift the object",
    "hold the object",
    "put the object down",
    "let go of the object",
    "go back",
)
_GRIP_FORWARD_M = 0.118  # from the wrist to the middle of what the hand holds
_PALM_M = 0.016  # from the middle of the palm to its surface
_REST_BIT = 1e-6


@dataclass(frozen=True)
class Stroke:
    """One movement of the wrist: from where it is, over `via` (at the share `via_at` of the time), to `end`."""

    begin_s: float
    end_s: float
    end: Double
    via: Double | None = None
    via_at: float = 0.6


@dataclass(frozen=True)
class Plan:
    """What one hand does.

    Attributes:
        side: "left" or "right". start: (6,) wrist pose. strokes: in time order.
        fingers: (time, (6,) hand joints) reached at that time; between two, the fingers move by minimum jerk.
        held_s: from when until when the object moves with the hand; both infinite where it never does.
    """

    side: str
    start: Double
    strokes: tuple[Stroke, ...]
    fingers: tuple[tuple[float, Double], ...]
    held_s: tuple[float, float] = (np.inf, np.inf)


def inward(side: str) -> float:
    """+1 for the right hand, whose palm looks along +y; -1 for the left."""
    return 1.0 if side == "right" else -1.0


def turn_of(side: str, angles: Double) -> Double:
    """Rotations (…, 3, 3) of the wrist from inward yaw, upward pitch, pronation (…, 3)."""
    sign = inward(side)
    turn = rotation("z", sign * angles[..., 0]) @ rotation("y", -angles[..., 1])
    return turn @ rotation("x", -sign * angles[..., 2])


def grip_pose(side: str, centre_m: Double, radius_m: float, angles: Double) -> Double:
    """Wrist pose (6,) at which the hand closes around a thing of `radius_m` at `centre_m`."""
    return np.concatenate([centre_m - turn_of(side, angles) @ _grip(side, radius_m), angles])


def wrist_path(plan: Plan, times_s: Double) -> Double:
    """The wrist's path (T, 6) at `times_s`."""
    path = np.tile(plan.start, (len(times_s), 1))
    here = plan.start
    for stroke in plan.strokes:
        curve = _stroke_curve(here, stroke)
        inside = times_s >= stroke.begin_s
        path[inside] = curve(np.clip(times_s[inside], stroke.begin_s, stroke.end_s))
        here = stroke.end
    return path


def held_path(plan: Plan, radius_m: float, count: int) -> Double:
    """Where the held thing's middle passes, (count, 3), from the grasp to the end of the plan."""
    path = wrist_path(plan, np.linspace(plan.held_s[0], min(plan.held_s[1], plan.strokes[-1].end_s), count))
    return path[:, :3] + turn_of(plan.side, path[:, 3:]) @ _grip(plan.side, radius_m)


def subtask(plan: Plan, time_s: float) -> str:
    """Which of `SUBTASKS` the hand is about: that of its stroke, or the one between two strokes."""
    moving, after = ("reach for the object", "lift the object", "put the object down", "go back"), SUBTASKS[2::2]
    said = "wait"
    for number, stroke in enumerate(plan.strokes):
        if time_s >= stroke.begin_s:
            said = moving[number] if time_s < stroke.end_s else (*after, "wait")[number]
    return said


def finger_path(plan: Plan, times_s: Double) -> Double:
    """The hand joints (T, 6) at `times_s`."""
    keys = np.array([time for time, _ in plan.fingers])
    values = np.stack([value for _, value in plan.fingers])
    after = np.clip(np.searchsorted(keys, times_s, side="right"), 1, len(keys) - 1)
    share = np.clip((times_s - keys[after - 1]) / np.maximum(keys[after] - keys[after - 1], _REST_BIT), 0.0, 1.0)
    smooth = share**3 * (10 - 15 * share + 6 * share**2)
    mixed: Double = values[after - 1] + (values[after] - values[after - 1]) * smooth[:, None]
    return mixed


def commands(plans: Sequence[Plan], times_s: Double) -> tuple[Double, float]:
    """Joint commands (T, 26) in the order of `G1_JOINTS` that follow the plans of both hands.

    Returns:
        the commands, and the greatest distance (m) between a planned wrist and the one that the arm reaches.
    """
    joints, miss = np.zeros((len(times_s), len(G1_JOINTS))), 0.0
    for plan in plans:
        arm = g1_arm(plan.side)
        path = wrist_path(plan, times_s if plan.strokes else times_s[:1])  # a hand that rests is solved for once
        solved = arm.inverse(
            path[:, :3], turn_of(plan.side, path[:, 3:]), REST_POSTURE_RAD[plan.side], turn_weight=0.04
        )
        miss = max(miss, float(np.linalg.norm(arm.wrist(solved) - path[:, :3], axis=1).max()))
        joints[:, columns(plan.side, ARM_JOINTS)] = solved
        joints[:, columns(plan.side, HAND_JOINTS)] = finger_path(plan, times_s)
    return joints, miss


def follow(command: Double, step_s: float, lag_s: float) -> Double:
    """Joints (T, J) that follow commands with a first-order lag, exact for commands that are straight in between."""
    decay = np.exp(-step_s / lag_s)
    slope = lag_s / step_s * (1 - decay)
    measured = command.copy()
    for i in range(1, len(command)):
        measured[i] = decay * measured[i - 1] + (1 - slope) * command[i] + (slope - decay) * command[i - 1]
    return measured


def g1_arm(side: str) -> Arm:
    """The G1's arm of `side`."""
    arm = arm_for(G1_JOINTS, side)
    if arm is None:
        raise AssertionError(f"the {side} arm is not in G1_JOINTS")
    return arm


def columns(side: str, joints: Sequence[str]) -> list[int]:
    """Places in `G1_JOINTS` of one side's joints."""
    return [G1_JOINTS.index(f"k{side.capitalize()}{joint}") for joint in joints]


def _grip(side: str, radius_m: float) -> Double:
    """Middle of a held thing of `radius_m` in the wrist frame."""
    return np.array([_GRIP_FORWARD_M, inward(side) * (_PALM_M + radius_m), 0.0])


def _stroke_curve(start: Double, stroke: Stroke) -> BSpline:
    rest = [(1, np.zeros(6)), (2, np.zeros(6))]
    times, points = [stroke.begin_s, stroke.end_s], [start, stroke.end]
    if stroke.via is not None:
        times.insert(1, stroke.begin_s + stroke.via_at * (stroke.end_s - stroke.begin_s))
        points.insert(1, stroke.via)
    return make_interp_spline(times, np.stack(points), k=5, bc_type=(rest, rest))
