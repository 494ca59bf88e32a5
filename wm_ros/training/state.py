"""Training of `state`: the image autoencoder first, then tokens, flow and deterministic decoder together.

Only images are needed. Where a recording also has joints, the heads of `action_r2` are fitted on it at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from wm_ros.bundle import BundleConfig, TrainingRecord, load_bundle, load_weights, save_bundle
from wm_ros.errors import UserError
from wm_ros.nn.autoencoder import autoencoder_loss
from wm_ros.nn.ema import Ema
from wm_ros.nn.flow import velocity_loss
from wm_ros.nn.image_quality import psnr, ssim
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.state.action import METHODS, STEPS, fit_head, pooled_pixels, step_pairs
from wm_ros.state.config import StateModelConfig
from wm_ros.state.features_dinov2 import Dinov2Features
from wm_ros.state.linear import LinearPath
from wm_ros.state.model import StateModel
from wm_ros.training.image_cache import ImageCache, build_cache
from wm_ros.training.state_card import card
from wm_ros.training.task import RunInfo, Task, TrainConfig


class StateTrainConfig(TrainConfig):
    """`config/train/state.yaml`.

    Attributes:
        autoencoder_fraction: share of the steps spent on the autoencoder alone, before it is frozen.
        linear_images: images that the principal components are fitted on, at most.
        validation_fraction: share of episodes held out. validation_images: of them, evenly spaced.
        flow_weight, ssim_weight: of these losses beside L1 + MSE of the deterministic reconstruction.
        photometric: strength of random gain, gamma and colour balance, 0 for none.
        start_from: a bundle to continue. frozen: what stays as it is there; with `tokens` those who read its tokens
            need no new training, with `flow` only the deterministic reconstruction is trained.
        action_images: images that the heads of `action_r2` are fitted on, at most.
        dinov2_folder: pre-trained weights for features of kind dinov2.
    """

    model: StateModelConfig = StateModelConfig()
    autoencoder_fraction: float = 0.3
    linear_images: int = 6000
    validation_fraction: float = 0.05
    validation_images: int = 128
    flow_weight: float = 0.05
    ssim_weight: float = 0.1
    photometric: float = 0.0
    start_from: Path | None = None
    frozen: tuple[Literal["tokens", "flow"], ...] = ()
    action_images: int = 6000
    dinov2_folder: Path | None = None


class Images(Dataset[torch.Tensor]):
    """Chosen images of a cache, (3, H, W) in 0..1."""

    def __init__(self, cache: ImageCache, rows: NDArray[np.int64], photometric: float = 0.0) -> None:
        self.cache, self.rows, self.photometric = cache, rows, photometric

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = to_tensor(np.asarray(self.cache.images[self.rows[index]]))
        if self.photometric:
            gain, gamma, *balance = torch.exp(self.photometric * torch.randn(5)).tolist()
            image = (gain * image**gamma * torch.tensor(balance).view(3, 1, 1)).clamp(0.0, 1.0)
        return image


class StateTask(Task):
    """See `Task`. `modules.model` is what the bundle holds."""

    name: ClassVar[str] = "state"
    config_type: ClassVar[type[TrainConfig]] = StateTrainConfig
    config: StateTrainConfig

    def __init__(self, config: StateTrainConfig, work_dir: Path) -> None:
        super().__init__(config, work_dir)
        self.start = round(config.autoencoder_fraction * config.steps)
        self.model = StateModel(config.model)
        self.modules["model"] = self.model
        self.average = Ema(self.model.autoencoder, 0.99)
        self.modules["autoencoder_average"] = self.average
        self.inherited_heads: dict[str, torch.Tensor] = {}

    def prepare(self, sources: list[str], seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
        size = self.config.model.image_height, self.config.model.image_width
        self.seed = seed
        self.cache = build_cache(sources, *size, self.work_dir / "cache")
        numbers = np.random.default_rng(seed).permutation(np.unique(self.cache.episode))
        held_out = numbers[: max(1, round(self.config.validation_fraction * len(numbers)))]
        is_held_out = np.isin(self.cache.episode, held_out)
        if is_held_out.all():
            raise UserError(f"one episode in {', '.join(sources)} is not enough: one is held out, give at least two")
        self.train_rows, rows = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
        self._initialise()
        train = Images(self.cache, self.train_rows, self.config.photometric)
        return train, Images(self.cache, _evenly(rows, self.config.validation_images))

    def _initialise(self) -> None:
        """Closed-form starts: principal components of images and of their patches; or the weights of a bundle."""
        if self.config.start_from is not None:
            config, tensors = load_bundle(self.config.start_from, "state", StateModelConfig)
            if config.model != self.config.model:
                raise UserError(f"bundle '{self.config.start_from}' has another model config; give the same one")
            load_weights(self.model, tensors, "model", self.config.start_from)
            self.inherited_heads = {k: v for k, v in tensors.items() if k.startswith("baseline.action.")}
        else:
            if isinstance(self.model.features, Dinov2Features) and self.config.dinov2_folder is not None:
                self.model.features.load_folder(self.config.dinov2_folder)
            if self.model.linear is not None:
                self.model.linear.fit(self.cache.images[_evenly(self.train_rows, self.config.linear_images)])
            self.model.autoencoder.fit_linear(self._some(256))
        self.average.average.load_state_dict(self.model.autoencoder.state_dict())
        if "tokens" in self.config.frozen:
            self.model.features.requires_grad_(False)
            self.model.compressor.requires_grad_(False)
        if "flow" in self.config.frozen:
            self.model.decoder.flow.requires_grad_(False)

    def loss(self, batch: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        model = self.model
        if step < self.start:
            loss = autoencoder_loss(model.autoencoder(batch), batch)
            return {"loss": loss, "autoencoder": loss}
        if step == self.start:
            self._begin_tokens()
        model.autoencoder.requires_grad_(False)
        # One image, three views: its latents, its tokens, and the picture that the tokens give back.
        with torch.no_grad():
            latents = model.autoencoder.encode(batch)
        with torch.set_grad_enabled("tokens" not in self.config.frozen):
            tokens = model.encode(batch)
        picture = model.reconstruct(tokens)
        picture_loss = autoencoder_loss(picture, batch)
        similarity = ssim(picture, batch).mean()
        loss = picture_loss + self.config.ssim_weight * (1.0 - similarity)
        parts = {"picture": picture_loss, "ssim": similarity}
        if "flow" not in self.config.frozen:
            parts["flow"] = self._flow_loss(tokens, latents)
            loss = loss + self.config.flow_weight * parts["flow"]
        return {"loss": loss, **parts}

    def _flow_loss(self, tokens: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Of the velocity; some items go without condition, for classifier-free guidance."""
        flow = self.model.decoder.flow
        kept = torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.config.model.decoder.token_dropout
        return velocity_loss(flow.velocity(tokens * kept), flow.residual(latents, tokens))

    def _begin_tokens(self) -> None:
        """The autoencoder is done: keep its average, freeze it, and fit the linear lift of tokens to its latents."""
        self.model.autoencoder.load_state_dict(self.average.average.state_dict())
        if self.model.linear is None or self.config.start_from is not None:
            return
        with torch.no_grad():
            parts = self._some(1536).split(64)
            tokens = torch.cat([self.model.encode(part) for part in parts])
            latents = torch.cat([self.model.autoencoder.encode(part) for part in parts])
        self.model.decoder.flow.fit_lift(tokens, latents)

    def after_step(self, step: int) -> None:
        if step < self.start:
            self.average.update(self.model.autoencoder)

    def validate(self, batches: Any) -> dict[str, float]:
        sums: dict[str, float] = {}
        count = 0
        for batch in batches:
            tokens = self.model.encode(batch)
            pictures = {
                "autoencoder": self.average.average(batch),
                "picture": self.model.reconstruct(tokens),
            }
            if self.model.linear is not None:
                pictures["pca"] = self.model.linear.decode(self.model.linear.encode(batch))
            for name, picture in pictures.items():
                picture = picture.clamp(0.0, 1.0)
                for measure, values in (("psnr", psnr(picture, batch)), ("ssim", ssim(picture, batch))):
                    sums[f"{name}_{measure}"] = sums.get(f"{name}_{measure}", 0.0) + float(values.sum())
            count += len(batch)
        return {name: total / count for name, total in sums.items()}

    def export(self, out: Path, run: RunInfo) -> None:
        tensors = {f"model.{k}": _half(v) for k, v in self.model.state_dict().items()}
        tensors |= self._action_heads() or self.inherited_heads
        if self.model.linear is None:
            tensors |= {f"baseline.pca.{k}": _half(v) for k, v in self._pca().state_dict().items()}
        config = BundleConfig[StateModelConfig](
            capability="state",
            name=out.name if out.name != "bundle" else "state",
            model=self.config.model,
            training=TrainingRecord(
                command=run.command,
                data=run.sources,
                data_licence="; ".join(run.licences),
                seed=run.seed,
                steps=run.steps,
            ),
            metrics={name: round(value, 4) for name, value in run.log.items()},
        )
        save_bundle(out, config, tensors, card(config, tensors))

    def _action_heads(self) -> dict[str, torch.Tensor]:
        """Heads of `action_r2`, for the state and for its baselines, fitted on the training episodes with joints."""
        rows = self._action_rows()
        episode, stamp_s, step_s = self.cache.episode[rows], self.cache.stamp_s[rows], self.config.model.step_s
        pairs = {k: step_pairs(episode, stamp_s, k * step_s) for k in STEPS}
        if any(len(first) < 100 for first, _ in pairs.values()):
            return {}
        pca = self.model.linear or self._pca()
        found: dict[str, list[torch.Tensor]] = {method: [] for method in METHODS}
        for part in np.array_split(rows, max(1, len(rows) // 64)):
            images = to_tensor(np.asarray(self.cache.images[part]))
            with torch.no_grad():
                found["model"].append(self.model.encode(images).flatten(1))
                found["pca"].append(pca.encode(images))
                found["pixels"].append(pooled_pixels(images))
        arm = torch.from_numpy(self.cache.arm_rad[rows]).float()
        tensors: dict[str, torch.Tensor] = {}
        for method, parts in found.items():
            values = torch.cat(parts)
            for k, (first, second) in pairs.items():
                head = fit_head(values[second] - values[first], arm[second] - arm[first], episode[first], self.seed)
                tensors |= {f"baseline.action.{method}.k{k}.{n}": _half(v) for n, v in head.state_dict().items()}
        return tensors

    def _action_rows(self) -> NDArray[np.int64]:
        """Images of whole training episodes that have the arm's joints and are dense enough, drawn at random."""
        rows = self.train_rows[np.isfinite(self.cache.arm_rad[self.train_rows]).all(1)]
        first, _ = step_pairs(self.cache.episode[rows], self.cache.stamp_s[rows], self.config.model.step_s)
        dense = np.random.default_rng(self.seed).permutation(np.unique(self.cache.episode[rows[first]]))
        counts = np.cumsum([np.sum(self.cache.episode == number) for number in dense])
        return rows[np.isin(self.cache.episode[rows], dense[counts <= self.config.action_images])]

    def _pca(self) -> LinearPath:
        """The `pca` baseline of a model without a linear path, with as many numbers as a state has."""
        model = self.config.model
        pca = LinearPath(model.tokens * model.token_width, model.image_height, model.image_width)
        pca.fit(self.cache.images[_evenly(self.train_rows, self.config.linear_images)])
        return pca

    def _some(self, count: int) -> torch.Tensor:
        return to_tensor(np.asarray(self.cache.images[_evenly(self.train_rows, count)]))


def _evenly(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of `rows`, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]


def _half(tensor: torch.Tensor) -> torch.Tensor:
    """Floats at half precision, to keep a bundle small; the int8 basis as it is."""
    return tensor.half() if tensor.is_floating_point() else tensor


TASK = StateTask
