"""Which sequence model should read the past in stage I of `future`? Each is trained on the same windows, alike.

Everything but `trajectory.backbone` is the same: tokens, linear path, reading, heads, loss, order of the batches.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from wm_ros.bundle import StrictModel
from wm_ros.evaluation.future import MOVING_MPS, MOVING_OVER_S
from wm_ros.future.baselines import constant_velocity, hold
from wm_ros.future.config import FutureConfig, ReaderKind, TrajectoryConfig
from wm_ros.future.history import Batch
from wm_ros.future.losses import drop_modalities, trajectory_loss
from wm_ros.future.trajectory import Normaliser, TrajectoryModel
from wm_ros.nn.instruction import open_words
from wm_ros.training.future import FutureTask, FutureTrainConfig, mapped, state_model
from wm_ros.training.future_calibration import state_only
from wm_ros.training.future_windows import FutureWindows, Item, recordings

HORIZONS_S = (0.2, 0.5, 1.0, 2.0)
USED = ("body", "states", "words", "known", "asked", "future", "there")
Arm = str  # a backbone, or "without words" and the like: the first kind of reader, which is not told that
Errors = NDArray[np.float64]  # (windows, horizons) mm


class BackbonesConfig(StrictModel):
    """`config/backbones.yaml`.

    Attributes:
        backbones: to compare, see `TrajectoryConfig.backbone`. seeds: each has weights and batches of its own.
        without: what `all_tokens` is also trained without, to see what it adds: the instruction, the image's states.
        history_steps: lengths of the past to compare, in steps of 1/15 s; the linear path sees eight of them.
        steps, batch_size, lr, weight_decay, clip_norm, modality_dropout: of the training, alike for all.
        stride: grid steps between windows. calls: forecasts that are timed, one window at a time.
    """

    backbones: tuple[ReaderKind, ...] = ("all_tokens", "transformer", "gru", "s4d", "selective")
    without: tuple[Literal["words", "states"], ...] = ()
    history_steps: tuple[int, ...] = Field(default=(12,), min_length=1)
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=32, ge=1)
    lr: float = 1e-3
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    modality_dropout: float = 0.08
    stride: int = Field(default=5, ge=1)
    calls: int = Field(default=200, ge=20)
    trajectory: TrajectoryConfig = TrajectoryConfig()

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All that is trained, backbones first."""
        return (*self.backbones, *(f"without {what}" for what in self.without))


@dataclass(frozen=True)
class Data:
    """Windows with the longest past of the comparison, and what was fitted to the training ones.

    Attributes:
        train, test: fields `USED` of `FutureWindows`, of all windows. episode: (W,) of each test window.
        base: the linear path's constants.
    """

    config: FutureConfig
    norm: Normaliser
    base: dict[str, Tensor]
    train: Item
    test: Item
    episode: NDArray[np.int64]


def read(state: Path, data: list[str], test: str, config: BackbonesConfig, cache: Path) -> Data:
    """Training windows with the constants that `wm train future` fits to them, and the windows of a test source."""
    longest = FutureConfig(history_steps=max(config.history_steps), trajectory=config.trajectory)
    settings = FutureTrainConfig(steps=1, batch_size=1, state_bundle=str(state), stride=config.stride, model=longest)
    task = FutureTask(settings, cache)
    train, _ = task.prepare(data, 0)
    assert isinstance(train, FutureWindows)
    bundle, encoder = state_model(state)
    encoders = (mapped(encoder.encode), mapped(encoder.autoencoder.encode))
    sha, fitted = bundle.weights_sha256, task.model
    unseen = recordings(
        [test], fitted.config, config.stride, cache / "cache", encoders, sha, lambda count: ([], list(range(count)))
    )
    windows = FutureWindows(fitted.config, unseen, unseen.validation)
    episode = unseen.first[torch.from_numpy(windows.index)].numpy()
    base = {name: value.clone() for name, value in fitted.trajectory.base.state_dict().items()}
    return Data(fitted.config, fitted.norm, base, _all(train), _all(windows), episode)


def _all(windows: FutureWindows) -> Item:
    parts = [{name: batch[name] for name in USED} for batch in DataLoader(windows, 256)]
    return {name: torch.cat([part[name] for part in parts]) for name in USED}


def untrained(data: Data, arm: Arm, history_steps: int, seed: int) -> TrajectoryModel:
    """Stage I with the backbone of that arm; its linear path is fitted."""
    backbone = "all_tokens" if arm.startswith("without") else arm
    sizes = data.config.trajectory.model_copy(update={"backbone": backbone})
    config = data.config.model_copy(update={"history_steps": history_steps, "trajectory": sizes})
    torch.manual_seed(seed)
    model = TrajectoryModel(config, data.norm)
    model.base.load_state_dict(data.base)
    return model


def train(
    data: Data, arm: Arm, history_steps: int, config: BackbonesConfig, seed: int
) -> tuple[TrajectoryModel, list[float]]:
    """Train one; also the seconds that each step took."""
    with torch.random.fork_rng():
        model = untrained(data, arm, history_steps, seed).train()
        optimiser = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, config.steps + 1, pct_start=0.1)
        order = np.random.default_rng(seed)  # of batches, the same for every backbone
        taken_s = []
        for _ in range(config.steps):
            rows = torch.from_numpy(order.integers(len(data.train["body"]), size=config.batch_size))
            item = {name: value[rows] for name, value in data.train.items()}
            start = time.perf_counter()
            forecast = model(drop_modalities(_told(item, arm, history_steps, data), config.modality_dropout))
            losses = trajectory_loss(forecast.body, forecast.scale, item["future"], item["there"])
            optimiser.zero_grad()
            (losses["hands"] + losses["joints"]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimiser.step()
            schedule.step()
            taken_s.append(time.perf_counter() - start)
    return model.eval().requires_grad_(False), taken_s


def _told(item: Item, arm: Arm, history_steps: int, data: Data) -> Batch:
    """What an arm hears: the end of the past, no commands, and not what it goes without."""
    batch = state_only(item)
    batch = batch._replace(body=batch.body[:, -history_steps:], asked=batch.asked[:, -history_steps:])
    if arm == "without words":
        unsaid = open_words(data.config.language)([""])
        return batch._replace(words=unsaid.expand_as(batch.words))
    if arm == "without states":
        return batch._replace(states=data.norm.state_mean.expand_as(batch.states))
    return batch


@torch.inference_mode()
def hand_errors(model: TrajectoryModel, data: Data, arm: Arm = "all_tokens") -> Errors:
    """Mean distance (mm) of the right wrist up to each horizon, (W, horizons); NaN where the episode ends before."""
    parts = [slice(at, at + 256) for at in range(0, len(data.episode), 256)]
    history = model.config.history_steps
    items = [{name: value[part] for name, value in data.test.items()} for part in parts]
    guesses = [model(_told(item, arm, history, data)).body for item in items]
    return _distance_mm(torch.cat(guesses), data)


@torch.inference_mode()
def baseline_errors(data: Data) -> dict[str, Errors]:
    """The same of hold, damped constant velocity and the linear path."""
    body, steps = data.test["body"], data.config.horizon_steps
    kind = data.norm.kind(data.test["states"])
    ridge = untrained(data, "all_tokens", data.config.history_steps, 0).base
    guesses = {
        "hold": hold(body, steps),
        "constant_velocity": constant_velocity(body, steps),
        "ridge": ridge(body, kind),
    }
    return {name: _distance_mm(guess, data) for name, guess in guesses.items()}


def _distance_mm(guess: Tensor, data: Data) -> Errors:
    wrist = (guess - data.test["future"])[..., 3:6].norm(dim=-1).double() * 1e3
    columns = []
    for horizon_s in HORIZONS_S:
        steps = int(horizon_s * data.config.rate_hz + 1e-6)
        columns.append(torch.where(data.test["there"][:, steps - 1], wrist[:, :steps].mean(1), torch.nan))
    return torch.stack(columns, 1).numpy()


def moving(data: Data) -> NDArray[np.bool_]:
    """(W,) test windows in which the right wrist moves, as `wm eval` has it."""
    steps = round(MOVING_OVER_S * data.config.rate_hz)
    path = data.test["body"][:, -steps - 1 :, 3:6]
    return (path.diff(dim=1).norm(dim=-1).sum(1) > MOVING_MPS * MOVING_OVER_S).numpy()


@torch.inference_mode()
def call_times(models: list[TrajectoryModel], data: Data, calls: int) -> list[list[float]]:
    """Seconds of `calls` forecasts of one window, for each model; they run in turn, so that a drift meets all alike."""
    taken: list[list[float]] = [[] for _ in models]
    for call in range(calls + 10):
        row = {name: value[call % len(data.episode)][None] for name, value in data.test.items()}
        for times, model in zip(taken, models, strict=True):
            batch = _told(row, "all_tokens", model.config.history_steps, data)
            start = time.perf_counter()
            model(batch)
            times.append(time.perf_counter() - start)
    return [times[10:] for times in taken]  # the first ones warm up
