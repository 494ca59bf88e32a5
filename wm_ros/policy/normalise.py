"""Normalisation as LeRobot does it: modes, statistics, and the two processors that stand around a policy.

    IDENTITY    x
    MEAN_STD    (x - mean) / (std + 1e-8)
    MIN_MAX     2·(x - min) / (max - min) - 1, so that all data are in -1..1
    QUANTILES   the same with q01 and q99, which single odd values do not move; QUANTILE10 with q10 and q90

A dimension that hardly varies in the data (spread up to 1e-6) is only shifted: divided by its spread, a small deviation
would become a huge number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from wm_ros.bundle import StrictModel
from wm_ros.errors import UserError

Mode = Literal["IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"]
MODES: tuple[str, ...] = get_args(Mode)
Kind = Literal["STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"]

EPS = 1e-8
CONSTANT = 1e-6
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
EDGES: dict[str, tuple[str, str]] = {
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}

Stats = dict[str, Tensor]
"""mean, std, min, max, q01, q10, q50, q90, q99: (D,) each; count: (1,)."""


class Feature(StrictModel):
    """What a key of a batch holds. `shape`: without batch and time; (3, H, W) for images."""

    type: Kind
    shape: tuple[int, ...] = Field(min_length=1)


def statistics(values: Tensor) -> Stats:
    """Statistics of data (N, D), N >= 1."""
    data = values.double()
    shares = torch.tensor(list(QUANTILES.values()), dtype=torch.float64)
    ordered = torch.stack([torch.quantile(column, shares) for column in data.T], 1)
    found = dict(zip(QUANTILES, ordered, strict=True))
    found |= {"mean": data.mean(0), "std": data.std(0, correction=0), "min": data.amin(0), "max": data.amax(0)}
    return {name: value.float() for name, value in found.items()} | {"count": torch.tensor([len(data)])}


class Normaliser:
    """One feature there and back. Raises UserError where `stats` lack what `mode` needs."""

    def __init__(self, mode: Mode, stats: Stats, key: str = "") -> None:
        self.mode = mode
        if mode == "IDENTITY":
            return
        needed = ("mean", "std") if mode == "MEAN_STD" else EDGES[mode]
        missing = [name for name in needed if name not in stats]
        if missing:
            raise UserError(f"normalisation of '{key}': {mode} needs {missing[0]}, which the statistics lack; add it")
        first, second = (stats[name].float() for name in needed)
        if mode == "MEAN_STD":
            self.shift, self.scale = first, torch.where(second > CONSTANT, second + EPS, 1.0)
            self.back = torch.where(second > CONSTANT, second, 1.0)
        else:
            half = (second - first) / 2.0
            self.scale = self.back = torch.where(second - first > CONSTANT, half, 0.5)
            self.shift = first + self.scale  # which is mapped to 0, as `first` is to -1

    def normalise(self, values: Tensor) -> Tensor:
        """(…, D) as in the data → as the policy sees it."""
        return values if self.mode == "IDENTITY" else (values - self.shift.to(values)) / self.scale.to(values)

    def unnormalise(self, values: Tensor) -> Tensor:
        """The way back."""
        return values if self.mode == "IDENTITY" else values * self.back.to(values) + self.shift.to(values)


class Processor:
    """Normalises the features of a batch before a policy, or takes its action back after it.

    Args:
        features: key → feature. modes: type of feature → mode, IDENTITY where it says none. stats: key → statistics;
            a feature without them passes as it is.
    """

    def __init__(self, features: Mapping[str, Feature], modes: Mapping[Kind, Mode], stats: Mapping[str, Stats]) -> None:
        self.features, self.modes, self.stats = dict(features), dict(modes), dict(stats)
        self._normalisers = {
            key: Normaliser(self.modes.get(feature.type, "IDENTITY"), self.stats[key], key)
            for key, feature in self.features.items()
            if key in self.stats
        }

    def before(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch with its features normalised; other keys pass."""
        return {
            key: self._normalisers[key].normalise(value) if key in self._normalisers else value
            for key, value in batch.items()
        }

    def after(self, action: Tensor) -> Tensor:
        """Actions (…, A) of the policy → as in the data."""
        return self._normalisers["action"].unnormalise(action) if "action" in self._normalisers else action


def check_shapes(features: Mapping[str, Feature], stats: Mapping[str, Stats]) -> None:
    """Raises UserError where statistics do not fit the feature that they are of."""
    for key, feature in features.items():
        for name, value in stats.get(key, {}).items():
            wanted: Sequence[int] = (feature.shape[0], 1, 1) if feature.type == "VISUAL" else feature.shape
            if name != "count" and tuple(value.shape) != tuple(wanted):
                raise UserError(
                    f"statistics of '{key}': {name} has shape {tuple(value.shape)}, "
                    f"the feature asks for {tuple(wanted)}"
                )
