"""Camera images of many episodes at the model's size, as a memory-mapped array on disk, with the arm beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from wm_ros.data.sources import Episode, episodes, unweighted
from wm_ros.errors import UserError
from wm_ros.kinematics import arm_for
from wm_ros.nn.preprocessing import resize_area
from wm_ros.types import Frame, Joints

ARM_SIDE = "right"  # the arm that does the task in the recordings that actions are decoded from


class Stacked:
    """Images of several files as if they were one array (N, height, width, 3) uint8; read where they are asked for."""

    def __init__(self, parts: list[NDArray[np.uint8]]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images of `rows` (M,), in their order."""
        out = np.empty((len(rows), *self.parts[0].shape[1:]), np.uint8)
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(owner):
            chosen = owner == number
            out[chosen] = self.parts[number][rows[chosen] - self.starts[number]]
        return out


@dataclass(frozen=True)
class ImageCache:
    """Images of all episodes, one after the other.

    Attributes:
        images: (N, height, width, 3) uint8 in files. episode: (N,) int64 number of the episode. source: (N,) int64.
        stamp_s: (N,) seconds from the start of the episode.
        arm_rad: (N, 7) right arm's joints at the stamp, NaN where the episode has none.
    """

    images: Stacked
    episode: NDArray[np.int64]
    source: NDArray[np.int64]
    stamp_s: NDArray[np.float64]
    arm_rad: NDArray[np.float64]


def build_cache(sources: list[str], height: int, width: int, root: Path) -> ImageCache:
    """Read every frame of each source once; what a source gave is kept and opened the next time.

    Raises:
        UserError: a source holds no camera image.
    """
    parts = [_open(source, height, width, root) for source in sources]
    first_episodes = np.cumsum([0, *(1 + int(part.episode[-1]) for part in parts)])
    return ImageCache(
        Stacked([part for p in parts for part in p.images.parts]),
        np.concatenate([part.episode + first for part, first in zip(parts, first_episodes, strict=False)]),
        np.concatenate([part.source + number for number, part in enumerate(parts)]),
        np.concatenate([part.stamp_s for part in parts]),
        np.concatenate([part.arm_rad for part in parts]),
    )


def _open(source: str, height: int, width: int, root: Path) -> ImageCache:
    key = hashlib.sha256(json.dumps([[unweighted(source)], height, width]).encode()).hexdigest()[:16]
    folder = root / f"images-{key}"
    if not (folder / "done").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write(source, height, width, folder)
    episode, stamp_s, arm_rad = (np.load(folder / f"{name}.npy") for name in ("episode", "stamp_s", "arm_rad"))
    images = np.memmap(folder / "images.u8", np.uint8, "r", shape=(len(episode), height, width, 3))
    return ImageCache(Stacked([images]), episode, np.zeros_like(episode), stamp_s, arm_rad)


def _write(source: str, height: int, width: int, folder: Path) -> None:
    episode_of: list[int] = []
    stamps: list[NDArray[np.float64]] = []
    arms: list[NDArray[np.float64]] = []
    with (folder / "images.u8").open("wb") as file:
        for number, episode in enumerate(track(episodes(source), "images", transient=True)):
            stamp_s, arm_rad = [], Arm()
            for sample, image in _frames(episode, height, width, arm_rad):
                stamp_s.append(sample.stamp_ns * 1e-9)
                file.write(image.tobytes())
            if stamp_s:
                times = np.asarray(stamp_s)
                stamps.append(times - times[0])
                arms.append(arm_rad.at(times))
                episode_of += [number] * len(stamp_s)
    if not episode_of:
        raise UserError(f"no camera image in '{source}'; give recordings with a camera topic")
    np.save(folder / "episode.npy", np.asarray(episode_of, np.int64))
    np.save(folder / "stamp_s.npy", np.concatenate(stamps))
    np.save(folder / "arm_rad.npy", np.concatenate(arms))
    (folder / "done").touch()


def _frames(episode: Episode, height: int, width: int, arm: Arm) -> Iterator[tuple[Frame, NDArray[np.uint8]]]:
    for sample in episode.samples():
        if type(sample) is Joints:
            arm.hear(sample)
        elif isinstance(sample, Frame):
            yield sample, resize_area(sample.rgb, height, width)


class Arm:
    """The joints of one arm as heard over an episode, to be read at other times."""

    def __init__(self, side: str = ARM_SIDE) -> None:
        self.side = side
        self.stamps_s: list[float] = []
        self.positions_rad: list[NDArray[np.float64]] = []

    def hear(self, joints: Joints) -> None:
        """Take a measurement; one without this arm is passed over."""
        arm = arm_for(joints.names, self.side)
        if arm is not None and np.isfinite(joints.position_rad).all():
            order = [joints.names.index(name) for name in arm.joint_names]
            self.stamps_s.append(joints.stamp_ns * 1e-9)
            self.positions_rad.append(joints.position_rad[order])

    def at(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joints at `times_s`, interpolated linearly, (N, 7); NaN where nothing was heard."""
        if not self.stamps_s:
            return np.full((len(times_s), 7), np.nan)
        known, values = np.asarray(self.stamps_s), np.stack(self.positions_rad)
        return np.stack([np.interp(times_s, known, column) for column in values.T], axis=1)
