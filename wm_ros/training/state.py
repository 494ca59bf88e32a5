"""Training of `state`: tokens, the deterministic decoder, the image autoencoder and the flow, all at once.

Only images are needed. Where they follow each other, the decode of the mean of two states is held to the image between
them, and the change of state to the change of the image. Where a recording also has joints, the heads of `action_r2`
are fitted on it at the end, held-out episodes included: nothing is chosen by them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from wm_ros.bundle import BundleConfig, checksum, half_precision, load_bundle, load_weights, save_bundle
from wm_ros.data.sources import weights
from wm_ros.errors import UserError
from wm_ros.nn.autoencoder import autoencoder_loss
from wm_ros.nn.flow import velocity_loss
from wm_ros.nn.image_quality import psnr, ssim
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.state.action import pooled_pixels
from wm_ros.state.config import StateModelConfig
from wm_ros.state.familiarity import Familiarity
from wm_ros.state.model import StateModel
from wm_ros.state.motion import difference, interpolate
from wm_ros.state.pca import PrincipalComponents
from wm_ros.state.published import load_folders, with_folders
from wm_ros.training.clips import Clips, evenly
from wm_ros.training.image_cache import build_cache
from wm_ros.training.state_card import card
from wm_ros.training.state_heads import action_heads, dense_rows
from wm_ros.training.task import RunInfo, Task, TrainConfig

SSIM_EVERY = 3  # similarity is dear: on every third picture only
ENCODER = ("model.features.", "model.compressor.", "model.linear.")  # what makes the tokens
FAMILIAR_IMAGES = 800  # that the limits of the familiar are fitted on
POOLED_SCALE = 10.0  # changes of pooled pixels are about a tenth


class StateTrainConfig(TrainConfig):
    """`config/train/state.yaml`.

    Attributes:
        gaps: images between the first and the middle one of a clip, drawn from these. clip_s: longest clip.
        between_weight: of the picture of the mean state against the middle image.
        motion_weight: of the change of the image, pooled to 8 × 6 fields, as a linear function of the change of state.
        flow_weight, ssim_weight: of these losses beside L1 + MSE of the pictures.
        flow_after: share of the steps before the flow begins, for which tokens and autoencoder should have settled.
        emphasis: how much more the means of patches count in the linear path than in principal components.
        photometric: strength of random gain, gamma and colour balance, 0 for none, the same within a clip.
        shift_px: random shift of a clip, at most.
        frozen_tokens: with --start-from: tokens stay, so that those who read them need no new training.
        pca_images: that the baseline is fitted on, at most. action_images: that the heads of `action_r2` are fitted
            on, at most, of each source.
        validation_fraction: share of episodes held out. validation_images: of them, evenly spaced.
        dinov2_folder, diffusion_folder: pre-trained weights for features of that kind.
    """

    model: StateModelConfig = StateModelConfig()
    gaps: tuple[int, ...] = (1, 2, 4, 8)
    clip_s: float = 1.4
    between_weight: float = 1.0
    motion_weight: float = 1.0
    flow_weight: float = 0.1
    ssim_weight: float = 0.1
    flow_after: float = 0.5
    emphasis: float = 1.0
    photometric: float = 0.06
    shift_px: int = 1
    frozen_tokens: bool = False
    pca_images: int = 6000
    action_images: int = 30000
    validation_fraction: float = 0.05
    validation_images: int = 128
    dinov2_folder: Path | None = None
    diffusion_folder: Path | None = None


class StateTask(Task):
    """See `Task`. `modules.model` is what the bundle holds."""

    name: ClassVar[str] = "state"
    variants: ClassVar[tuple[str, ...]] = ("paper",)
    config_type: ClassVar[type[TrainConfig]] = StateTrainConfig
    config: StateTrainConfig

    def __init__(self, config: StateTrainConfig, work_dir: Path) -> None:
        self.folders = config.dinov2_folder, config.diffusion_folder, None
        size = with_folders(config.model, *self.folders)
        super().__init__(config.model_copy(update={"model": size}), work_dir)
        self.flow_start = round(config.flow_after * config.steps)
        self.model = StateModel(size)
        self.motion = nn.Linear(size.tokens * size.token_width, pooled_pixels(torch.zeros(1, 3, 8, 8)).shape[1])
        self.pca = PrincipalComponents(size.tokens * size.token_width, size.image_height, size.image_width)
        if self.model.linear is not None:
            self.pca = self.model.linear.pca
        self.modules.update({"model": self.model, "motion": self.motion, "pca": self.pca})

    def prepare(self, sources: list[str], seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
        config, size = self.config, (self.config.model.image_height, self.config.model.image_width)
        self.cache = build_cache(sources, *size, self.work_dir / "cache")
        numbers = np.random.default_rng(seed).permutation(np.unique(self.cache.episode))
        held_out = numbers[: max(1, round(config.validation_fraction * len(numbers)))]
        is_held_out = np.isin(self.cache.episode, held_out)
        if is_held_out.all():
            raise UserError(f"one episode in {', '.join(sources)} is not enough: one is held out, give at least two")
        self.train_rows, self.held_out_rows = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
        self._initialise(weights(sources))
        train = Clips(self.cache, self.train_rows, config.gaps, config.clip_s, weights(sources))
        train.photometric, train.shift_px = config.photometric, config.shift_px
        validation = evenly(self.held_out_rows, config.validation_images)
        return train, Clips(self.cache, validation, config.gaps[-1:], config.clip_s)

    def _initialise(self, shares: list[float] | None) -> None:
        """Closed-form starts: the linear path, and principal components of patches."""
        load_folders(self.model, *self.folders)
        images = self.cache.images[self._as_drawn(shares)]
        if self.model.linear is None:
            self.pca.fit(images)
        else:
            self.model.linear.fit(images, self.config.emphasis)
        self.model.autoencoder.fit_linear(to_tensor(self.cache.images[evenly(self.train_rows, 256)]))

    def _as_drawn(self, shares: list[float] | None) -> NDArray[np.int64]:
        """Training images for the principal components, from each source as often as training draws them."""
        source = self.cache.source[self.train_rows]
        counts = np.bincount(source).astype(float) if shares is None else np.asarray(shares)
        wanted = np.floor(self.config.pca_images * counts / counts.sum()).astype(int)
        return np.concatenate([evenly(self.train_rows[source == n], count) for n, count in enumerate(wanted)])

    def start_from(self, bundle: Path) -> None:
        config, tensors = load_bundle(bundle, "state", StateModelConfig)
        if config.model != self.config.model:
            raise UserError(f"bundle '{bundle}' has another model config; give the same one")
        load_weights(self.model, tensors, "model", bundle)
        if self.model.linear is None:
            load_weights(self.pca, tensors, "baseline.pca", bundle)
        if self.config.frozen_tokens:
            self.model.features.requires_grad_(False)
            self.model.compressor.requires_grad_(False)

    def loss(self, batch: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        model, config = self.model, self.config
        # 1. States of the three images of each clip, and the one half way between the first and the last.
        first, middle, last = batch.unbind(1)
        images = torch.cat([first, middle, last])
        tokens = model.encode(images).float()
        before, _, after = tokens.chunk(3)
        losses: dict[str, torch.Tensor] = {}
        # 2. The published loss: the flow from noise to latents, given the tokens.
        losses["autoencoder"], flow = self._flow_loss(first, before, step)
        if flow is not None:
            losses["flow"] = config.flow_weight * flow
        # 3. Pictures of all states, and of the mean state against the image between.
        if model.linear is not None:
            pictures = model.reconstruct(torch.cat([tokens, interpolate(before, after, 0.5)])).float()
            losses["picture"] = self._picture_loss(pictures[: len(images)], images)
            losses["between"] = config.between_weight / 3 * self._picture_loss(pictures[len(images) :], middle)
        # 4. The change of state tells the change of the image.
        change = self.motion(difference(before, after).flatten(1)).float()
        target = POOLED_SCALE * difference(pooled_pixels(first), pooled_pixels(last))
        losses["motion"] = config.motion_weight * functional.mse_loss(change, target)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _picture_loss(self, pictures: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, enabled=False):
            similarity = ssim(pictures[::SSIM_EVERY].contiguous(), images[::SSIM_EVERY].contiguous()).mean()
            return autoencoder_loss(pictures, images) + self.config.ssim_weight * (1.0 - similarity)

    def _flow_loss(
        self, images: torch.Tensor, tokens: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of the autoencoder, and of the velocity (none before `flow_start`); some items go without condition.

        Beside a mean image the flow learns what that leaves, and the tokens learn from the pictures alone.
        """
        model = self.model
        latents = model.autoencoder.encode(images)
        autoencoder = autoencoder_loss(model.autoencoder.decode(latents).float(), images)
        if step < self.flow_start:
            return autoencoder, None
        with torch.no_grad():
            wanted = latents.float() - model.centre(tokens).float()
            model.flow.spread.lerp_(wanted.std(), 0.02 if step > self.flow_start else 1.0)
        tokens = tokens if model.linear is None else tokens.detach()
        kept = torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.config.model.decoder.token_dropout
        return autoencoder, velocity_loss(model.flow.velocity(tokens * kept), wanted / model.flow.spread)

    def validate(self, batches: Any) -> dict[str, float]:
        sums: dict[str, float] = {}
        count = 0
        for batch in batches:
            first, middle, last = batch.unbind(1)
            before, tokens, after = (self.model.encode(part) for part in (first, middle, last))
            pictures = {
                "picture": self.model.reconstruct(tokens),
                "between": self.model.reconstruct(interpolate(before, after, 0.5)),
                "first": self.model.reconstruct(before),
                "autoencoder": self.model.autoencoder(middle),
                "pca": self.pca.decode(self.pca.encode(middle)),
            }
            for name, picture in pictures.items():
                picture = picture.clamp(0.0, 1.0)
                for measure, values in (("psnr", psnr(picture, middle)), ("ssim", ssim(picture, middle))):
                    sums[f"{name}_{measure}"] = sums.get(f"{name}_{measure}", 0.0) + float(values.sum())
            count += len(batch)
        return {name: total / count for name, total in sums.items()}

    def export(self, out: Path, run: RunInfo) -> None:
        tensors = half_precision("model", self.model)
        if self.model.linear is None:
            tensors |= half_precision("baseline.pca", self.pca)
        tensors |= self._familiarity().tensors()
        rows = dense_rows(self.cache, self.config.model.step_s, self.config.action_images, run.seed)
        tensors |= action_heads(self.cache, rows, self.model, self.pca, run.seed)
        config = BundleConfig[StateModelConfig](
            capability="state",
            name=out.name if out.name != "bundle" else "state",
            model=self.config.model,
            training=run.record(),
            tokens_sha256=checksum({k: v for k, v in tensors.items() if k.startswith(ENCODER)}),
            metrics={name: round(value, 4) for name, value in run.log.items()},
        )
        save_bundle(out, config, tensors, card(config, tensors))

    @torch.no_grad()
    def _familiarity(self) -> Familiarity:
        """What token norm and reconstruction error are on held-out episodes."""
        rms, quality = [], []
        for rows in np.array_split(evenly(self.held_out_rows, FAMILIAR_IMAGES), 8):
            images = to_tensor(self.cache.images[rows]).to(self.pca.mean.device)
            tokens = self.model.encode(images)
            rms.append(tokens.square().mean((1, 2)).sqrt())
            quality.append(psnr(self.model.reconstruct(tokens).clamp(0.0, 1.0), images))
        return Familiarity.fit(torch.cat(rms).cpu(), torch.cat(quality).cpu())


TASK = StateTask
