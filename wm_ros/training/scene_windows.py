"""Moments of many simulated scenes: what grounds an instruction needs many scenes and few moments of each.

A whole episode costs ninety images of one scene; here a scene costs eight. For every object that the hand could take
there is a window before the reach, all with the same image: only the instruction tells them apart. One window is a
third of a second later, so that it has a previous state, and three lie anywhere later in the plan. Objects that the
hand cannot take have a window too, which says where they are in the image and nothing of what follows.

Items are those of `FutureWindows`, with `where` (2,): the named object in the image, across and down as shares of it,
NaN where it is out of sight or in the hand; `subtask`, the number of the phrase for what is being done; and with no
frames to come (`painted` False).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from wm_ros.bundle import StrictModel
from wm_ros.data.simulator.tabletop import Stage, stages
from wm_ros.data.simulator.tabletop_motion import SUBTASKS, subtask
from wm_ros.data.simulator.tabletop_scene import Item as Thing
from wm_ros.data.simulator.tabletop_scene import instruction
from wm_ros.data.sources import number_range
from wm_ros.future.config import FutureConfig
from wm_ros.future.history import body_of
from wm_ros.kinematics import G1_JOINTS
from wm_ros.nn.instruction import open_words
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.training.aligned import FramesToTokens
from wm_ros.training.future_windows import FutureWindows, Item

_LAYOUT = 3  # changes when the arrays do
ANYWHERE = 3  # windows of each scene that lie anywhere in the plan
NAMES = ("body", "future", "there", "where", "subtask", "elapsed_s")  # arrays that items have as they are
_SECONDS = 6.0  # of an episode, as long as those that are trained on whole


class SceneConfig(StrictModel):
    """Attributes: seeds: of the scenes, e.g. "400000-402999". choice: objects that the hand could take, at least.

    share: of the examples that training draws.
    """

    seeds: str
    choice: int = 2
    share: float = 0.5


class Moment(NamedTuple):
    """A window before its tensors: pictures are numbers of a list, the previous one -1 where there is none."""

    stage: Stage
    step: int
    now: int
    previous: int
    text: str
    where: NDArray[np.float64]
    ahead: bool


@dataclass(frozen=True)
class SceneArrays:
    """W windows and M pictures.

    Attributes:
        images: (M, H, W, 3) uint8 on disk. states: (M, T, D). now, previous: (W,) numbers of pictures.
        body: (W, H, V) past. future: (W, F, V). there: (W, F) bool. text: (W,) number in `texts`. where: (W, 2).
            subtask: (W,) number of the phrase.
    """

    images: NDArray[np.uint8]
    states: NDArray[np.float32]
    texts: list[str]
    rows: dict[str, NDArray[Any]]


def build(config: SceneConfig, model: FutureConfig, cache: Path, encode: FramesToTokens, key: str) -> SceneArrays:
    """Draw the scenes, or open them where that was done before.

    Args:
        encode: images → state tokens, known by `key`.

    Raises:
        UserError: `seeds` is no range, or a scene has no room.
    """
    seeds = number_range(config.seeds, "scenes.seeds")
    grid = [model.joint_names, model.rate_hz, model.history_steps, model.horizon_steps, model.state_gap_steps]
    size = (model.image_width, model.image_height)
    first = hashlib.sha256(stages(seeds[0], _times(model), size, config.choice)[0].picture(0).tobytes()).hexdigest()
    named = json.dumps([_LAYOUT, seeds, config.choice, grid, size, key, first])
    folder = cache / f"scenes-{hashlib.sha256(named.encode()).hexdigest()[:16]}"
    if not (folder / "texts.json").is_file():
        part = folder.with_suffix(f".{os.getpid()}.part")
        part.mkdir(parents=True)
        _write(part, seeds, config.choice, model, encode)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    states = np.load(folder / "states.npy")
    shape = (len(states), model.image_height, model.image_width, 3)
    images = np.memmap(folder / "images", np.uint8, "r", shape=shape)
    with np.load(folder / "rows.npz") as rows:
        return SceneArrays(images, states, json.loads((folder / "texts.json").read_text()), dict(rows))


class _Drawn(Dataset[tuple[NDArray[np.uint8], list[dict[str, Any]]]]):
    """Scenes by number: their pictures, and their windows with the words and the numbers of the pictures."""

    def __init__(self, seeds: Sequence[int], choice: int, model: FutureConfig) -> None:
        self.seeds, self.choice, self.model = seeds, choice, model

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, item: int) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
        model, pictures = self.model, list[NDArray[np.uint8]]()
        size = (model.image_width, model.image_height)
        told = list(moments(self.seeds[item], _times(model), size, self.choice, model.state_gap_steps, pictures))
        pairs = [{"text": each.text, "now": each.now, "previous": each.previous} for each in told]
        return np.stack(pictures), [_window(each, model) | pair for each, pair in zip(told, pairs, strict=True)]


def _as_it_is(scene: Any) -> Any:
    """Arrays, not tensors: those would hold a file open each."""
    return scene


def _write(folder: Path, seeds: Sequence[int], choice: int, model: FutureConfig, encode: FramesToTokens) -> None:
    texts: list[str] = []
    states: list[NDArray[np.float32]] = []
    rows: dict[str, list[Any]] = {}
    workers = min(8, os.cpu_count() or 1)
    drawn = DataLoader(_Drawn(seeds, choice, model), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    with (folder / "images").open("wb") as file:
        for pictures, windows in track(drawn, "scenes", total=len(seeds), transient=True):
            for window in windows:
                if window["text"] not in texts:
                    texts.append(window["text"])
                window["text"] = texts.index(window["text"])
                for name in ("now", "previous"):
                    window[name] += len(states) if window[name] >= 0 else 0
                for name, value in window.items():
                    rows.setdefault(name, []).append(value)
            stack = np.asarray(pictures)
            file.write(stack.tobytes())
            states += list(encode(stack))
    np.save(folder / "states.npy", np.stack(states))
    arrays: dict[str, Any] = {name: np.stack(values) for name, values in rows.items()}
    np.savez(folder / "rows.npz", **arrays)
    (folder / "texts.json").write_text(json.dumps(texts))


def moments(
    seed: int, times: NDArray[np.float64], size: tuple[int, int], choice: int, gap: int, pictures: list[Any]
) -> Iterator[Moment]:
    """The moments of a scene; their pictures are added to `pictures`."""
    rng = np.random.default_rng([seed, 1])
    told = stages(seed, times, size, choice)
    rate_hz = 1 / (times[1] - times[0])
    # Before any of the reaches, the same picture for all.
    before = min(shown.scene.plans[0].strokes[0].begin_s for shown in told)
    step = int(rng.integers(int(before * rate_hz) + 1))
    pictures.append(told[0].picture(step))
    for shown in told:
        yield Moment(shown, step, 0, -1, shown.text, _where(shown, shown.scene.items[0], step), True)
    taken = {shown.scene.items[0].words for shown in told}
    for thing in told[0].scene.items:
        if thing.words not in taken:
            text = instruction(rng, thing.words)
            yield Moment(told[0], step, 0, -1, text, _where(told[0], thing, step), False)
    # A little later, with a previous state.
    shown = told[int(rng.integers(len(told)))]
    pictures.append(shown.picture(step + gap))
    yield Moment(shown, step + gap, 1, 0, shown.text, _where(shown, shown.scene.items[0], step + gap), True)
    # Anywhere in the plan, with a previous state too.
    earliest = step + gap
    for _ in range(ANYWHERE):
        shown = told[int(rng.integers(len(told)))]
        step = int(rng.integers(earliest, len(times) - 1))
        pictures += [shown.picture(step - gap), shown.picture(step)]
        now = len(pictures) - 1
        yield Moment(shown, step, now, now - 1, shown.text, _where(shown, shown.scene.items[0], step), True)


def _where(shown: Stage, thing: Thing, step: int) -> NDArray[np.float64]:
    """Middle of a thing in the picture, (2,) shares across and down; NaN where it is beyond or has been taken."""
    if thing is shown.scene.items[0] and shown.times_s[step] >= shown.scene.plans[0].held_s[0]:
        return np.full(2, np.nan)
    middle = thing.pose[:3, 3] + (0.0, 0.0, thing.solid.height_m / 2)
    at = (shown.camera(step).project(middle[None])[0] + 0.5) / shown.size
    return at if ((at >= 0) & (at < 1)).all() else np.full(2, np.nan)


def _window(moment: Moment, model: FutureConfig) -> dict[str, Any]:
    body = body_of(G1_JOINTS, model.joint_names, moment.stage.joints).astype(np.float32)
    past = np.arange(moment.step - model.history_steps + 1, moment.step + 1)
    ahead = np.arange(moment.step + 1, moment.step + model.horizon_steps + 1)
    last = len(body) - 1
    return {
        "body": body[np.maximum(past, 0)],
        "future": body[np.minimum(ahead, last)],
        "there": (ahead <= last) & moment.ahead,
        "where": moment.where.astype(np.float32),
        "subtask": SUBTASKS.index(subtask(moment.stage.scene.plans[0], moment.step / model.rate_hz)),
        "elapsed_s": np.float32(moment.step / model.rate_hz),
    }


def _times(model: FutureConfig) -> NDArray[np.float64]:
    return np.arange(round(_SECONDS * model.rate_hz)) / model.rate_hz


class SceneWindows(Dataset[Item]):
    """Items as above; what a scene does not have is zero, in the shape of an item of the other windows, `like`.

    Args:
        share: of the windows to use, from the first on; negative: that share of the last ones.
    """

    def __init__(self, config: FutureConfig, arrays: SceneArrays, like: Item, share: float = 1.0) -> None:
        count = len(arrays.rows["now"])
        used = round(abs(share) * count)
        self.index = range(count - used, count) if share < 0 else range(used)
        self.arrays, self.words = arrays, open_words(config.language)(arrays.texts)
        self.fixed = {name: torch.zeros_like(like[name]) for name in ("latent", "latents", "source", "asked")}
        self.fixed |= {"painted": torch.tensor(False), "pace": torch.tensor(1)}
        self.looks = config.trajectory.image != "none"

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Item:
        rows, arrays, item = self.arrays.rows, self.arrays, self.index[number]
        now, previous = int(rows["now"][item]), int(rows["previous"][item])
        states = arrays.states[[max(previous, 0), now]]
        states[0] *= previous >= 0
        row = {name: torch.as_tensor(rows[name][item]) for name in NAMES}
        row |= {
            "states": torch.from_numpy(states),
            "words": self.words[int(rows["text"][item])],
            "known": torch.tensor([True, True, True, previous >= 0, False, self.looks]),
        }
        if self.looks:
            row["image"] = to_tensor(np.asarray(arrays.images[now]))
        return self.fixed | row


class Mixed(ConcatDataset[Item]):
    """Windows of episodes and of scenes; `weights`: how often each is drawn."""

    weights: NDArray[np.float64]


def mixed(episodes: FutureWindows, scenes: SceneWindows, share: float) -> Mixed:
    """Join them; `share` of the draws are of scenes."""
    own = getattr(episodes, "weights", np.ones(len(episodes)))
    both = Mixed([episodes, scenes])
    both.weights = np.concatenate([(1 - share) * own / own.sum(), np.full(len(scenes), share / len(scenes))])
    return both
