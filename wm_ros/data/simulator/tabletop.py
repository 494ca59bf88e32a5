"""Simulated grasps: a head camera over the two arms of a G1, one of which takes the object that it was told to take.

The samples are those of a recorded episode: `Joints` and `JointCommand` by name, `Instruction` at the start,
`HandTrajectory` (where each wrist is now, from the measured joints), `Frame`. Equal seeds give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from wm_ros.data.simulator import tabletop_motion as motion
from wm_ros.data.simulator import tabletop_scene as scenery
from wm_ros.data.simulator.tabletop_render import Camera, Renderer
from wm_ros.data.simulator.tabletop_shapes import Double, Part, Solid, arm_parts, box, hand_frames, hand_parts
from wm_ros.errors import UserError
from wm_ros.kinematics import ARM_JOINTS, G1_JOINTS, HAND_JOINTS, SIDES, hands_of, rotation
from wm_ros.types import Frame, HandTrajectory, Instruction, JointCommand, Joints, Sample

START_NS = 1_000_000_000_000
_ATTEMPTS = 200
_REACHED_M = 0.004
_NOISE_RAD = 0.0004
_JUDGED_TIMES = 64
_FASTEST_RADPS = 3.0
_LOWEST_M = 0.042  # of the wrist above the table: half a hand


@dataclass(frozen=True)
class Scene:
    """Objects and plans. `items[0]` is the one to take; `plans[0]` is that of the hand that takes it."""

    items: tuple[scenery.Item, ...]
    plans: tuple[motion.Plan, motion.Plan]
    table_m: float


def tabletop_samples(
    seed: int, seconds: float = 6.0, width: int = 128, height: int = 96, rate_hz: float = 15.0, objects: int = -1
) -> Iterator[Sample]:
    """One simulated episode.

    Args:
        seconds: length; the grasp takes 4 to 6. width, height: of the image, pixels. rate_hz: of all samples.
        objects: on the table, 1 to 6; -1 draws 2 to 4.

    Raises:
        UserError: an argument out of range.
    """
    _check(seconds, width, height, rate_hz, objects)
    times = np.arange(max(1, round(seconds * rate_hz))) / rate_hz
    scene, command, measured, rng = _reachable(seed, times, objects)
    words = scenery.instruction(rng, scene.items[0].words)
    carried = _carried(scene, measured, times)
    view, light = scenery.draw_view(rng), scenery.draw_light(rng)
    parts, place = _build(scene, rng)
    renderer = Renderer(parts, light, scenery.draw_texture(rng), scenery.TEXEL_M, scenery.TEXTURE_CENTRE_M)
    # Drawn last, so that a longer or a faster recording of a seed shows the same scene.
    noisy = measured + rng.normal(0.0, _NOISE_RAD, measured.shape)
    focal = width / 2 / np.tan(view.across_rad / 2)
    for i, time in enumerate(times):
        stamp = START_NS + round(float(time) * 1e9)
        joints = Joints(stamp, "", G1_JOINTS, noisy[i])
        yield joints
        yield JointCommand(stamp, "", G1_JOINTS, command[i])
        if i == 0:
            yield Instruction(stamp, "", words)
        for side, position in hands_of(joints).items():
            yield HandTrajectory(
                stamp, "torso", side, np.zeros(1), position[None].astype(np.float32), np.ones(1, dtype=bool)
            )
        camera = Camera(view.pose_at(float(time)), focal, width, height)
        yield Frame(stamp, "camera", renderer.picture(camera, place(measured[i], carried[i])))


def _check(seconds: float, width: int, height: int, rate_hz: float, objects: int) -> None:
    for name, value, low, high in (
        ("seconds", seconds, 0.1, 3600.0),
        ("width", width, 8, 4096),
        ("height", height, 8, 4096),
        ("rate_hz", rate_hz, 1.0, 120.0),
    ):
        if not low <= value <= high:
            raise UserError(f"tabletop: {name} = {value} is out of range; choose {low:g} to {high:g}")
    if objects != -1 and not 1 <= objects <= 6:
        raise UserError(f"tabletop: objects = {objects} is out of range; choose 1 to 6, or -1 to draw 2 to 4")


def _reachable(seed: int, times: Double, objects: int) -> tuple[Scene, Double, Double, np.random.Generator]:
    """The first scene of the seed that the arms can do: scene, commands, measured joints, generator."""
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, attempt])
        scene = _draw(rng, objects)
        if scene is None:
            continue
        # Judged on times of its own, so that the choice does not depend on which part of the plan is asked for.
        whole = np.linspace(0.0, scene.plans[0].strokes[-1].end_s, _JUDGED_TIMES)
        if _fits(scene, whole):
            command, _ = motion.commands(scene.plans, times)
            step = float(times[1]) if len(times) > 1 else 1.0
            return scene, command, motion.follow(command, step, rng.uniform(0.05, 0.11)), rng
    raise AssertionError(f"tabletop: no reachable scene in {_ATTEMPTS} attempts for seed {seed}")


def _fits(scene: Scene, times: Double) -> bool:
    """Whether both arms reach their paths at a sane speed and no hand goes through the table."""
    command, miss = motion.commands(scene.plans, times)
    fastest = np.abs(np.diff(command[:, : 2 * len(ARM_JOINTS)], axis=0)).max() / (times[1] - times[0])
    lowest = min(motion.wrist_path(plan, times)[:, 2].min() for plan in scene.plans) - scene.table_m
    return bool(miss < _REACHED_M and fastest < _FASTEST_RADPS and lowest > _LOWEST_M)


def _draw(rng: np.random.Generator, objects: int) -> Scene | None:
    """A scene, or None where the objects found no free places."""
    side = "right" if rng.random() < 0.75 else "left"
    out = -motion.inward(side)  # sign of y on the side of the hand that takes
    table = rng.normal(0.015, 0.008)
    count = int(rng.integers(2, 5)) if objects < 0 else objects
    words, target = scenery.draw_item(rng, set())
    spot = np.array([rng.uniform(0.29, 0.41), out * rng.uniform(-0.05, 0.17)])
    plan = _grasp(rng, side, target, np.array([*spot, table]))
    idle = motion.Plan(
        _other(side), _rest(rng, _other(side), table), (), ((0.0, _open(rng, 0.4, 0.9)), (1.0, _open(rng, 0.4, 0.9)))
    )
    items = [scenery.Item(words, target, _standing(rng, spot, table))]
    swept = _swept((plan, idle), np.linspace(0.0, plan.strokes[-1].end_s, 30))
    if np.linalg.norm(swept[1] - spot, axis=-1).min() < 0.03 + target.radius_m:
        return None
    busy = np.concatenate([*swept, motion.held_path(plan, target.radius_m, 12)[:, :2]])
    for _ in range(count - 1):
        words, other = scenery.draw_item(rng, {item.words for item in items}, near=items[0].words)
        for _ in range(30):
            place = np.array([rng.uniform(0.25, 0.62), rng.uniform(-0.3, 0.3)])
            gaps = [np.linalg.norm(place - item.pose[:2, 3]) - item.solid.radius_m * 1.4 for item in items]
            room = 0.02 + 1.4 * other.radius_m
            if np.linalg.norm(busy - place, axis=-1).min() > room + 0.02 and min(gaps) > room:
                items.append(scenery.Item(words, other, _standing(rng, place, table)))
                break
        else:
            return None
    return Scene(tuple(items), (plan, idle), float(table))


def _grasp(rng: np.random.Generator, side: str, target: Solid, foot: Double) -> motion.Plan:
    """Reach, close, lift aside, hold; in every second plan also put it down there, open and go back."""
    start = _rest(rng, side, foot[2])
    yaw = np.clip(0.75 + 2.0 * motion.inward(side) * foot[1] + rng.normal(0, 0.12), 0.1, 1.15)
    angles = np.array([yaw, rng.uniform(-0.05, 0.2), rng.uniform(-0.05, 0.3)])
    centre = foot + np.array([0.0, 0.0, max(target.grip_m, 0.055) + rng.uniform(-0.004, 0.012)])
    grasp = motion.grip_pose(side, centre, target.radius_m, angles)
    aside = np.array([rng.uniform(-0.05, 0.0), -motion.inward(side) * rng.uniform(0.04, 0.09), 0.0])
    via = grasp + np.concatenate([motion.turn_of(side, angles) @ aside, rng.normal(0, 0.06, 3)])
    via[2] += rng.uniform(0.0, 0.05)

    wait = rng.uniform(0.1, 0.9)
    reached = wait + rng.uniform(1.1, 2.3)
    closed = reached + rng.uniform(0.3, 0.6)
    lifted = closed + rng.uniform(0.1, 0.3) + rng.uniform(0.7, 1.3)
    up = grasp.copy()
    up[:3] += (rng.uniform(-0.06, 0.02), -motion.inward(side) * rng.uniform(-0.03, 0.06), rng.uniform(0.05, 0.14))
    up[3:] += (rng.uniform(-0.4, 0.1), rng.uniform(-0.05, 0.1), rng.uniform(-0.1, 0.1))
    strokes = [motion.Stroke(wait, reached, grasp, via, rng.uniform(0.5, 0.7)), motion.Stroke(closed, lifted, up)]
    relaxed, wide, shut = _open(rng, 0.5, 0.85), _open(rng, 0.85, 1.0), _shut(rng, target.radius_m)
    wide[5], shut[5] = rng.uniform(0.1, 0.35, 2)
    fingers = [
        (0.0, relaxed),
        (wait, relaxed),
        (wait + 0.5 * (reached - wait), wide),
        (reached - 0.1, wide),
        (closed, shut),
    ]
    held = (closed, np.inf)
    if rng.random() < 0.5:
        down = lifted + rng.uniform(0.2, 0.8)
        put = down + rng.uniform(0.8, 1.3)
        opened = put + rng.uniform(0.3, 0.5)
        back = opened + rng.uniform(0.9, 1.4)
        there = np.concatenate([up[:2], grasp[2:3], up[3:4], grasp[4:]])
        leave = there + np.concatenate([motion.turn_of(side, there[3:]) @ aside, np.zeros(3)])
        strokes += [motion.Stroke(down, put, there), motion.Stroke(opened, back, start, leave, 0.35)]
        fingers += [(put + 0.1, shut), (opened, wide), (back, relaxed)]
        held = (closed, put + 0.1)
    return motion.Plan(side, start, tuple(strokes), tuple(fingers), held)


def _rest(rng: np.random.Generator, side: str, table_m: float) -> Double:
    """A wrist pose at rest beside the body; the hand lies or stands on the table."""
    roll = rng.uniform(1.1, 1.5) if rng.random() < 0.3 else rng.uniform(-0.1, 0.4)
    y = -motion.inward(side) * rng.uniform(0.17, 0.26)
    return np.array(
        [
            rng.uniform(0.25, 0.32),
            y,
            table_m + rng.uniform(0.058, 0.085),
            rng.uniform(-0.2, 0.45),
            rng.uniform(0, 0.2),
            roll,
        ]
    )


def _open(rng: np.random.Generator, low: float, high: float) -> Double:
    """Hand joints around one opening between `low` and `high`, the thumb turned at random."""
    fingers = np.clip(rng.uniform(low, high) + rng.normal(0, 0.05, 6), 0.0, 1.0)
    fingers[5] = rng.uniform(0.1, 0.8)
    return fingers


def _shut(rng: np.random.Generator, radius_m: float) -> Double:
    """Hand joints around a thing of `radius_m`: the thinner, the more the fingers close."""
    grip = 0.6 + 9.0 * (radius_m - 0.035)
    return np.clip(np.array([grip, grip, grip, grip, 0.7, 0.2]) + rng.normal(0, 0.02, 6), 0.0, 1.0)


def _swept(plans: tuple[motion.Plan, ...], times: Double) -> list[Double]:
    """Table positions (N, 2) over which each hand passes: wrist, palm, fingertips."""
    passed = []
    for plan in plans:
        path = motion.wrist_path(plan, times)
        ahead = motion.turn_of(plan.side, path[:, 3:])[..., 0]
        passed.append(np.concatenate([path[:, :2] + reach * ahead[:, :2] for reach in (-0.08, 0.0, 0.07, 0.13, 0.18)]))
    return passed


def _standing(rng: np.random.Generator, spot: Double, table_m: float) -> Double:
    pose = np.eye(4)
    pose[:3, :3] = rotation("z", rng.uniform(-np.pi, np.pi))
    pose[:3, 3] = (*spot, table_m)
    return pose


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]


def _carried(scene: Scene, measured: Double, times: Double) -> Double:
    """Pose (T, 4, 4) of the object: with the hand while it is held, upright on the table otherwise."""
    plan, here = scene.plans[0], scene.items[0].pose
    wrists = motion.g1_arm(plan.side).wrist_pose(measured[:, motion.columns(plan.side, ARM_JOINTS)])
    poses, grip = np.empty((len(times), 4, 4)), None
    for i, time in enumerate(times):
        if plan.held_s[0] <= time < plan.held_s[1]:
            grip = np.linalg.inv(wrists[i]) @ here if grip is None else grip
            here = wrists[i] @ grip
        elif grip is not None:  # put down: it stands where it was let go
            forward = here[:2, 0] / np.linalg.norm(here[:2, 0])
            here, grip = here.copy(), None
            here[:3, :3] = rotation("z", np.arctan2(forward[1], forward[0]))
            here[2, 3] = scene.table_m
        poses[i] = here
    return poses


def _build(scene: Scene, rng: np.random.Generator) -> tuple[list[Part], Callable[[Double, Double], Double]]:
    """All parts of the scene, and a function that gives their poses from joints (26,) and the object's pose."""
    shell, metal, dark = scenery.draw_robot_colours(rng)
    desk = np.eye(4)
    desk[:3, 3] = (0.55, 0.0, scene.table_m - 0.02)
    parts: list[Part] = [box((rng.uniform(0.7, 1.0), 2.4, 0.04), 0.3 * np.ones(3), texture=1)]
    fixed = [desk]
    for _ in range(int(rng.integers(0, 4))):  # things at the far edge that are never touched
        size = rng.uniform((0.03, 0.04, 0.01), (0.12, 0.16, 0.08))
        spot = np.array([rng.uniform(0.72, 0.9), rng.uniform(-0.4, 0.4)])
        parts.append(box(size, np.clip(rng.uniform(0.03, 0.7, 3), 0, 1)))
        fixed.append(_standing(rng, spot, scene.table_m + size[2] / 2))
    for item in scene.items[1:]:
        parts.append(item.solid.part)
        fixed.append(item.pose)
    parts.append(scene.items[0].solid.part)
    links = {side: arm_parts(motion.g1_arm(side), shell, metal, dark) for side in SIDES}
    for side in SIDES:
        parts += [part for _, part in links[side]] + hand_parts(shell, dark)
    standing = np.stack(fixed)

    def place(joints: Double, carried: Double) -> Double:
        poses = [standing, carried[None]]
        for side in SIDES:
            frames = motion.g1_arm(side).frames(joints[motion.columns(side, ARM_JOINTS)])
            poses.append(frames[[number for number, _ in links[side]]])
            poses.append(frames[-1] @ hand_frames(joints[motion.columns(side, HAND_JOINTS)], side))
        return np.concatenate(poses)

    return parts, place
