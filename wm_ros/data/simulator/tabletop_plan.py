"""Draw who stands where on the table and what the hands do, until both arms can do it.

A scene is refused where things would stand in the way, an arm cannot reach its path, has to hurry, or would go
through the table; the next attempt of the same seed is then drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros.data.simulator import tabletop_motion as motion
from wm_ros.data.simulator import tabletop_poses as poses
from wm_ros.data.simulator import tabletop_scene as scenery
from wm_ros.data.simulator.tabletop_shapes import Double, Solid
from wm_ros.errors import UserError
from wm_ros.kinematics import ARM_JOINTS, SIDES

_ATTEMPTS = 200
_REACHED_M = 0.004
_IN_REACH_M = 0.01  # by which the usual grip may miss: another one may not
_JUDGED_TIMES = 64
_FASTEST_RADPS = 3.0
_LOWEST_M = 0.042  # of the wrist above the table: half a hand
_OVER_M = 0.1  # how much higher a hand passes where things stand in its way


@dataclass(frozen=True)
class Scene:
    """Objects and plans. `items[0]` is the one to take; `plans[0]` is that of the hand that takes it."""

    items: tuple[scenery.Item, ...]
    plans: tuple[motion.Plan, motion.Plan]
    table_m: float


def reachable_scene(
    seed: int, times: Double, objects: int, choice: int = 1
) -> tuple[Scene, Double, Double, np.random.Generator]:
    """The first scene of the seed that the arms can do.

    Args:
        choice: how many of the objects the hand could take at least; which of them it takes is drawn.

    Returns:
        the scene, the joint commands and the measured joints (T, 26) at `times` (T,), and the generator for the rest.
    """
    scenes, rng = choices(seed, objects, choice)
    scene = scenes[0] if choice < 2 else scenes[int(rng.integers(len(scenes)))]
    command, _ = motion.commands(scene.plans, times)
    step = float(times[1]) if len(times) > 1 else 1.0
    return scene, command, motion.follow(command, step, rng.uniform(0.05, 0.11)), rng


def choices(seed: int, objects: int, choice: int) -> tuple[list[Scene], np.random.Generator]:
    """The same things on the same table, the hands at the same rest, once for each object that is taken.

    With `choice` 1 the only scene is the one in which the first object is taken; with more there are at least so many,
    all with the same hand.
    """
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, attempt])
        scene = _draw(rng, objects, choice)
        if scene is None or not _fits(scene):
            continue
        scenes = [scene] if choice < 2 else [scene, *_others(rng, scene)]
        if len(scenes) >= choice:
            return scenes, rng
    raise UserError(f"tabletop: no room for {objects} objects with seed {seed}; choose fewer objects or another seed")


def _others(rng: np.random.Generator, scene: Scene) -> list[Scene]:
    """The scene with another object taken, for each that the hand can close around without touching the rest."""
    plan, idle = scene.plans
    rest = plan.start, plan.fingers[0][1]
    found = []
    for number, item in enumerate(scene.items[1:], 1):
        left = scene.items[:number] + scene.items[number + 1 :]
        other = _grasp(rng, plan.side, item.solid, item.pose[:3, 3], rest, _OVER_M)
        changed = Scene((item, *left), (other, idle), scene.table_m)
        if poses.free(poses.at_grasp(other), left) and _idle_clear(changed) and _fits(changed):
            found.append(changed)
    return found


def grip_m(scene: Scene, side: str, item: scenery.Item) -> Double | None:
    """Where the wrist of `side` has to be to close around an item, (3,); None where its arm cannot bring it there.

    For the object that is taken, the hand of the plan has its own way; for others the usual one is taken.
    """
    plan = scene.plans[0]
    if item is scene.items[0] and side == plan.side:
        return plan.strokes[0].end[:3]
    foot = item.pose[:3, 3]
    angles = np.array([_usual_yaw(side, foot), 0.075, 0.125])
    grasp = motion.grip_pose(side, foot + (0.0, 0.0, _grip_height(item.solid)), item.solid.radius_m, angles)
    arm = motion.g1_arm(side)
    turn = motion.turn_of(side, grasp[3:])
    joints = arm.inverse(grasp[:3], turn, motion.REST_POSTURE_RAD[side], turn_weight=0.04)
    miss_m = float(np.linalg.norm(arm.wrist(joints) - grasp[:3]))
    return grasp[:3] if miss_m < _IN_REACH_M else None


def _usual_yaw(side: str, foot: Double) -> float:
    """How far a hand turns inward to close around what stands at `foot` (rad)."""
    return float(np.clip(0.75 + 2.0 * motion.inward(side) * foot[1], 0.1, 1.15))


def _grip_height(solid: Solid) -> float:
    return max(solid.grip_m, 0.055)


def _fits(scene: Scene) -> bool:
    """Whether both arms reach their paths at a sane speed and no hand goes through the table."""
    # Judged on times of its own, so that the choice does not depend on which part of the plan is asked for.
    times = np.linspace(0.0, scene.plans[0].strokes[-1].end_s, _JUDGED_TIMES)
    command, miss = motion.commands(scene.plans, times)
    fastest = np.abs(np.diff(command[:, : 2 * len(ARM_JOINTS)], axis=0)).max() / (times[1] - times[0])
    lowest = min(motion.wrist_path(plan, times)[:, 2].min() for plan in scene.plans) - scene.table_m
    return bool(miss < _REACHED_M and fastest < _FASTEST_RADPS and lowest > _LOWEST_M)


def _draw(rng: np.random.Generator, objects: int, choice: int) -> Scene | None:
    """A scene, or None where the objects found no free places."""
    side = "right" if rng.random() < 0.75 else "left"
    out = -motion.inward(side)  # sign of y on the side of the hand that takes
    table = rng.normal(0.015, 0.008)
    count = int(rng.integers(max(2, choice), 5)) if objects < 0 else objects
    words, target = scenery.draw_item(rng, set())
    spot = np.array([rng.uniform(0.29, 0.41), out * rng.uniform(-0.05, 0.17)])
    plan = _grasp(rng, side, target, np.array([*spot, table]), over_m=_OVER_M if choice > 1 else 0.0)
    other_side = SIDES[1 - SIDES.index(side)]
    rest = poses.draw_rest(rng, other_side, table)
    fingers = tuple((time_s, poses.draw_open(rng, 0.4, 0.9)) for time_s in (0.0, 1.0))
    idle = motion.Plan(other_side, rest, (), fingers)
    items = [scenery.Item(words, target, poses.standing(rng, spot, table))]
    if not _idle_clear(Scene(tuple(items), (plan, idle), float(table))):
        return None
    busy = poses.busy_places((plan, idle), target)
    resting = np.concatenate([poses.at_grasp(plan), *poses.swept((plan, idle), np.zeros(1))])
    for number in range(1, count):
        words, other = scenery.draw_item(rng, {item.words for item in items}, near=items[0].words)
        for _ in range(30):
            room = 0.02 + 1.4 * other.radius_m
            if number < choice:  # where the same hand may reach it, passing over the others
                place = np.array([rng.uniform(0.28, 0.43), out * rng.uniform(-0.08, 0.19)])
                clear = poses.gap(resting, place) > 0.02 + other.radius_m
            else:
                place = np.array([rng.uniform(0.25, 0.62), rng.uniform(-0.3, 0.3)])
                clear = poses.gap(busy, place) > room + 0.02
            gaps = [np.linalg.norm(place - item.pose[:2, 3]) - item.solid.radius_m * 1.4 for item in items]
            if clear and min(gaps) > room:
                items.append(scenery.Item(words, other, poses.standing(rng, place, table)))
                break
        else:
            return None
    return Scene(tuple(items), (plan, idle), float(table))


def _grasp(
    rng: np.random.Generator,
    side: str,
    target: Solid,
    foot: Double,
    rest: tuple[Double, Double] | None = None,
    over_m: float = 0.0,
) -> motion.Plan:
    """Reach, close, lift aside, hold; in every second plan also put it down there, open and go back.

    Args:
        rest: wrist pose and hand joints to begin with; drawn where there are none. over_m: how much higher it passes.
    """
    start = poses.draw_rest(rng, side, foot[2]) if rest is None else rest[0]
    yaw = np.clip(0.75 + 2.0 * motion.inward(side) * foot[1] + rng.normal(0, 0.12), 0.1, 1.15)
    angles = np.array([yaw, rng.uniform(-0.05, 0.2), rng.uniform(-0.05, 0.3)])
    centre = foot + np.array([0.0, 0.0, _grip_height(target) + rng.uniform(-0.004, 0.012)])
    grasp = motion.grip_pose(side, centre, target.radius_m, angles)
    aside = np.array([rng.uniform(-0.05, 0.0), -motion.inward(side) * rng.uniform(0.04, 0.09), 0.0])
    via = grasp + np.concatenate([motion.turn_of(side, angles) @ aside, rng.normal(0, 0.06, 3)])
    via[2] += rng.uniform(0.0, 0.05) + over_m

    wait = rng.uniform(0.1, 0.9)
    reached = wait + rng.uniform(1.1, 2.3)
    closed = reached + rng.uniform(0.3, 0.6)
    lifted = closed + rng.uniform(0.1, 0.3) + rng.uniform(0.7, 1.3)
    up = grasp.copy()
    up[:3] += (rng.uniform(-0.06, 0.02), -motion.inward(side) * rng.uniform(-0.03, 0.06), rng.uniform(0.05, 0.14))
    up[3:] += (rng.uniform(-0.4, 0.1), rng.uniform(-0.05, 0.1), rng.uniform(-0.1, 0.1))
    strokes = [motion.Stroke(wait, reached, grasp, via, rng.uniform(0.5, 0.7)), motion.Stroke(closed, lifted, up)]
    relaxed = poses.draw_open(rng, 0.5, 0.85) if rest is None else rest[1]
    wide, shut = poses.draw_open(rng, 0.85, 1.0), poses.draw_shut(rng, target.radius_m)
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


def _idle_clear(scene: Scene) -> bool:
    """Whether the hand that rests is away from the object that is taken."""
    (item, *_), (plan, idle) = scene.items, scene.plans
    swept = poses.swept((idle,), np.linspace(0.0, plan.strokes[-1].end_s, 30))[0]
    return poses.gap(swept, item.pose[:2, 3]) >= 0.03 + item.solid.radius_m
