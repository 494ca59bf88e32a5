"""Episodes as aligned arrays on a fixed-rate grid, kept in files.

Each episode is put on the grid of `wm_ros.training.grid`. Two caches: one per source (images, joints, hands, text:
slow to render or decode), and one per source and state model (tokens). Both are plain memory-mapped arrays, so a data
set may be larger than memory.

Arrays of one source, N = steps of all its episodes, one after another (`Aligned`):

    frames    (N, height, width, 3) uint8    RGB
    wrist     (N, height, width, 3) uint8    of the camera at the hand, only where the source has one
    tokens    (N, 2, D) float32              state tokens of `frames`, only after `with_tokens`
    joints    (N, J) float32                 measured, rad, in the order of `names`
    commands  (N, J) float32                 commanded, rad; NaN where nothing was commanded yet
    hands     (N, 2, 3) float32              left and right wrist, m, torso frame; NaN where unknown
    bev       (N, T, C) float32              pooled BEV tokens, only where the source has them; NaN where none yet
    text      (N,) int64                     index into `texts`, the instruction in force ("" where none)
    phase     (N,) float32                   0 at the first step of the episode, 1 at the last
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.data.sources import Episode, episodes
from wm_ros.errors import UserError
from wm_ros.kinematics import hands_of
from wm_ros.training.grid import RATE_HZ, SIDES, Step, on_grid
from wm_ros.types import HandTrajectory, Joints

_LAYOUT = 1  # changes when the files of the cache do
_FINGERPRINT_SAMPLES = 1000

FramesToTokens = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(B, H, W, 3) uint8 → (B, 2, D) float32."""


@dataclass(frozen=True)
class Aligned:
    """One source on a grid; the arrays are described at the top of this file.

    Attributes:
        starts: (E + 1,) first step of each episode, and N. episodes: their names. licences: without repeats.
        folder: where the arrays lie.
    """

    names: tuple[str, ...]
    rate_hz: float
    starts: NDArray[np.int64]
    episodes: tuple[str, ...]
    licences: tuple[str, ...]
    texts: tuple[str, ...]
    folder: Path
    arrays: dict[str, NDArray[Any]]

    def __getitem__(self, field: str) -> NDArray[Any]:
        return self.arrays[field]

    def __len__(self) -> int:
        return int(self.starts[-1])


def align(
    source: str,
    names: Sequence[str],
    cache: Path,
    *,
    rate_hz: float = RATE_HZ,
    width: int = 128,
    height: int = 96,
) -> Aligned:
    """Put `source` (as in `wm_ros.data.sources`) on a grid, or open it where that was done before.

    Args:
        names: joints wanted, in this order; an episode may have more.

    Raises:
        UserError: an episode has no image, no joints, or lacks one of `names`.
    """
    listed = episodes(source)
    if not listed:
        raise UserError(f"source '{source}' has no episodes")
    key = [_LAYOUT, source, list(names), rate_hz, width, height, _fingerprint(listed[0])]
    folder = cache / f"aligned-{_sha256(json.dumps(key).encode())[:16]}"
    if not (folder / "meta.json").is_file():
        _write(folder, listed, tuple(names), rate_hz, (width, height))
    return _open(folder)


def with_tokens(aligned: Aligned, tokens_of: FramesToTokens, key: str, batch: int = 64) -> Aligned:
    """Add `tokens` = `tokens_of(frames)`, computed once per `key` (`tokens_sha256` of the state bundle)."""
    path = aligned.folder / f"tokens-{_sha256(key.encode())[:16]}.npy"
    if not path.is_file():
        # Two runs may share a cache: each writes under its own name, the last to finish wins with the same values.
        part = path.with_suffix(f".{os.getpid()}.part")
        target: NDArray[np.float32] | None = None
        for first in range(0, len(aligned), batch):
            tokens = tokens_of(np.asarray(aligned["frames"][first : first + batch]))
            if target is None:
                shape = (len(aligned), *tokens.shape[1:])
                target = np.lib.format.open_memmap(part, "w+", np.float32, shape)
            target[first : first + len(tokens)] = tokens
        del target  # closes and writes the file
        part.rename(path)
    return replace(aligned, arrays={**aligned.arrays, "tokens": np.load(path, mmap_mode="r")})


def _columns(sample: Joints, names: tuple[str, ...], where: str) -> NDArray[np.float32]:
    place = {name: index for index, name in enumerate(sample.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise UserError(f"{where}: no joint '{missing[0]}' among its {len(place)}; train with the joints it has")
    return sample.position_rad[[place[name] for name in names]].astype(np.float32)


def _wrist(step: Step, side: str) -> NDArray[np.float32]:
    """(3,) from the joints where the arm is known, else from the newest trajectory of the hand; else NaN."""
    known = hands_of(step.joints) if step.joints is not None else {}
    if side in known:
        return np.asarray(known[side], np.float32)
    path: HandTrajectory | None = getattr(step, side)
    past = (path.offsets_s <= 0) & path.valid if path is not None else np.zeros(0, bool)
    if path is None or not past.any():
        return np.full(3, np.nan, np.float32)
    return path.position_m[np.flatnonzero(past)[-1]].astype(np.float32)


# ----------------------------------------------------------------------------- the cache


class _Columns:
    """One growing binary file per array. A value that is not known yet is NaN (0 in pictures), once its shape is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._files: dict[str, IO[bytes]] = {}
        self._unknown: dict[str, int] = {}

    def append(self, name: str, value: NDArray[Any] | None, where: str) -> None:
        if value is None and name not in self.layout:
            self._unknown[name] = self._unknown.get(name, 0) + 1
            return
        if value is None:
            dtype, shape = self.layout[name]
            value = np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 0, dtype)
        if name not in self.layout:
            self.layout[name] = (value.dtype.str, value.shape)
            self._files[name] = (self.folder / name).open("wb")
            for _ in range(self._unknown.pop(name, 0)):
                self.append(name, None, where)
        if self.layout[name] != (value.dtype.str, value.shape):
            raise UserError(
                f"{where}: {name} changes its shape from {self.layout[name][1]} to {value.shape}; split them"
            )
        self._files[name].write(np.ascontiguousarray(value).tobytes())

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _row(
    step: Step, names: tuple[str, ...], size: tuple[int, int], texts: list[str], where: str
) -> dict[str, NDArray[Any] | None]:
    if step.frame is None or step.joints is None:
        raise AssertionError("the grid starts when both are known")
    text = step.instruction.text if step.instruction is not None else ""
    if text not in texts:
        texts.append(text)
    unknown = np.full(len(names), np.nan, np.float32)
    return {
        "frames": _resized(step.frame.rgb, size),
        "wrist": None if step.wrist_frame is None else _resized(step.wrist_frame.rgb, size),
        "joints": _columns(step.joints, names, where),
        "commands": unknown if step.command is None else _columns(step.command, names, where),
        "hands": np.stack([_wrist(step, side) for side in SIDES]),
        "bev": None if step.bev is None else step.bev.tokens.astype(np.float32),
        "text": np.asarray(texts.index(text), np.int64),
    }


def _resized(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[Any]:
    return rgb if rgb.shape[1::-1] == size else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _write(folder: Path, listed: list[Episode], names: tuple[str, ...], rate_hz: float, size: tuple[int, int]) -> None:
    part = folder.with_suffix(f".{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    starts, texts = [0], [""]
    with contextlib.closing(_Columns(part)) as columns:
        for episode in listed:
            where = f"episode '{episode.name}'"
            steps = 0
            for step in on_grid(episode.samples(), rate_hz):
                for name, value in _row(step, names, size, texts, where).items():
                    columns.append(name, value, where)
                steps += 1
            if steps < 2:
                raise UserError(f"{where} has no images with joints to learn from; leave it out")
            for phase in np.linspace(0, 1, steps, dtype=np.float32):
                columns.append("phase", phase[...], where)
            starts.append(starts[-1] + steps)
    meta = {
        "names": names,
        "rate_hz": rate_hz,
        "starts": starts,
        "episodes": [episode.name for episode in listed],
        "licences": sorted({episode.licence for episode in listed}),
        "texts": texts,
        "layout": columns.layout,
    }
    (part / "meta.json").write_text(json.dumps(meta))
    if (folder / "meta.json").is_file():  # another run was quicker
        shutil.rmtree(part)
        return
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _open(folder: Path) -> Aligned:
    meta = json.loads((folder / "meta.json").read_text())
    starts = np.asarray(meta["starts"], np.int64)
    return Aligned(
        names=tuple(meta["names"]),
        rate_hz=meta["rate_hz"],
        starts=starts,
        episodes=tuple(meta["episodes"]),
        licences=tuple(meta["licences"]),
        texts=tuple(meta["texts"]),
        folder=folder,
        arrays={
            name: np.memmap(folder / name, dtype, "r", shape=(int(starts[-1]), *shape))
            for name, (dtype, shape) in meta["layout"].items()
        },
    )


def _fingerprint(episode: Episode) -> str:
    """Of the beginning of an episode: a cache of another simulator or another bag of the same name is not used."""
    digest = hashlib.sha256()
    for sample in islice(episode.samples(), _FINGERPRINT_SAMPLES):
        for part in fields(sample):
            value = getattr(sample, part.name)
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()
