"""A house of a simulated drive."""

from __future__ import annotations

import numpy as np

from wm_ros.data.simulator.drive_shapes import Builder, Vec3


def add_house(
    made: Builder, rng: np.random.Generator, at: Vec3, heading: float, front: float, depth: float, side: float
) -> None:
    """A block with pillars between its windows, doors set back, and balconies.

    Args:
        at: middle of its foot, metres. heading: of the street, rad. front, depth: along the street and away from it.
        side: of the street on which it stands, 1.0 for the left and -1.0 for the right; it faces the street.
    """
    height, material = float(rng.uniform(3.0, 14)), str(rng.choice(("concrete", "brick")))
    made.box((front, depth, height), material, at, heading)
    c, s = np.cos(heading), np.sin(heading)

    def on_front(along: float, out: float, up: float) -> list[float]:
        y = -side * (depth / 2 + out)
        return [at[0] + c * along - s * y, at[1] + s * along + c * y, at[2] + up]

    step, relief = float(rng.uniform(2.2, 4.0)), float(rng.uniform(0.12, 0.5))
    for along in np.arange(-front / 2 + 0.6, front / 2 - 0.5, step):
        pillar = step * rng.uniform(0.35, 0.6)
        made.box((pillar, relief, height), material, on_front(along, relief / 2, 0.0), heading)
        draw = rng.random()
        if draw < 0.4:
            window = on_front(along + step / 2, 0.03, 1.4)
            made.box((step * 0.35, 0.06, 1.3), "glass", window, heading)
        elif draw < 0.5:
            made.box((1.4, rng.uniform(0.6, 1.5), 0.35), "concrete", on_front(along, 0.8, 0.5), heading)
        elif draw < 0.6:
            made.box((step * 0.8, 1.2, 1.0), "concrete", on_front(along, 0.6, 3.2), heading)
