"""Training of `lidar` without labels: first the JEPA objective for the encoder, then the occupancy forecast.

The forecast's truth is what the sensor saw later, so nothing is annotated. Its logistic regression is fitted before
the first step; in the second stage the encoder is fine-tuned at a share of the learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from wm_ros.bundle import BundleConfig, load_bundle, load_weights, save_bundle, select
from wm_ros.data.sources import weights
from wm_ros.errors import UserError
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.model import LidarModel
from wm_ros.lidar.objectives import Objective, make_objective
from wm_ros.lidar.occupancy import forecast_loss, warp
from wm_ros.lidar.representation import effective_rank
from wm_ros.lidar.sparse import Sparse
from wm_ros.training import lidar_fit
from wm_ros.training.lidar_cache import Sweeps, open_sweeps
from wm_ros.training.lidar_card import lidar_card
from wm_ros.training.lidar_detection import DetectionStage
from wm_ros.training.lidar_windows import SweepWindows
from wm_ros.training.task import RunInfo, Task, TrainConfig


class LidarTrainConfig(TrainConfig):
    """`config/train/lidar.yaml`.

    Attributes:
        name: of the bundle.
        pretrain_share: of the steps, with the label-free `objective`. ratio: share of cells that it hides.
        alpha, beta: weights of prediction and spread, where it has them.
        finetune: whether the gradient of forecast and detection reaches the encoder.
        detection_share: of the steps after pre-training, for the head that `model.detection` describes.
        validation: share of episodes held out. fit_examples: for logistic regression, thresholds and calibrations.
    """

    name: str = "lidar-lite"
    model: LidarConfig = LidarConfig()
    pretrain_share: float = Field(0.35, ge=0, le=1)
    objective: Objective = "jepa"
    ratio: float = Field(0.5, gt=0, lt=1)
    alpha: float = 1.0
    beta: float = 1.0
    finetune: bool = False
    detection_share: float = Field(0.0, ge=0, le=1)
    validation: float = Field(0.1, gt=0, lt=1)
    validation_examples: int = Field(24, ge=1)
    fit_examples: int = Field(60, ge=2)


class LidarTask(Task):
    """Encoder and heads are exported, and of JEPA what `wm eval` needs to look at hidden cells."""

    name: ClassVar[str] = "lidar"
    config_type = LidarTrainConfig

    config: LidarTrainConfig

    def prepare(self, sources: list[str], seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
        """Cache the sweeps, split by episode, fit the logistic regression and build the modules."""
        config, model = self.config, self.config.model
        self._kept = dict[str, Tensor]()
        opened = [open_sweeps(source, model, self.work_dir / "cache") for source in sources]
        splits = [_split(sweeps, config.validation, seed) for sweeps in opened]
        self.train_set = SweepWindows(opened, [s[0] for s in splits], model, augment=True, weights=weights(sources))
        every = SweepWindows(opened, [s[1] for s in splits], model, augment=False)
        stride = max(1, len(every) // config.validation_examples)
        self.validation_set = SweepWindows(opened, [s[1] for s in splits], model, augment=False, stride=stride)
        self.fit_set = SweepWindows(opened, [s[0] for s in splits], model, augment=False)
        self.detection: DetectionStage | None = None
        if model.detection is not None and config.detection_share:
            sides = [s[0] for s in splits], [s[1] for s in splits]
            self.detection = DetectionStage(opened, *sides, model, config.detection_share, config.validation_examples)
        torch.manual_seed(seed)
        lidar = LidarModel(model)
        examples = lidar_fit.examples(self.fit_set, config.fit_examples, seed)
        self.logistic = lidar_fit.fit_linear(self.fit_set, examples, seed)
        lidar.head.linear.copy_(torch.from_numpy(self.logistic).float())
        terms = {"alpha": config.alpha, "beta": config.beta} if config.objective in ("jepa", "multi_sweep") else {}
        objective = make_objective(config.objective, lidar.encoder, ratio=config.ratio, **terms)
        self.modules = torch.nn.ModuleDict({"model": lidar, "objective": objective})
        return self.train_set, self.validation_set

    def start_from(self, bundle: Path) -> None:
        """Weights of encoder and head; the baselines are fitted anew, the head keeps the regression it corrects."""
        found, tensors = load_bundle(bundle, self.name, LidarConfig)
        wanted = self.config.model
        if found.model.model_copy(update={"detection": None}) != wanted.model_copy(update={"detection": None}):
            raise UserError(f"--start-from '{bundle}': its model differs from the `model` of the training config")
        if found.model.detection != wanted.detection:  # that head is then trained from its start
            own = {f"model.{n}": v for n, v in self._model.state_dict().items() if n.startswith("detector.")}
            tensors = {n: v for n, v in tensors.items() if not n.startswith("model.detector.")} | own
        load_weights(self._model, tensors, "model", bundle)
        if self._head_alone:
            # Encoder and forecast stay as they are, and so does what was fitted for them.
            self._kept = {f"baseline.{name}": value for name, value in select(tensors, "baseline").items()}
        state = select(tensors, "jepa")
        if state and self.config.objective == "jepa":
            self._objective.load_state_dict(state)
        elif hasattr(self._objective, "target"):
            self._objective.target.load_state_dict(self._model.encoder.state_dict())

    @property
    def _head_alone(self) -> bool:
        config = self.config
        return config.pretrain_share == 0 and config.detection_share == 1 and not config.finetune

    @property
    def pretrain_steps(self) -> int:
        return round(self.config.pretrain_share * self.config.steps)

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The label-free loss for the first part of the steps, cross-entropy of the forecast for the rest."""
        if step < self.pretrain_steps:
            clip = self.train_set.clip(batch, self._objective)
            return self._objective(self._model.encoder, *(_moved(part, self._device) for part in clip))
        if self.detection is not None and self.detection.due(step - self.pretrain_steps):
            if self._head_alone:  # nothing of the encoder moves, the statistics of its BatchNorm neither
                self._model.encoder.eval()
            return self.detection.loss(self._model, batch, self.config.finetune)
        example = self.train_set.forecast(batch)
        logits = self._forecast(example, self.config.finetune)
        loss = forecast_loss(logits, self._tensor(example["truth"]), self._tensor(example["scored"]))
        return {"loss": loss, "forecast_bce": loss}

    def after_step(self, step: int) -> None:
        """The target encoder follows while there is something to follow."""
        if step < self.pretrain_steps:
            self._objective.follow(self._model.encoder, (step + 1) / max(self.pretrain_steps, 1))

    def validate(self, batches: Iterable[dict[str, Tensor]]) -> dict[str, float]:
        """Cross-entropy of the forecast and of its logistic start, and whether the embedding has collapsed."""
        sums: dict[str, list[float]] = {}
        for batch in batches:
            example = self.validation_set.forecast(batch)
            truth, scored = self._tensor(example["truth"]), self._tensor(example["scored"])
            logits = self._forecast(example, False)
            linear = torch.einsum("kf,bfyx->bkyx", self._model.head.linear, self._tensor(example["features"]))
            sparse = example["now"]
            assert isinstance(sparse, Sparse)
            bev = self._model.encoder(_to(sparse, self._device))
            seen = bev.permute(0, 2, 3, 1)[bev.abs().sum(1) > 0]
            for name, value in (
                ("forecast_bce", forecast_loss(logits, truth, scored)),
                ("logistic_bce", forecast_loss(linear, truth, scored)),
                ("embedding_std", seen.std(0).mean()),
                ("embedding_rank", effective_rank(seen)),
            ):
                sums.setdefault(name, []).append(float(value))
        figures = {name: float(np.mean(values)) for name, values in sums.items()}
        return figures | (self.detection.validate(self._model) if self.detection is not None else {})

    def export(self, out: Path, run: RunInfo) -> None:
        """Fit calibrations and thresholds on training episodes and write the bundle."""
        self.modules.eval()
        fitted = lidar_fit.calibrate(self._model, self.logistic, self.fit_set, self.config.fit_examples, run.seed + 1)
        report = lidar_fit.report(self._model, self.validation_set, fitted)
        if self.detection is not None:
            report |= self.detection.report(self._model)
        metrics = {"validation": {**run.log, **report}}
        bundle = BundleConfig[LidarConfig](
            capability="lidar", name=self.config.name, model=self.config.model, training=run.record(), metrics=metrics
        )
        tensors = {f"model.{name}": value for name, value in self._model.state_dict().items()}
        tensors |= {f"baseline.{name}": torch.from_numpy(value).float() for name, value in fitted.items()}
        bank = lidar_fit.knn_bank(self._model, self.fit_set.sources, 2 * self.config.fit_examples, run.seed + 2)
        tensors |= {f"baseline.{name}": value for name, value in bank.items()} | self._kept
        if self.config.objective == "jepa":  # so that others can see what it knows of hidden cells
            tensors |= {f"jepa.{name}": value for name, value in self._objective.state_dict().items()}
        save_bundle(out, bundle, tensors, lidar_card(bundle, self.pretrain_steps, len(self.train_set)))

    # ------------------------------------------------------------------------- parts

    @property
    def _model(self) -> LidarModel:
        model = self.modules["model"]
        assert isinstance(model, LidarModel)
        return model

    @property
    def _objective(self) -> Any:
        return self.modules["objective"]

    @property
    def _device(self) -> torch.device:
        return self._model.head.linear.device

    def _tensor(self, value: Any) -> Tensor:
        assert isinstance(value, Tensor)
        return value.to(self._device)

    def _forecast(self, example: dict[str, Any], finetune: bool) -> Tensor:
        model = self._model
        # In training the statistics of BatchNorm follow even where the weights do not: pre-training saw half sweeps.
        with torch.set_grad_enabled(finetune and torch.is_grad_enabled()):
            now = model.encode(_to(example["now"], self._device))
        with torch.no_grad():
            past = model.encode(_to(example["past"], self._device))
            past = warp(past, self._tensor(example["past_from_here"]), model.cell_m)
        return model.head(self._tensor(example["features"]), self._tensor(example["rasters"]), now, past)


def _to(x: Sparse, device: torch.device) -> Sparse:
    return Sparse(x.features.to(device), x.sites.to(device), x.shape, x.batch)


def _moved(part: Any, device: torch.device) -> Any:
    """A sparse tensor, a list of them, or a plain tensor, on the device."""
    if isinstance(part, list):
        return [_to(x, device) for x in part]
    return _to(part, device) if isinstance(part, Sparse) else part.to(device)


def _split(sweeps: Sweeps, share: float, seed: int) -> tuple[set[int], set[int]]:
    """Whole episodes; at least one on each side where there are two."""
    numbers = np.unique(sweeps.table["episode"])
    order = np.random.default_rng(seed).permutation(numbers)
    held = max(1, round(share * len(numbers))) if len(numbers) > 1 else 0
    validation = {int(n) for n in order[:held]} or {int(n) for n in order}
    return {int(n) for n in order[held:]}, validation


TASK = LidarTask
