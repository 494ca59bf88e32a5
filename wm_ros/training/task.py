"""What a capability tells the training loop (`wm_ros.training.loop`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
import yaml
from pydantic import ValidationError
from torch.utils.data import Dataset

from wm_ros.bundle import StrictModel, TrainingRecord
from wm_ros.errors import UserError


class OptimiserConfig(StrictModel):
    """AdamW.

    Attributes:
        schedule: `cosine` is a linear warm-up and a cosine decay to zero; `one_cycle` is that of AD-L-JEPA: cosine from
            a tenth of `lr` to `lr` in the first 40 % and down to nothing, momentum 0.95 → 0.85 → 0.95.
    """

    schedule: Literal["cosine", "one_cycle"] = "cosine"
    lr: float = 3e-4
    weight_decay: float = 0.01
    warmup_fraction: float = 0.04
    clip_norm: float = 10.0


class TrainConfig(StrictModel):
    """The part of `config/train/<capability>.yaml` that is the same for all; each task adds its own fields.

    Attributes:
        variant: another task than the usual one of the capability, see `Task.variants`.
    """

    variant: str = ""
    steps: int
    batch_size: int
    validate_every: int = 250
    checkpoint_every: int = 250
    optimiser: OptimiserConfig = OptimiserConfig()


@dataclass(frozen=True)
class RunInfo:
    """What the loop knows of the run and the bundle's card repeats.

    Attributes:
        command: the command line. sources: the `--data` values. licences: of each source, without repeats.
        seed, steps: as trained. log: rows of the last validation, name → value.
    """

    command: str
    sources: list[str]
    licences: list[str]
    seed: int
    steps: int
    log: dict[str, float]

    def record(self, *licences: str) -> TrainingRecord:
        """What the bundle keeps of the run; `licences`: of released weights in it, beside those of the data."""
        return TrainingRecord(
            command=self.command,
            data=self.sources,
            data_licence="; ".join([*self.licences, *licences]),
            seed=self.seed,
            steps=self.steps,
        )


ConfigType = TypeVar("ConfigType", bound=StrictModel)


def read_config(file: Path, kind: type[ConfigType], **changes: object) -> ConfigType:
    """A YAML file as `kind`; `changes` win over it. Raises UserError naming file, field and value."""
    if not file.is_file():
        raise UserError(f"no config at '{file}'; give one with --config")
    try:
        return kind.model_validate((yaml.safe_load(file.read_text()) or {}) | changes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"'{file}': {where} = {first.get('input')!r:.60}: {first['msg']}") from None


def read_variant(file: Path) -> str:
    """The `variant` that a config file names, empty for none."""
    raw = yaml.safe_load(file.read_text()) if file.is_file() else None
    return str(raw.get("variant", "")) if isinstance(raw, dict) else ""


class Task(ABC):
    """One capability's data, modules, loss and export. `config/train/<name>.yaml` becomes `config_type`.

    Attributes:
        modules: everything with state that is saved in checkpoints, EMA copies and fitted constants included.
        variants: other tasks of the same capability; variant `x` is `TASK` of `wm_ros.training.<capability>_x`.
    """

    name: ClassVar[str]
    variants: ClassVar[tuple[str, ...]] = ()
    config_type: ClassVar[type[TrainConfig]]

    def __init__(self, config: Any, work_dir: Path) -> None:
        self.config = config
        self.work_dir = work_dir
        self.modules = torch.nn.ModuleDict()

    @abstractmethod
    def prepare(self, sources: list[str], seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
        """Build training and validation sets (map-style) from `--data` sources and fit the normalisation.

        Whole episodes go to one side. Arrays that do not fit in memory are cached under `work_dir/cache`.
        """

    def start_from(self, bundle: Path) -> None:
        """Take the weights of a bundle of the same architecture, after `prepare`. Raises UserError or BundleError."""
        raise UserError(f"--start-from '{bundle}': training of {self.name} cannot start from a bundle yet")

    def trainable(self) -> list[torch.nn.Parameter]:
        """Parameters that the optimiser gets; by default all that require gradients."""
        return [p for p in self.modules.parameters() if p.requires_grad]

    @abstractmethod
    def loss(self, batch: Any, step: int) -> dict[str, torch.Tensor]:
        """Scalars by name; `loss` is minimised, the rest is logged. `step` counts from 0 to `config.steps` - 1."""

    def after_step(self, step: int) -> None:  # noqa: B027 - a hook
        """After each optimiser step: EMA updates and the like."""

    @abstractmethod
    def validate(self, batches: Any) -> dict[str, float]:
        """Scalars over an iterable of validation batches, without gradients."""

    @abstractmethod
    def export(self, out: Path, run: RunInfo) -> None:
        """Fit the baselines, thresholds and calibrations that travel with the weights; write the bundle to `out`."""
