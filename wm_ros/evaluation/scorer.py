"""What a capability tells `wm eval`: how its predictions are scored.

A scorer sees every sample and every prediction of one bag in time order and gives, at the end, the per-prediction
errors of the model and of each baseline. `wm_ros.evaluation.metrics` turns those rows into `metrics.json`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wm_ros.types import Prediction, Sample


@dataclass(frozen=True)
class Metric:
    """One key of `metrics.json`, e.g. `hand_ade@0.5s`.

    Attributes:
        name: key with its horizon. unit: of the value. better: "lower" or "higher".
        statistics: name of the method → (n, k) float64, one row per scored prediction in time order. The methods
            are "model" and the baselines. A plain error has k = 1 and its figure is the mean of the rows.
        pooled: turns the summed rows (k,) into the figure where it is not a mean (AP, IoU, R²); None for means.
    """

    name: str
    unit: str
    better: str
    statistics: dict[str, NDArray[np.float64]]
    pooled: Any = None


@dataclass
class Scores:
    """What a scorer found in one episode.

    Attributes:
        metrics: without rows where nothing could be scored (no metric at all is fine).
        rows: one dict per prediction for `results.jsonl`: at least stamp_ns and each metric's value.
        pictures: title → (H, W, 3) uint8, or (T, H, W, 3) for a strip, shown in the report, in order.
    """

    metrics: list[Metric] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


class Scorer(ABC):
    """Made afresh for each episode from the capability's bundle folder (the fitted baselines are in it)."""

    name: ClassVar[str]

    @abstractmethod
    def observe(self, sample: Sample) -> None:
        """Take a sample (of any type, in time order, before the prediction that it triggers)."""

    @abstractmethod
    def predict(self, prediction: Prediction) -> None:
        """Take a prediction of the capability."""

    @abstractmethod
    def finish(self) -> Scores:
        """Score all predictions whose time came within the episode."""
