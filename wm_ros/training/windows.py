"""Windows of history and future, cut from aligned episodes: what `future` and `policy` are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from wm_ros.errors import UserError
from wm_ros.training.aligned import Aligned, FramesToTokens, align, with_tokens
from wm_ros.training.grid import RATE_HZ

__all__ = ["RATE_HZ", "Aligned", "FramesToTokens", "Windows", "align", "split_episodes", "with_tokens"]


def split_episodes(count: int, validation: float, seed: int) -> tuple[list[int], list[int]]:
    """Whole episodes to training and validation, at least one each (the same one where there is but one)."""
    order = np.random.default_rng(seed).permutation(count)
    held_out = min(max(1, round(validation * count)), max(count - 1, 1))
    return sorted(map(int, order[held_out:])) or [0], sorted(map(int, order[:held_out]))


class Windows(Dataset[dict[str, torch.Tensor]]):
    """Windows of `history` steps up to now and `future` steps after it, around every step of the chosen episodes.

    An item, for a window at step t of its episode (T = history, F = future):

        <field>         (T, …) for each of `past`: steps t - T + 1 … t; before the episode its first step is repeated
        <field>_future  (F, …) for each of `ahead`: steps t + 1 … t + F; after the episode its last step is repeated
        <field>         (…) for each of `now`: step t alone
        <field>_later   (len(later), …) for each of `now`: so many steps after t, the last step repeated
        pad, pad_future (T,), (F,) bool: True where repeated, to be left out of losses
        text            () int64 index into `texts`
        phase           () float32
        joints_end      (J,) at the last step of the episode
        source, episode, step   () int64: where the window is from

    Args:
        chosen: pairs of a source and the numbers of its episodes. stride: steps between windows.
        skip: windows that have fewer than this many real future steps are left out.
        now, later: as above, for what is large: images.
    """

    def __init__(
        self,
        chosen: Sequence[tuple[Aligned, Sequence[int]]],
        history: int,
        future: int,
        past: Sequence[str] = ("tokens", "joints"),
        ahead: Sequence[str] = ("joints", "commands"),
        stride: int = 1,
        skip: int = 1,
        now: Sequence[str] = (),
        later: Sequence[int] = (),
    ) -> None:
        self.sources = [aligned for aligned, _ in chosen]
        self.now, self.later = tuple(now), np.asarray(later, np.int64)
        self.history, self.future, self.past, self.ahead = history, future, tuple(past), tuple(ahead)
        self.texts: list[str] = sorted({text for aligned in self.sources for text in aligned.texts})
        self._text = [np.asarray([self.texts.index(t) for t in aligned.texts], np.int64) for aligned in self.sources]
        index = [
            (number, episode, step)
            for number, (aligned, numbers) in enumerate(chosen)
            for episode in numbers
            for step in range(aligned.starts[episode], aligned.starts[episode + 1] - skip, stride)
        ]
        if not index:
            raise UserError("no window fits in the training data; give longer or more episodes")
        self.index = np.asarray(index, np.int64)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        number, episode, step = map(int, self.index[item])
        source = self.sources[number]
        first, last = int(source.starts[episode]), int(source.starts[episode + 1]) - 1
        back = np.arange(step - self.history + 1, step + 1)
        after = np.arange(step + 1, step + self.future + 1)
        rows = {name: _gather(source[name], np.maximum(back, first)) for name in self.past}
        rows |= {f"{name}_future": _gather(source[name], np.minimum(after, last)) for name in self.ahead}
        for name in self.now:
            rows[name] = torch.from_numpy(np.array(source[name][step]))
            if len(self.later):
                rows[f"{name}_later"] = _gather(source[name], np.minimum(step + self.later, last))
        rows |= {
            "pad": torch.from_numpy(back < first),
            "pad_future": torch.from_numpy(after > last),
            "text": torch.as_tensor(self._text[number][source["text"][step]]),
            "joints_end": torch.from_numpy(np.array(source["joints"][last])),
            "phase": torch.as_tensor(float(source["phase"][step]), dtype=torch.float32),
        }
        where = {"source": number, "episode": episode, "step": step - first}
        return rows | {name: torch.as_tensor(value, dtype=torch.int64) for name, value in where.items()}


def _gather(array: NDArray[Any], rows: NDArray[np.int64]) -> torch.Tensor:
    # A slice and then an index: a memory map answers a slice with one read.
    low = int(rows.min())
    return torch.from_numpy(np.asarray(array[low : int(rows.max()) + 1])[rows - low])
