"""One step, four callers: the node, `wm eval`, the closed loop and the benchmark all call `Capability.step`."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from wm_ros.errors import UserError
from wm_ros.types import Prediction, Sample

NAMES = ("lidar", "state", "future", "policy")


class Capability(ABC):
    """A trained model with its preprocessing, history and normalisation.

    Attributes:
        name: one of `NAMES`.
        inputs: sample types that `step` takes; others are ignored by callers. A bundle may ask for fewer of them.
        trigger: the sample type whose arrival gives a prediction; another one's does only while that is not seen.
        does_without: sample types that may fall silent, as the model was trained for that.
        optional_outputs: names that `wanted` may hold; what is not wanted is not computed.
        wanted: the optional outputs to compute; callers set it (a node: those somebody subscribes to).
        withheld: why the last trigger gave no (or not the whole) prediction; "" when it did.
        timings_ms: duration of each stage of the last prediction, in order.
        measures: figures of the last predictions that tell how sure to be of them, by name with unit.
        unfamiliar: what in them is unlike the data that the model was trained on; "" where nothing is.
    """

    name: ClassVar[str]
    inputs: tuple[type[Sample], ...]
    trigger: type[Sample]
    does_without: tuple[type[Sample], ...] = ()
    optional_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.wanted: set[str] = set(self.optional_outputs)
        self.withheld: str = ""
        self.timings_ms: dict[str, float] = {}
        self.measures: dict[str, float] = {}
        self.unfamiliar: str = ""

    @classmethod
    @abstractmethod
    def from_bundle(cls, path: Path, device: str = "cpu") -> Capability:
        """Load from a bundle folder.

        Raises:
            BundleError: the bundle is damaged, unsafe, or not of this capability; the message names the field.
        """

    @abstractmethod
    def step(self, sample: Sample) -> Prediction | None:
        """Take one sample; return a prediction if it is the trigger and enough is known, else None.

        Never raises on the values of a sample: one that cannot be used is refused and `withheld` says why.
        A stamp older than the newest seen of its type clears the history (the clock jumped back).
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget all history."""

    @abstractmethod
    def warm_up(self) -> None:
        """Run one whole inference on made-up input, then `reset`; the first real one is then not slower."""


def load(name: str, bundle: Path, device: str = "cpu") -> Capability:
    """Load capability `name` (one of `NAMES`) from `bundle`. Raises UserError or BundleError."""
    if name not in NAMES:
        raise UserError(f"unknown capability '{name}': choose one of {', '.join(NAMES)}")
    module = importlib.import_module(f"wm_ros.{name}")
    capability: Capability = module.CAPABILITY.from_bundle(Path(bundle), device)
    return capability
