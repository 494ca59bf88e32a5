"""Draw who stands where on the table and what the hands do, until both arms can do it.

A scene is refused where things would stand in the way, an arm cannot reach its path, has to hurry, or would go
through the table; the next attempt of the same seed is then drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros.data.simulator import tabletop_motion as motion
from wm_ros.data.simulator import tabletop_scene as scenery
from wm_ros.data.simulator.tabletop_shapes import Double, Solid
from wm_ros.errors import UserError
from wm_ros.kinematics import ARM_JOINTS, SIDES, rotation

_ATTEMPTS = 200
_REACHED_M = 0.004
_IN_REACH_M = 0.01  # by which the usual grip may miss: another one may not
_JUDGED_TIMES = 64
_FASTEST_RADPS = 3.0
_LOWEST_M = 0.042  # of the wrist above the table: half a hand
_OVER_M = 0.1  # how much higher a hand passes where things stand in its way
_ALONG_M = np.array([-0.08, 0.0, 0.07, 0.13, 0.18])  # of wrist, palm and fingertips along the hand


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
        if _free(at_grasp(other), left) and _idle_clear(changed) and _fits(changed):
            found.append(changed)
    return found


def at_grasp(plan: motion.Plan) -> Double:
    """Table positions (5, 2) over which the hand is when it closes: wrist, palm, fingertips."""
    end = plan.strokes[0].end
    return end[:2] + _ALONG_M[:, None] * motion.turn_of(plan.side, end[3:])[:2, 0]


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


def _free(passed: Double, items: tuple[scenery.Item, ...]) -> bool:
    """Whether no item stands where a hand is, `passed` (N, 2)."""
    return all(_gap(passed, item.pose[:2, 3]) > 0.02 + item.solid.radius_m for item in items)


def _gap(passed: Double, spot: Double) -> float:
    return float(np.linalg.norm(passed - spot, axis=-1).min())


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
    idle = motion.Plan(
        _other(side), _rest(rng, _other(side), table), (), ((0.0, _open(rng, 0.4, 0.9)), (1.0, _open(rng, 0.4, 0.9)))
    )
    items = [scenery.Item(words, target, standing(rng, spot, table))]
    if not _idle_clear(Scene(tuple(items), (plan, idle), float(table))):
        return None
    busy = _busy((plan, idle), target)
    resting = np.concatenate([at_grasp(plan), *_swept((plan, idle), np.zeros(1))])
    for number in range(1, count):
        words, other = scenery.draw_item(rng, {item.words for item in items}, near=items[0].words)
        for _ in range(30):
            room = 0.02 + 1.4 * other.radius_m
            if number < choice:  # where the same hand may reach it, passing over the others
                place = np.array([rng.uniform(0.28, 0.43), out * rng.uniform(-0.08, 0.19)])
                clear = _gap(resting, place) > 0.02 + other.radius_m
            else:
                place = np.array([rng.uniform(0.25, 0.62), rng.uniform(-0.3, 0.3)])
                clear = _gap(busy, place) > room + 0.02
            gaps = [np.linalg.norm(place - item.pose[:2, 3]) - item.solid.radius_m * 1.4 for item in items]
            if clear and min(gaps) > room:
                items.append(scenery.Item(words, other, standing(rng, place, table)))
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
    start = _rest(rng, side, foot[2]) if rest is None else rest[0]
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
    relaxed = _open(rng, 0.5, 0.85) if rest is None else rest[1]
    wide, shut = _open(rng, 0.85, 1.0), _shut(rng, target.radius_m)
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


def _busy(plans: tuple[motion.Plan, motion.Plan], target: Solid) -> Double:
    """Table positions (N, 2) over which hands and what is taken pass: nothing else may stand there."""
    swept = _swept(plans, np.linspace(0.0, plans[0].strokes[-1].end_s, 30))
    return np.concatenate([*swept, motion.held_path(plans[0], target.radius_m, 12)[:, :2]])


def _idle_clear(scene: Scene) -> bool:
    """Whether the hand that rests is away from the object that is taken."""
    (item, *_), (plan, idle) = scene.items, scene.plans
    swept = _swept((idle,), np.linspace(0.0, plan.strokes[-1].end_s, 30))[0]
    return _gap(swept, item.pose[:2, 3]) >= 0.03 + item.solid.radius_m


def _swept(plans: tuple[motion.Plan, ...], times: Double) -> list[Double]:
    """Table positions (N, 2) over which each hand passes: wrist, palm, fingertips."""
    passed = []
    for plan in plans:
        path = motion.wrist_path(plan, times)
        ahead = motion.turn_of(plan.side, path[:, 3:])[..., 0]
        passed.append(np.concatenate([path[:, :2] + reach * ahead[:, :2] for reach in _ALONG_M]))
    return passed


def standing(rng: np.random.Generator, spot: Double, table_m: float) -> Double:
    """Pose (4, 4) of a thing on the table at `spot` (2,), turned at random."""
    pose = np.eye(4)
    pose[:3, :3] = rotation("z", rng.uniform(-np.pi, np.pi))
    pose[:3, 3] = (*spot, table_m)
    return pose


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]
