"""Where hands rest, how far they open, and over which places of the table they pass."""

from __future__ import annotations

import numpy as np

from wm_ros.data.simulator import tabletop_motion as motion
from wm_ros.data.simulator import tabletop_scene as scenery
from wm_ros.data.simulator.tabletop_shapes import Double, Solid
from wm_ros.kinematics import rotation

ALONG_M = np.array([-0.08, 0.0, 0.07, 0.13, 0.18])  # of wrist, palm and fingertips along the hand


def at_grasp(plan: motion.Plan) -> Double:
    """Table positions (5, 2) over which the hand is when it closes: wrist, palm, fingertips."""
    end = plan.strokes[0].end
    return end[:2] + ALONG_M[:, None] * motion.turn_of(plan.side, end[3:])[:2, 0]


def free(passed: Double, items: tuple[scenery.Item, ...]) -> bool:
    """Whether no item stands where a hand is, `passed` (N, 2)."""
    return all(gap(passed, item.pose[:2, 3]) > 0.02 + item.solid.radius_m for item in items)


def gap(passed: Double, spot: Double) -> float:
    """Distance (m) of a spot (2,) to the nearest of the places passed (N, 2)."""
    return float(np.linalg.norm(passed - spot, axis=-1).min())


def busy_places(plans: tuple[motion.Plan, motion.Plan], target: Solid) -> Double:
    """Table positions (N, 2) over which hands and what is taken pass: nothing else may stand there."""
    hands = swept(plans, np.linspace(0.0, plans[0].strokes[-1].end_s, 30))
    return np.concatenate([*hands, motion.held_path(plans[0], target.radius_m, 12)[:, :2]])


def swept(plans: tuple[motion.Plan, ...], times: Double) -> list[Double]:
    """Table positions (N, 2) over which each hand passes: wrist, palm, fingertips."""
    passed = []
    for plan in plans:
        path = motion.wrist_path(plan, times)
        ahead = motion.turn_of(plan.side, path[:, 3:])[..., 0]
        passed.append(np.concatenate([path[:, :2] + reach * ahead[:, :2] for reach in ALONG_M]))
    return passed


def standing(rng: np.random.Generator, spot: Double, table_m: float) -> Double:
    """Pose (4, 4) of a thing on the table at `spot` (2,), turned at random."""
    pose = np.eye(4)
    pose[:3, :3] = rotation("z", rng.uniform(-np.pi, np.pi))
    pose[:3, 3] = (*spot, table_m)
    return pose


def draw_rest(rng: np.random.Generator, side: str, table_m: float) -> Double:
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


def draw_open(rng: np.random.Generator, low: float, high: float) -> Double:
    """Hand joints around one opening between `low` and `high`, the thumb turned at random."""
    fingers = np.clip(rng.uniform(low, high) + rng.normal(0, 0.05, 6), 0.0, 1.0)
    fingers[5] = rng.uniform(0.1, 0.8)
    return fingers


def draw_shut(rng: np.random.Generator, radius_m: float) -> Double:
    """Hand joints around a thing of `radius_m`: the thinner, the more the fingers close."""
    grip = 0.6 + 9.0 * (radius_m - 0.035)
    return np.clip(np.array([grip, grip, grip, grip, 0.7, 0.2]) + rng.normal(0, 0.02, 6), 0.0, 1.0)
