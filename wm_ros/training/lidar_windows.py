"""Training examples of `lidar`: which sweeps belong together, and how a batch of them becomes tensors.

An example is only a number and a seed; a batch is assembled in the loss, where it is known which stage of training it
is for. Augmentation (flip of y, rotation, scaling; as AD-L-JEPA, without the pasting of objects) is one linear map
A of the sensor frame: points become A p, relative motions A T A⁻¹, and directions of the visibility test turn with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wm_ros.lidar import baselines, grid
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.encoder import to_sparse
from wm_ros.lidar.grid import Double, Scan
from wm_ros.lidar.occupancy import rasters
from wm_ros.lidar.sparse import Sparse
from wm_ros.lidar.voxels import voxelise
from wm_ros.training.lidar_cache import Sweeps

TOLERANCE_S = 0.05


@dataclass(frozen=True)
class Augmentation:
    """A map of the sensor frame: mirrored or not, turned by whole azimuth bins, scaled."""

    flip: bool = False
    bins: int = 0
    scale: float = 1.0
    azimuth_bins: int = 900

    @classmethod
    def draw(cls, seed: int, azimuth_bins: int) -> Augmentation:
        """±45°, 0.95–1.05, mirrored in half of the cases; a negative seed changes nothing."""
        if seed < 0:
            return cls(azimuth_bins=azimuth_bins)
        rng = np.random.default_rng(seed)
        eighth = azimuth_bins // 8
        return cls(
            bool(rng.random() < 0.5),
            int(rng.integers(-eighth, eighth + 1)),
            float(rng.uniform(0.95, 1.05)),
            azimuth_bins,
        )

    @property
    def matrix(self) -> Double:
        """(4, 4): A = scale · turn · flip."""
        angle = 2 * np.pi * self.bins / self.azimuth_bins
        c, s = np.cos(angle), np.sin(angle)
        a = np.eye(4)
        a[:2, :2] = np.array([[c, -s], [s, c]]) @ np.diag([1.0, -1.0 if self.flip else 1.0])
        a[:3, :3] *= self.scale
        return a

    def points(self, xyz: NDArray[np.float32]) -> NDArray[np.float32]:
        """Any number of columns; the first three are x, y, z."""
        out = xyz.copy()
        out[:, :3] = grid.moved(xyz[:, :3], self.matrix)
        return out

    def motion(self, transform: Double) -> Double:
        return np.asarray(self.matrix @ transform @ np.linalg.inv(self.matrix))

    def scan(self, scan: Scan) -> Scan:
        reach = scan.reach_m[::-1] if self.flip else scan.reach_m
        return Scan(self.points(scan.band), np.roll(reach, self.bins) * np.float32(self.scale))


class SweepWindows(Dataset[dict[str, int]]):
    """Examples: a sweep, up to `history` before it, and those at the horizons after it, all of one episode.

    Args:
        chosen: episodes by number within each source. weights: how often each source is drawn; None: by its size.

    Attributes:
        weights: of each example, None where all are drawn alike.
    """

    def __init__(
        self,
        sources: list[Sweeps],
        chosen: list[set[int]],
        config: LidarConfig,
        augment: bool,
        stride: int = 1,
        weights: list[float] | None = None,
    ) -> None:
        self.sources, self.config, self.augment = sources, config, augment
        needed_ns = 1.0e9 - TOLERANCE_S * 1e9  # at least the horizon by which forecasts are judged
        self.rows: list[tuple[int, int]] = []
        for number, (sweeps, wanted) in enumerate(zip(sources, chosen, strict=True)):
            episode, stamps = sweeps.table["episode"], sweeps.table["stamps"]
            last = {int(e): int(stamps[episode == e].max()) for e in np.unique(episode)}
            self.rows += [
                (number, row)
                for row in range(0, len(sweeps), stride)
                if int(episode[row]) in wanted and last[int(episode[row])] - stamps[row] >= needed_ns
            ]

        counts = np.bincount([number for number, _ in self.rows], minlength=len(sources)).clip(1)
        self.weights = None if weights is None else [weights[number] / float(counts[number]) for number, _ in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, int]:
        seed = int(torch.randint(0, 2**31 - 1, ())) if self.augment else -1
        return {"row": index, "seed": seed}

    def sweeps(self, batch: dict[str, Tensor]) -> Sparse:
        """The newest sweep of each example, voxelised."""
        voxels = []
        for row, seed in zip(batch["row"].tolist(), batch["seed"].tolist(), strict=True):
            source, number = self.rows[row]
            change = Augmentation.draw(seed, self.config.occupancy.azimuth_bins)
            voxels.append(voxelise(change.points(self.sources[source].cloud(number)), self.config.voxels))
        return to_sparse(voxels, self.config.voxels)

    def clip(self, batch: dict[str, Tensor], objective: Any) -> list[Any]:
        """What `objective.forward` takes besides the encoder: the newest sweeps, earlier ones, and their motions."""
        if not objective.past:
            return [self.sweeps(batch)]
        now, past, motions = [], [[] for _ in objective.past], []  # type: ignore[var-annotated]
        for index, seed in zip(batch["row"].tolist(), batch["seed"].tolist(), strict=True):
            source, row = self.rows[index]
            sweeps, change = self.sources[source], Augmentation.draw(seed, self.config.occupancy.azimuth_bins)
            now.append(voxelise(change.points(sweeps.cloud(row)), self.config.voxels))
            first = int(np.flatnonzero(sweeps.table["episode"] == sweeps.table["episode"][row])[0])
            moves = []
            for slot, back in enumerate(objective.past):
                other = max(row - back, first)
                here_from_there = change.motion(np.linalg.inv(sweeps.pose(row)) @ sweeps.pose(other))
                points = change.points(sweeps.cloud(other))
                if objective.compensated:
                    points[:, :3] = grid.moved(points[:, :3], here_from_there)
                past[slot].append(voxelise(points, self.config.voxels))
                moves.append(np.linalg.inv(here_from_there))
            motions.append(np.stack(moves))
        out: list[Any] = [to_sparse(now, self.config.voxels), [to_sparse(p, self.config.voxels) for p in past]]
        return out if objective.compensated else [*out, torch.from_numpy(np.stack(motions))]

    def forecast(self, batch: dict[str, Tensor]) -> dict[str, Tensor | Sparse]:
        """Everything the head and its loss need; see `ForecastHead.forward`. `scored` is 0 where there is no truth."""
        parts = [
            self.example(row, seed) for row, seed in zip(batch["row"].tolist(), batch["seed"].tolist(), strict=True)
        ]
        keys = ("features", "rasters", "past_from_here", "truth", "scored")
        out: dict[str, Tensor | Sparse] = {
            key: torch.from_numpy(np.stack([part[key] for part in parts])).float() for key in keys
        }
        out["now"] = to_sparse([part["voxels"] for part in parts], self.config.voxels)
        out["past"] = to_sparse([part["past_voxels"] for part in parts], self.config.voxels)
        return out

    def example(self, index: int, seed: int) -> dict[str, Any]:
        """Arrays of one example by name; a negative seed for no augmentation."""
        number, row = self.rows[index]
        sweeps, occupancy = self.sources[number], self.config.occupancy
        table, change = sweeps.table, Augmentation.draw(seed, occupancy.azimuth_bins)
        # Now and then a short history, as after a start.
        history = 1 + (seed // 7) % occupancy.history if seed >= 0 and seed % 8 == 0 else occupancy.history
        same = table["episode"] == table["episode"][row]
        first = int(np.flatnonzero(same)[0])
        here_from_odom = np.linalg.inv(sweeps.pose(row))

        def to_here(other: int) -> Double:
            return change.motion(here_from_odom @ sweeps.pose(other))

        back = [row - k for k in range(history) if row - k >= first]
        moves = [to_here(r) for r in back]

        def past_of(which: list[int]) -> baselines.Past | None:
            scans = [change.scan(sweeps.scan(back[k])) for k in which]
            return baselines.Past.of(scans, [moves[k] for k in which], occupancy) if which else None

        past = past_of(list(range(min(len(back), occupancy.sweeps))))
        assert past is not None
        older = past_of([k for k in occupancy.older if k < len(back)])
        embedded = min(occupancy.past_embedding, len(back) - 1)
        truth, scored, hold = self._truth(sweeps, row, same, to_here, change)
        return {
            "features": baselines.features(past, self.config.sensor_height_m - occupancy.band_m[0], occupancy),
            "rasters": rasters(past, older, occupancy),
            "past_from_here": np.linalg.inv(moves[embedded]),
            "truth": truth,
            "scored": scored,
            "voxels": voxelise(change.points(sweeps.cloud(row)), self.config.voxels),
            "past_voxels": voxelise(change.points(sweeps.cloud(back[embedded])), self.config.voxels),
            "past": past,
            "hold": hold,
        }

    def _truth(
        self,
        sweeps: Sweeps,
        row: int,
        same: NDArray[np.bool_],
        to_here: Callable[[int], Double],
        change: Augmentation,
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """What was there at each horizon, where that is known, and what the newest sweep would say if the world moved
        with the sensor (`hold`); all (K, cells, cells)."""
        occupancy, stamps = self.config.occupancy, sweeps.table["stamps"]
        shape = (len(occupancy.horizons_s), occupancy.cells, occupancy.cells)
        truth, scored, hold = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
        candidates = np.flatnonzero(same)
        for k, horizon in enumerate(occupancy.horizons_s):
            due = stamps[row] + round(horizon * 1e9)
            other = int(candidates[np.argmin(np.abs(stamps[candidates] - due))])
            if abs(int(stamps[other]) - due) <= TOLERANCE_S * 1e9:
                move = to_here(other)
                truth[k], scored[k] = grid.truth(change.scan(sweeps.scan(other)), move, occupancy)
                hold[k] = grid.raster(grid.moved(change.scan(sweeps.scan(row)).band, move), occupancy)
        return truth, scored, hold
