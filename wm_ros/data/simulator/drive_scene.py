"""One simulated drive: a place, the ego car's way through it, who else is on the way, and what stands beside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.drive_beside import Dresser
from wm_ros.data.simulator.drive_ego import EgoWay
from wm_ros.data.simulator.drive_ground import Ground
from wm_ros.data.simulator.drive_road import PLACES, STEP_M, Line, Network, Place
from wm_ros.data.simulator.drive_shapes import join
from wm_ros.data.simulator.drive_traffic import END_S
from wm_ros.data.simulator.drive_users import Users


class Scene:
    """Everything drawn from `rng`. `users` that never move are part of `static`, the others are not."""

    def __init__(self, rng: np.random.Generator, speed_mps: float = -1.0) -> None:
        place: Place = PLACES[rng.choice(len(PLACES), p=[p.share for p in PLACES])]
        low, high = place.speed_mps
        given = speed_mps >= 0
        if not given:
            speed_mps = 0.0 if rng.random() < 0.08 else float(min(15.0, rng.uniform(min(low, 3.0), high)))
        self.place, self.speed_mps = place, speed_mps
        travel_m = speed_mps * END_S * 1.15
        self.network = Network(place, travel_m, rng)
        self.ego = EgoWay(self.network, speed_mps, given, rng)
        u = self.ego.u(np.linspace(0, END_S, 60))
        x, y, _ = self.ego.line.at(np.arange(u.min(), u.max() + STEP_M, STEP_M))
        self.ground = Ground(self.network, Line.through(x, y) if len(x) > 2 else Line(x, x, y, x), rng)
        who = Users(self.network, self.ego)
        who.add_vehicles(rng)
        dresser = Dresser(self.ground, rng)
        for street in self.network.streets:
            dresser.street(street)
        who.add_parked(rng, self.ground, dresser.drives)
        who.add_cyclists(rng)
        who.add_walkers(rng)
        self.users = who.all
        still = [user for user in self.users if not user.track.moves]
        parts = [user.body.mesh.moved(self.pose(*user.place(0.0))) for user in still]
        self.static = join([self.ground.mesh(), *self.ground.kerbs(), dresser.made.build(rng), *parts])

    def pose(self, x: float, y: float, heading: float) -> NDArray[np.float64]:
        """(4, 4) pose of a body on the ground: x along its heading, tilted as the ground under its wheels is."""
        c, s = np.cos(heading), np.sin(heading)
        dx, dy = (
            np.array([0, 1.3 * c, -1.3 * c, -0.7 * s, 0.7 * s]),
            np.array([0, 1.3 * s, -1.3 * s, 0.7 * c, -0.7 * c]),
        )
        z = self.ground.height(x + dx, y + dy)
        ahead = np.array([c, s, (z[1] - z[2]) / 2.6])
        ahead /= np.linalg.norm(ahead)
        up = np.cross(ahead, np.array([-s, c, (z[3] - z[4]) / 1.4]))
        up /= np.linalg.norm(up)
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([ahead, np.cross(up, ahead), up], axis=1)
        matrix[:3, 3] = x, y, z.mean()
        return matrix
