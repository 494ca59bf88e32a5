"""What `future` is trained on: windows of body, states and instruction, with the body and the latents that followed.

Arrays of all episodes are held in memory (latents in half precision: 6 kB per image). Windows are those that the
capability would cut from the same episodes: before its start an episode is at rest, and the previous state is the
first one until there is an older. Encoding images is most of the preparation, so with a `stride` only every stride-th
step of an episode is encoded and has a window; the stride divides the steps between frames and between states.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wm_ros.future.config import FutureConfig
from wm_ros.future.history import Batch
from wm_ros.future.memory import MAX_STATE_GAP_S
from wm_ros.nn.instruction import Words, open_words
from wm_ros.nn.language import batch_ids
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.training.aligned import Aligned, FramesToTokens, align, with_tokens
from wm_ros.training.altered import altered

Item = dict[str, Tensor]
PACED = 0.4


@dataclass(frozen=True)
class Recordings:
    """All episodes one after another; N steps.

    Attributes:
        body: (N, V) float32. states: (N, T, D) float32. latents: (N, C, h, w) float16.
        text: (N,) index into `words` (M, …). first, last: (N,) bounds of the episode of each step.
        frames: for each source its (n, H, W, 3) uint8 images, on disk; `place`: (N, 3) source, row and copy (0 for the
            images as they are, else the number of an `altered` copy).
        stride: states and latents are there at every stride-th step of an episode, zero elsewhere.
        asked: (N, J) commanded minus measured joints, NaN where nothing was commanded.
        training, validation: numbers of the first steps of the episodes of each side.
    """

    body: Tensor
    states: Tensor
    latents: Tensor
    text: Tensor
    words: Tensor
    first: Tensor
    last: Tensor
    frames: list[NDArray[np.uint8]]
    place: Tensor
    stride: int
    asked: Tensor
    training: list[int]
    validation: list[int]

    def of_source(self, starts: Sequence[int], source: int) -> list[int]:
        """Those of the episodes that start at `starts` which come from a source."""
        return [start for start in starts if int(self.place[start, 0]) == source]

    def episodes(self, starts: Sequence[int]) -> list[Tensor]:
        """Bodies (L, V) of the episodes that start there."""
        return [self.body[start : int(self.last[start]) + 1] for start in starts]


def encoded(source: Aligned, stride: int, encode: FramesToTokens, key: str, copy: int = 0) -> NDArray[np.float32]:
    """`encode` of every stride-th image of each episode of `source`, (N, …); zero in between. Cached by `key`.

    Args:
        copy: 0 for the images as they are; other numbers are the seeds of `altered` copies.
    """
    if stride == 1 and not copy:
        return np.asarray(with_tokens(source, encode, key)["tokens"])
    spans = list(zip(source.starts[:-1], source.starts[1:], strict=True))
    rows = np.concatenate([np.arange(start, end, stride) for start, end in spans])
    name = hashlib.sha256(f"{key} {copy}".encode() if copy else key.encode()).hexdigest()[:16]
    path = source.folder / f"every-{stride}-{name}.npy"
    if not path.is_file():
        parts = []
        for start, end in spans:
            images = np.asarray(source["frames"][start:end:stride])
            images = altered(images, episode_seed(copy, int(start))) if copy else images
            parts += [encode(images[at : at + 64]) for at in range(0, len(images), 64)]
        part = path.with_suffix(f".{os.getpid()}.npy")
        np.save(part, np.concatenate(parts))
        part.rename(path)
    some = np.load(path)
    every = np.zeros((len(source), *some.shape[1:]), np.float32)
    every[rows] = some
    return every


def episode_seed(copy: int, start: int) -> int:
    """Seed of one episode of a copy."""
    return copy * 1_000_003 + start


def gather(
    sources: Sequence[Aligned],
    states: Sequence[Sequence[NDArray[np.float32]]],
    latents: Sequence[Sequence[NDArray[np.float32]]],
    split: Sequence[tuple[list[int], list[int]]],
    stride: int = 1,
    words: Words = batch_ids,
) -> Recordings:
    """Join sources.

    Args:
        states, latents: of each source and each of its copies, as `encoded` gives them.
        split: for each source, the numbers of its episodes for training and for validation; copies are for training.
    """
    texts = sorted({text for source in sources for text in source.texts})
    first, last, text, place, bodies, asked = [], [], [], [], [], []
    sides: tuple[list[int], list[int]] = ([], [])
    offset = 0
    for number, source in enumerate(sources):
        hands = np.asarray(source["hands"]).reshape(len(source), 6)
        for copy in range(len(states[number])):
            for episode, (start, end) in enumerate(zip(source.starts[:-1], source.starts[1:], strict=True)):
                first.append(np.full(end - start, offset + start))
                last.append(np.full(end - start, offset + end - 1))
                for side, chosen in zip(sides[: 1 if copy else 2], split[number], strict=False):
                    if episode in chosen:
                        side.append(int(offset + start))
            text.append(np.array([texts.index(t) for t in source.texts])[np.asarray(source["text"])])
            rows = np.arange(len(source))
            place.append(np.stack([np.full(len(rows), number), rows, np.full(len(rows), copy)], 1))
            bodies.append(np.concatenate([hands, np.asarray(source["joints"])], 1))
            asked.append(np.asarray(source["commands"]) - np.asarray(source["joints"]))
            offset += len(source)
    return Recordings(
        body=torch.from_numpy(np.concatenate(bodies).astype(np.float32)),
        states=torch.from_numpy(np.concatenate([each for copies in states for each in copies])),
        latents=torch.cat([torch.from_numpy(each.astype(np.float16)) for copies in latents for each in copies]),
        text=torch.from_numpy(np.concatenate(text)),
        words=words(texts),
        first=torch.from_numpy(np.concatenate(first)),
        last=torch.from_numpy(np.concatenate(last)),
        frames=[source["frames"] for source in sources],
        place=torch.from_numpy(np.concatenate(place)),
        stride=stride,
        asked=torch.from_numpy(np.concatenate(asked).astype(np.float32)),
        training=sides[0],
        validation=sides[1],
    )


def recordings(
    sources: Sequence[str],
    config: FutureConfig,
    stride: int,
    cache: Path,
    encoders: tuple[FramesToTokens, FramesToTokens],
    key: str,
    split: Callable[[int], tuple[list[int], list[int]]],
    copies: Sequence[int] | None = None,
) -> Recordings:
    """Read sources, or their cache.

    Args:
        encoders: images → states, and → latents, cached by `key`.
        split: the number of a source's episodes → those for training and those for validation.
        copies: `altered` copies of each source, none where None.
    """
    size = {"width": config.image_width, "height": config.image_height}
    aligned = [align(source, config.joint_names, cache, rate_hz=config.rate_hz, **size) for source in sources]
    versions = [(each, range(1 + count)) for each, count in zip(aligned, copies or [0] * len(sources), strict=True)]
    states = [[encoded(each, stride, encoders[0], key, copy) for copy in those] for each, those in versions]
    latents = [
        [encoded(each, stride, encoders[1], key + " latents", copy) for copy in those] for each, those in versions
    ]
    splits = [split(len(each.episodes)) for each in aligned]
    return gather(aligned, states, latents, splits, stride, open_words(config.language))


class FutureWindows(Dataset[Item]):
    """Items: body (H, V), states (2, T, D), words, known (6,), asked (H, J); future (F, V), there (F,) bool: in the
    episode; latent (C, h, w) of now, latents (K, C, h, w) of the frames to come, `painted`: they are there; elapsed_s;
    source: its number; where (2,) NaN and subtask -1: nobody says where in the image the named object is, nor what is
    being done. With `images`, or for a model that looks: image (3, H, W) of now; with `images` also images (K, 3, H, W)
    to come; in 0..1.

    Args:
        starts: first steps of the episodes to use. skip: windows with fewer true future steps are left out.
        limit: at most so many windows, drawn evenly at random (None: all, in order).
        shares: of each source in what training draws (None: as many as there are), kept as `weights` of the windows.
        paces: in a share of `PACED` what follows is seen so many times as fast, backwards where negative (`pace`).
    """

    def __init__(
        self,
        config: FutureConfig,
        recordings: Recordings,
        starts: Sequence[int],
        *,
        skip: int = 5,
        limit: int | None = None,
        seed: int = 0,
        images: bool = False,
        shares: Sequence[float] | None = None,
        paces: Sequence[int] = (),
    ) -> None:
        self.config, self.data, self.images, self.paces = config, recordings, images, paces
        spans = [np.arange(start, int(recordings.last[start]) + 1 - skip, recordings.stride) for start in starts]
        self.index = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        if limit is not None and limit < len(self.index):
            self.index = np.random.default_rng(seed).permutation(self.index)[:limit]
        if shares is not None:
            source = recordings.place[self.index, 0].numpy()
            self.weights = (np.asarray(shares) / np.bincount(source, minlength=len(shares)))[source]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> Item:
        config, data, now = self.config, self.data, int(self.index[item])
        first, last = int(data.first[now]), int(data.last[now])
        past = torch.arange(now - config.history_steps + 1, now + 1).clamp(min=first)
        pace = self._pace()
        ahead = now + pace * torch.arange(1, config.horizon_steps + 1)
        there = (ahead >= first) & (ahead <= last)
        due = torch.tensor([now + pace * step for step in config.frame_steps]).clamp(first, last)
        previous = max(now - config.state_gap_steps, first)
        late_s = (config.state_gap_steps - (now - previous)) / config.rate_hz  # as in the capability's memory
        body, asked = data.body[past], data.asked[past]
        row = {
            "body": torch.nan_to_num(body),
            "states": data.states[[previous, now]],
            "words": data.words[data.text[now]],
            "known": self._known(body, now > first and late_s < MAX_STATE_GAP_S, asked),
            "asked": torch.nan_to_num(asked),
            "future": torch.nan_to_num(data.body[ahead.clamp(first, last)]),
            "there": there,
            "pace": torch.tensor(pace),
            "latent": data.latents[now].float(),
            "latents": data.latents[due].float(),
            "source": data.place[now, 0],
            "elapsed_s": torch.tensor((now - first) / config.rate_hz),
            "where": torch.full((2,), torch.nan),
            "painted": torch.tensor(True),
            "subtask": torch.tensor(-1),
        }
        if self.images or config.trajectory.image != "none":
            row["image"] = self._image(now)
        if self.images:
            row["images"] = torch.stack([self._image(step) for step in due.tolist()])
        return row

    def _pace(self) -> int:
        if not self.paces or float(torch.rand(())) >= PACED:
            return 1
        return self.paces[int(torch.randint(len(self.paces), ()))]

    def _known(self, body: Tensor, previous: bool, asked: Tensor) -> Tensor:
        there = torch.isfinite(body).all(0)
        commanded = torch.isfinite(asked).all() & there[6:].all()
        parts = [there[6:].all(), there[:3].all(), there[3:6].all(), torch.tensor(previous), commanded]
        return torch.stack([*parts, torch.tensor(self.config.trajectory.image != "none")])

    def _image(self, step: int) -> Tensor:
        source, row, copy = self.data.place[step].tolist()
        image = np.asarray(self.data.frames[source][row])
        if copy:
            start = row - (step - int(self.data.first[step]))
            image = altered(image[None], episode_seed(copy, start))[0]
        return to_tensor(image)


def batch_of(item: Item) -> Batch:
    """The model's input of collated items."""
    return Batch(item["body"], item["states"], item["words"], item["known"], item["asked"], item.get("image"))


def cut(item: Item, count: int) -> Item:
    """The first `count` examples."""
    return {name: value[:count] for name, value in item.items()}
