"""The spinning LiDAR of a simulated drive: where its rays go, and what it makes of what they hit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.drive_shapes import MATERIALS

Float = NDArray[np.float32]
STEP_M = 1 / 256
MIXED_WITHIN_M = 2.0
_GRASS = MATERIALS.index("grass")


class Sensor:
    """A spinning LiDAR. Four of five have the rings of an HDL-64E: two blocks of 32 lasers, the upper one finer, whose
    light starts 0.21 and 0.11 m above the origin of the sensor's frame; the others are evenly spread. Thinned or
    stretched to `beams`.

    Attributes:
        rays: (R, 3) unit vectors in the sensor frame, ring by ring from the top. start_z: (R,) where they begin.
        height_m: above the road. tilt: roll and pitch of the mounting, rad. near_m: below it nothing is reported.
    """

    def __init__(self, beams: int, azimuths: int, rng: np.random.Generator) -> None:
        self.shape = (beams, azimuths)
        row = np.linspace(0, 63, beams)
        start = np.where(row < 31.5, 0.215 - 0.0008 * row, 0.115)
        rings = np.concatenate([1.95 - np.arange(32) / 3, -8.72 - 0.49 * np.arange(32)])
        if rng.random() < 0.2:
            rings, start = np.linspace(rng.uniform(2, 15), rng.uniform(-25, -16), 64), np.full(beams, 0.05)
        elevation = np.deg2rad(np.interp(row, np.arange(64), rings + rng.normal(0, 0.03, 64)))
        phase = np.arange(azimuths) + rng.uniform(-0.5, 0.5, (beams, 1))
        azimuth = -2 * np.pi * phase / azimuths
        e = np.broadcast_to(elevation[:, None], azimuth.shape)
        rays = np.stack([np.cos(e) * np.cos(azimuth), np.cos(e) * np.sin(azimuth), np.sin(e)], -1)
        self.rays = np.ascontiguousarray(rays.reshape(-1, 3), np.float32)
        self.start_z = np.repeat(start, azimuths).astype(np.float32)
        self.height_m = 1.73 + float(np.clip(rng.normal(0, 0.04), -0.1, 0.1))
        self.tilt = np.deg2rad(np.clip(rng.normal(0, 0.25, 2), -1, 1))
        self.noise_m = float(rng.uniform(0.008, 0.025))
        # Lasers differ: some miss more than others.
        self.loss = np.repeat(rng.uniform(0.01, 0.05) + rng.exponential(0.02, beams), azimuths).astype(np.float32)
        self.dim = float(rng.uniform(0.005, 0.02))
        self.reach_m = float(rng.uniform(78, 120))
        self.mixing = float(rng.uniform(0.02, 0.15))
        self.grass_m = float(rng.exponential(0.03))
        self.near_m = 2.0
        self.blocked = self._roof(rng) | self._sectors(azimuth.ravel(), rng)

    def _roof(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Rays that end on the roof of the ego car."""
        front, back, side = rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.9), rng.uniform(0.3, 0.6)
        with np.errstate(divide="ignore"):
            share = (self.start_z + rng.uniform(0.2, 0.32)) / np.maximum(-self.rays[:, 2], 1e-6)
        x, y = self.rays[:, 0] * share, self.rays[:, 1] * share
        return np.asarray((x < front) & (x > -back) & (np.abs(y) < side))

    @staticmethod
    def _sectors(azimuth: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
        """In some drives something on the car hides a few degrees."""
        hidden = np.zeros(len(azimuth), bool)
        for _ in range(rng.poisson(0.25)):
            middle, half = rng.uniform(-2 * np.pi, 0), np.deg2rad(rng.uniform(1, 6))
            hidden |= np.abs(azimuth - middle) < half
        return hidden

    def measure(
        self, range_m: Float, cosine: Float, reflectivity: Float, rng: np.random.Generator, material: NDArray[np.int64]
    ) -> Float:
        """True hits → the (N, 4) points of a sweep. Inputs: one value for each ray, infinite range where none hit."""
        draws = rng.random((4, len(range_m)), dtype=np.float32)
        noise = rng.standard_normal(len(range_m), dtype=np.float32)
        # Between blades: a ray gets a little way into grass, or ends before the soil.
        grass = material == _GRASS
        short = np.where(grass, self.grass_m * draws[3] / np.maximum(cosine, 0.03), 0).astype(np.float32)
        true_m = range_m - np.minimum(short, np.float32(1.5))
        # A beam is wider than a point: at an edge it may return from between the near and the far surface.
        grid = true_m.reshape(self.shape)
        step = np.roll(grid, -1, 1) - np.where(np.isfinite(grid), grid, 0)
        edge = (np.abs(step) > 0.3) & (np.abs(step) < MIXED_WITHIN_M) & (draws[2] < self.mixing).reshape(self.shape)
        mixed = np.where(edge, np.where(np.isfinite(step), step, 0) * draws[3].reshape(self.shape), 0)
        true_m = true_m + mixed.ravel()
        # Returned power falls with the square of the range; below a threshold that varies the ray is lost.
        near = np.maximum(np.where(np.isfinite(true_m), true_m, 1e3), 5.0)
        power = reflectivity * cosine * (50.0 / near) ** 2
        seen = (true_m > self.near_m) & (true_m < self.reach_m) & ~self.blocked
        seen &= (draws[0] > self.loss) & (power > self.dim * (0.3 + 3 * draws[1]))
        rays = self.rays[seen]
        points = rays * (true_m[seen] + self.noise_m * noise[seen])[:, None]
        points[:, 2] += self.start_z[seen]
        intensity = np.clip(reflectivity * (0.25 + 0.75 * cosine), 0, 1)[seen]
        points = np.round(points / np.float32(STEP_M)) * np.float32(STEP_M)
        return np.concatenate([points, np.round(intensity, 2)[:, None]], 1).astype(np.float32)
