"""Training of `future`: the linear path in closed form, then both stages together, each on its own loss.

Stage II needs a trajectory to draw frames on. Half of its examples get the true one and half that of stage I, as at
run time, so stage I is trained in the same run; its forecasts reach stage II without gradients. The autoencoder is
that of the state bundle and stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wm_ros.bundle import BundleConfig, load_bundle, load_weights, tokens_checksum
from wm_ros.data.simulator.tabletop_motion import SUBTASKS
from wm_ros.data.sources import weights
from wm_ros.errors import UserError
from wm_ros.future import model as bundles
from wm_ros.future.baselines import constant_velocity
from wm_ros.future.config import FutureConfig
from wm_ros.future.frames import Scene
from wm_ros.future.history import Batch
from wm_ros.future.look import where_loss
from wm_ros.future.losses import drop_modalities, samples_loss, subtask_loss, trajectory_loss
from wm_ros.future.model import FutureModel
from wm_ros.future.trajectory import (
    KNOWN_LEFT,
    KNOWN_RIGHT,
    Forecast,
    TrajectoryModel,
)
from wm_ros.nn.ema import Ema
from wm_ros.nn.instruction import noted
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.paths import bundle_path
from wm_ros.state.config import StateModelConfig
from wm_ros.state.model import StateModel
from wm_ros.training.future_calibration import calibrate, state_only
from wm_ros.training.future_card import write_card
from wm_ros.training.future_fit import ade_mm, collated, fit_constants, fit_paths_of_the_past, for_paths
from wm_ros.training.future_judge import fitted_detail, judge_reader, painted_psnr
from wm_ros.training.future_windows import FutureWindows, Item, batch_of, cut, recordings
from wm_ros.training.scene_windows import SceneConfig, SceneWindows, build, mixed
from wm_ros.training.task import RunInfo, Task, TrainConfig
from wm_ros.training.windows import FramesToTokens, split_episodes

CALIBRATION = 3000  # held-out windows on which the samples are calibrated
SCENES_HELD_OUT = 0.04


class FutureTrainConfig(TrainConfig):
    """`config/train/future.yaml`.

    Attributes:
        state_bundle: whose tokens and autoencoder to use. validation: share of episodes held out.
        stride: grid steps between training windows (see `future_windows`).
        frames_batch: examples of each batch that stage II learns from (it costs twenty times stage I).
        modality_dropout: share of examples that lack joints, a hand or the previous state.
        painted: validation examples for which frames are painted.
        stage: what is trained; the other one, and the constants, are then those of `--start-from`.
        copies: of each source's training episodes, under another light and a camera that is mounted a little otherwise.
        paces: of `stage: frames`: what follows is also seen so many times as fast, backwards where negative, so that
            frames follow the trajectory wherever it leads, not only where the robot would have gone.
        scenes: simulated scenes of which only some moments are seen, so that instructions are grounded in many.
        where_weight: of the place in the image where the named object is looked for. subtask_weight: of the phrase for
            what is being done.
    """

    model: FutureConfig = FutureConfig()
    state_bundle: str = "state-lite"
    validation: float = 0.08
    stride: int = 5
    validation_windows: int = 512
    frames_batch: int = 16
    modality_dropout: float = 0.08
    ema_decay: float = 0.998
    painted: int = 48
    stage: Literal["both", "trajectory", "frames"] = "both"
    copies: tuple[int, ...] = ()
    paces: tuple[int, ...] = ()
    scenes: SceneConfig | None = None
    where_weight: float = 0.3
    subtask_weight: float = 0.1
    picture_weight: float = 0.5

    @model_validator(mode="after")
    def _paces_of_frames(self) -> FutureTrainConfig:
        if self.paces and self.stage != "frames":
            raise ValueError(f"paces = {self.paces} is for stage: frames; stage I foresees what follows as it was")
        return self


class FutureTask(Task):
    """Stages I and II of `wm_ros.future`."""

    name = "future"
    config_type = FutureTrainConfig
    config: FutureTrainConfig
    _scenes: SceneWindows | None = None

    # ------------------------------------------------------------------ data

    def prepare(self, sources: list[str], seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
        bundle, state = state_model(bundle_path(self.config.state_bundle))
        config = self.config.model.model_copy(
            update={
                "state_bundle": bundle.name,
                "state_tokens_sha256": tokens_checksum(bundle_path(self.config.state_bundle)),
                "state_tokens": bundle.model.tokens,
                "state_width": bundle.model.token_width,
                "autoencoder": bundle.model.autoencoder,
                "language": noted(self.config.model.language),
                "subtasks": SUBTASKS if self.config.scenes else (),
            }
        )
        stride = self.config.stride
        if math.gcd(stride, config.state_gap_steps, *config.frame_steps) != stride:
            raise UserError(f"stride = {stride} does not divide the steps between states and between frames; use 1")
        encoders = (mapped(state.encode), mapped(state.autoencoder.encode))
        validation, cache = self.config.validation, self.work_dir / "cache"
        data = recordings(
            sources,
            config,
            stride,
            cache,
            encoders,
            bundle.weights_sha256,
            lambda count: split_episodes(count, validation, seed),
            self.config.copies or None,
        )
        # Each source is a kind of recording.
        episodes = [data.episodes(data.of_source(data.training, source)) for source in range(len(sources))]
        mean_steps = [float(np.mean([len(body) for body in bodies])) for bodies in episodes]
        config = config.model_copy(update={"mean_episode_s": tuple(steps / config.rate_hz for steps in mean_steps)})
        train = FutureWindows(config, data, data.training, shares=weights(sources), paces=self.config.paces)
        held_out = FutureWindows(
            config, data, data.validation, skip=16, limit=self.config.validation_windows, seed=seed, images=True
        )
        self._build(config, state)
        for phase, bodies, mean_s in zip(self.model.phase, episodes, config.mean_episode_s, strict=True):
            phase.fit([torch.nan_to_num(body) for body in bodies], config.rate_hz, mean_s)  # type: ignore[operator]
        self._seen, self._unseen = for_paths(FutureWindows(config, data, data.training)), for_paths(held_out)
        fit_constants(self.model, train, self._seen, self._unseen)
        if self.config.stage != "frames":
            self._fit_past()
        self.modules["ema"] = Ema(self.model, self.config.ema_decay)
        self._painted = held_out
        self._held_out = FutureWindows(config, data, data.validation, skip=config.horizon_steps)
        self._facts = {"episodes": len(data.training), "windows": len(train), "held_out": len(data.validation)}
        if self.config.scenes is None:
            return train, held_out
        arrays = build(self.config.scenes, config, cache, encoders[0], bundle.weights_sha256)
        self._scenes = SceneWindows(config, arrays, train[0], -SCENES_HELD_OUT)
        scenes = SceneWindows(config, arrays, train[0], 1 - SCENES_HELD_OUT)
        return mixed(train, scenes, self.config.scenes.share), held_out

    def _build(self, config: FutureConfig, state: StateModel) -> None:
        self.model = FutureModel(config)
        self.model.autoencoder.load_state_dict(state.autoencoder.state_dict())
        self.model.autoencoder.requires_grad_(False)
        self.modules["model"] = self.model

    def _fit_past(self) -> None:
        fit_paths_of_the_past(self.model, self._seen, self._unseen, self.config.modality_dropout)

    # ------------------------------------------------------------------ learning

    def start_from(self, bundle: Path) -> None:
        """The autoencoder, the constants, and the stage that is not trained, or both stages where both are."""
        found, tensors = load_bundle(bundle, "future", FutureConfig)
        if self.config.stage == "frames":  # stage I stays as it is, whatever it was made of
            same = {name: getattr(found.model, name) for name in ("trajectory", "samples", "subtasks")}
            self.model.config = self.model.config.model_copy(update=same)
            self.model.trajectory = TrajectoryModel(self.model.config, self.model.norm)
        both = ("trajectory", "frames", "reader")
        of_stage = {"both": both, "trajectory": ("frames", "reader"), "frames": both}
        for module in (*of_stage[self.config.stage], "norm"):
            if getattr(self.model, module) is not None:
                load_weights(self.model.get_submodule(module), tensors, bundles.PREFIXES[module], bundle)
        if self.config.stage == "trajectory":
            self._fit_past()  # in units of the constants that came with the bundle
        self.modules["ema"] = Ema(self.model, self.config.ema_decay)

    def trainable(self) -> list[torch.nn.Parameter]:
        trained = {"both": ("",), "trajectory": ("trajectory.",), "frames": ("frames.", "reader.")}
        named = self.model.named_parameters()
        return [p for name, p in named if p.requires_grad and name.startswith(trained[self.config.stage])]

    def loss(self, batch: Item, step: int) -> dict[str, Tensor]:
        inputs = drop_modalities(batch_of(batch), self.config.modality_dropout)
        with torch.autocast(inputs.body.device.type, enabled=False):  # millimetres of a body metres across
            forecast = self.model.trajectory(inputs)
        losses = {} if self.config.stage == "frames" else self._trajectory_losses(batch, inputs, forecast)
        if self.config.stage != "trajectory":
            losses |= self._frame_losses(batch, forecast)
        weights = {
            "where": self.config.where_weight,
            "subtask": self.config.subtask_weight,
            "pictures": self.config.picture_weight,
        }
        total = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
        return {"loss": total, **losses}

    def _trajectory_losses(self, batch: Item, inputs: Batch, forecast: Forecast) -> dict[str, Tensor]:
        losses = trajectory_loss(forecast.body, forecast.scale, batch["future"], batch["there"])
        whole = batch["there"].all(1).nonzero()[:, 0]
        if len(whole) > 1:
            known = forecast.of(whole)
            losses |= samples_loss(self.model.trajectory, known, inputs.body[whole], batch["future"][whole])
        if forecast.attention is not None:
            losses["where"] = where_loss(forecast.attention, batch["where"])
        if forecast.subtask is not None:
            losses["subtask"] = subtask_loss(forecast.subtask, batch["subtask"])
        return losses

    def _frame_losses(self, batch: Item, forecast: Forecast) -> dict[str, Tensor]:
        """Of one horizon per step, each example where the episode lasts that long."""
        model = self.model
        index = int(torch.randint(len(model.config.frame_steps), ()))
        lasts = batch["there"][:, model.config.frame_steps[index] - 1] & batch["painted"]
        chosen = lasts.nonzero()[:, 0][: self.config.frames_batch]
        if len(chosen) < 2:
            nothing = torch.stack([p.sum() for p in model.frames.parameters()]).sum() * 0.0
            return {"frames": nothing, "pictures": nothing.detach()}
        few = {name: value[chosen] for name, value in batch.items()}
        foreseen = torch.rand(len(chosen), 1, 1, device=chosen.device) < 0.5
        foreseen &= few["pace"].view(-1, 1, 1) == 1  # what is foreseen is what follows at its own pace
        path = torch.where(foreseen, forecast.body[chosen].detach(), few["future"])
        scene = Scene.of(batch_of(few), few["latent"])
        losses = model.frames.losses(scene, path, few["latents"], index, model.autoencoder.decode)
        return losses | self._reader_loss(few, index)

    def _reader_loss(self, few: Item, index: int) -> dict[str, Tensor]:
        """Of the hands read in frames that were seen: those of now and those at one horizon."""
        reader, known = self.model.reader, few["known"]
        if reader is None:
            return {}
        there = known[:, KNOWN_LEFT] & known[:, KNOWN_RIGHT]
        later = few["future"][there, self.model.config.frame_steps[index] - 1, :6]
        latents = torch.cat([few["latent"][there], few["latents"][there, index]])
        latents = latents + 0.1 * self.model.norm.latent_std[:, None, None] * torch.randn_like(latents)
        return {"reader": reader.loss(latents, torch.cat([few["body"][there, -1, :6], later]))}

    def after_step(self, step: int) -> None:
        self.modules["ema"].update(self.model)  # type: ignore[operator]

    # ------------------------------------------------------------------ judging

    @property
    def _average(self) -> FutureModel:
        model = self.modules["ema"].average
        assert isinstance(model, FutureModel)
        return model

    def validate(self, batches: Iterable[Item]) -> dict[str, float]:
        """Hand ADE (mm) without commands, PSNR (dB) of painted frames, beside baselines and the last frame."""
        model, rate = self._average.eval(), self.model.config.rate_hz
        totals: dict[str, list[Tensor]] = {}
        left = self.config.painted
        for batch in batches:
            forecast = model.trajectory(state_only(batch))
            guesses = {
                "": forecast.body,
                "_ridge": model.trajectory.base(batch["body"], model.norm.kind(batch["states"])),
                "_velocity": constant_velocity(batch["body"], model.config.horizon_steps),
            }
            for suffix, guess in guesses.items():
                for horizon in (0.5, 1.0):
                    ade = ade_mm(guess, batch["future"], batch["there"], rate, horizon)
                    totals.setdefault(f"ade_{horizon}s{suffix}", []).append(ade)
            if left > 0:
                few = cut(batch, left)
                left -= len(few["body"])
                for name, value in painted_psnr(model, few, forecast.body[: len(few["body"])]).items():
                    totals.setdefault(name, []).append(value)
        return {name: float(torch.cat(values).mean()) for name, values in totals.items()}

    def export(self, out: Path, run: RunInfo) -> None:
        model = self._average.eval()
        if self.config.stage != "frames":
            held_out = collated(self._held_out, CALIBRATION)
            scenes = None if self._scenes is None else collated(self._scenes, CALIBRATION)
            share = 0.0 if self.config.scenes is None else self.config.scenes.share
            run.log.update(calibrate(model.trajectory, held_out, scenes, share))
        if self.config.stage != "trajectory":
            run.log.update(judge_reader(model, collated(self._painted, CALIBRATION)))
            few = next(iter(DataLoader(self._painted, self.config.painted)))
            model.config = model.config.model_copy(update={"frames": fitted_detail(model, few)})
        card = write_card(out.name, model.config, run, self._facts, self.config.scenes)
        bundles.save(out, "future-lite", model, run.record(), card)


def state_model(path: Path) -> tuple[BundleConfig[StateModelConfig], StateModel]:
    """Encoder and autoencoder of a state bundle. Raises BundleError, or UserError where `future` cannot use it."""
    config, tensors = load_bundle(path, "state", StateModelConfig)
    if config.model.sd3 is not None:
        raise UserError(f"bundle '{path}' draws by Stable Diffusion 3; future needs one with the small autoencoder")
    model = StateModel(config.model)
    load_weights(model, tensors, "model", path)
    return config, model.eval().requires_grad_(False)


def mapped(encode: Any) -> FramesToTokens:
    """Images (B, H, W, 3) uint8 → arrays, through a module's function of tensors."""

    @torch.no_grad()
    def arrays(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        out: NDArray[np.float32] = encode(to_tensor(frames)).numpy()
        return out

    return arrays


TASK = FutureTask
