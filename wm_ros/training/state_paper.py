"""Training of the published state model (StaMo, arXiv 2510.05057) on images alone, from folders of released models.

One loss: the velocity of a rectified flow over latents of Stable Diffusion 3, given the tokens. The compressor, the two
linear maps behind it and the whole transformer learn; features and autoencoder stay as released.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from wm_ros.bundle import BundleConfig, half_precision, load_bundle, load_weights, save_bundle
from wm_ros.data.sources import weights
from wm_ros.errors import UserError
from wm_ros.nn.flow import velocity_loss
from wm_ros.nn.image_quality import psnr, ssim
from wm_ros.state.config import StateModelConfig
from wm_ros.state.pca import PrincipalComponents
from wm_ros.state.published import PublishedModel, load_folders, with_folders
from wm_ros.state.sd3 import keep_prefix
from wm_ros.training.clips import Clips, evenly
from wm_ros.training.image_cache import build_cache
from wm_ros.training.state_heads import action_heads, dense_rows
from wm_ros.training.task import RunInfo, Task, TrainConfig

# of the released weights that a bundle holds, by kind of features
LICENCES = {"dinov2": "Apache-2.0 (DINOv2)", "diffusion": "CreativeML OpenRAIL (Stable Diffusion)"}
SD3_LICENCE = "Stability AI Community License (Stable Diffusion 3)"


class PaperTrainConfig(TrainConfig):
    """`config/train/state_paper.yaml`.

    Attributes:
        model: sizes that are left out are those of the folders; those given must agree with them.
        dinov2_folder, diffusion_folder: released weights for features of that kind. sd3_folder: with `transformer/` and
            `vae/`. Nothing is downloaded.
        gradient_checkpointing: compute the transformer's activations a second time instead of keeping them.
        validation_fraction: share of episodes held out. validation_images: of them, evenly spaced.
        pca_images: that the baseline of `wm eval` is fitted on, at most; 0 for none. It needs more images than a state
            has numbers.
        action_images: that the heads of `action_r2` are fitted on with it, at most, of each source with joints.
    """

    model: StateModelConfig = StateModelConfig()
    sd3_folder: Path
    dinov2_folder: Path | None = None
    diffusion_folder: Path | None = None
    gradient_checkpointing: bool = True
    validation_fraction: float = 0.05
    validation_images: int = 16
    pca_images: int = 0
    action_images: int = 8000


class PaperTask(Task):
    """See `Task`. `modules.model` is what the bundle holds."""

    name: ClassVar[str] = "state"
    config_type: ClassVar[type[TrainConfig]] = PaperTrainConfig
    config: PaperTrainConfig

    def __init__(self, config: PaperTrainConfig, work_dir: Path) -> None:
        self.folders = config.dinov2_folder, config.diffusion_folder, config.sd3_folder
        super().__init__(config.model_copy(update={"model": with_folders(config.model, *self.folders)}), work_dir)
        self.model = PublishedModel(self.config.model)
        self.modules["model"] = self.model
        self.pca: PrincipalComponents | None = None

    def prepare(self, sources: list[str], seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
        config, size = self.config, (self.config.model.image_height, self.config.model.image_width)
        load_folders(self.model, *self.folders)
        if config.gradient_checkpointing:
            self.model.decoder.transformer.enable_gradient_checkpointing()
        cache = self.cache = build_cache(sources, *size, self.work_dir / "cache")
        numbers = np.random.default_rng(seed).permutation(np.unique(cache.episode))
        held_out = np.isin(cache.episode, numbers[: max(1, round(config.validation_fraction * len(numbers)))])
        if held_out.all():
            raise UserError(f"one episode in {', '.join(sources)} is not enough: one is held out, give at least two")
        train, rest = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        if config.pca_images:
            self.pca = PrincipalComponents(config.model.tokens * config.model.token_width, *size)
            if min(len(train), config.pca_images) <= len(self.pca.basis):
                raise UserError(
                    f"pca_images = {config.pca_images} of {len(train)}: the {len(self.pca.basis)} numbers of a state "
                    "need more images than that; give more, or set it to 0"
                )
            self.pca.fit(cache.images[evenly(train, config.pca_images)])
        # clips of one image, three times
        chosen = evenly(rest, config.validation_images)
        return Clips(cache, train, (0,), 0.0, weights(sources)), Clips(cache, chosen, (0,), 0.0)

    def start_from(self, bundle: Path) -> None:
        config, tensors = load_bundle(bundle, "state", StateModelConfig)
        if config.model != self.config.model:
            raise UserError(f"bundle '{bundle}' has another model config; give the same one, and the same folders")
        load_weights(self.model, tensors, "model", bundle)

    def loss(self, batch: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        images, sizes = batch[:, 0], self.config.model
        with torch.no_grad():
            latents = self.model.vae.encode(images).float()
        tokens = self.model.encode(images)
        nested = self.model.sd3.nested_dropout
        kept = keep_prefix(len(tokens), sizes.tokens, sizes.decoder.token_dropout, nested).to(tokens.device)
        return {"loss": velocity_loss(self.model.decoder.velocity(tokens, kept), latents)}

    def validate(self, batches: Any) -> dict[str, float]:
        sums: dict[str, float] = {}
        count = 0
        for batch in batches:
            images = batch[:, 0]
            tokens, latents = self.model.encode(images), self.model.vae.encode(images)
            # the same noise and times at every validation, so that the curve shows the model
            generator = torch.Generator().manual_seed(count)
            flow = velocity_loss(self.model.decoder.velocity(tokens), latents, generator)
            sums["flow"] = sums.get("flow", 0.0) + float(flow) * len(images)
            pictures = {"picture": self.model.reconstruct(tokens), "autoencoder": self.model.vae.decode(latents)}
            for name, picture in pictures.items():
                picture = picture.clamp(0.0, 1.0)
                for measure, values in (("psnr", psnr(picture, images)), ("ssim", ssim(picture, images))):
                    sums[f"{name}_{measure}"] = sums.get(f"{name}_{measure}", 0.0) + float(values.sum())
            count += len(images)
        return {name: total / count for name, total in sums.items()}

    def export(self, out: Path, run: RunInfo) -> None:
        tensors = half_precision("model", self.model)
        if self.pca is not None:
            tensors |= half_precision("baseline.pca", self.pca)
            size, most = self.config.model, self.config.action_images
            rows = dense_rows(self.cache, size.step_s, most, run.seed)
            tensors |= action_heads(self.cache, rows, self.model, self.pca, run.seed)
        kind = self.config.model.features.kind
        config = BundleConfig[StateModelConfig](
            capability="state",
            name=out.name if out.name != "bundle" else "state",
            model=self.config.model,
            training=run.record(*([LICENCES[kind]] if kind in LICENCES else []), SD3_LICENCE),
            metrics={name: round(value, 4) for name, value in run.log.items()},
        )
        save_bundle(out, config, tensors, _card(config))


def _card(config: BundleConfig[StateModelConfig]) -> str:
    model, training, metrics = config.model, config.training, config.metrics
    sources = "\n".join(f"- `{source}`" for source in training.data)
    rows = "\n".join(
        f"| {label} | {metrics[name + '_psnr']:.2f} | {metrics[name + '_ssim']:.3f} |"
        for name, label in (("picture", "the tokens"), ("autoencoder", "the autoencoder (not the tokens)"))
        if f"{name}_psnr" in metrics
    )
    return f"""# {config.name}

A camera image ({model.image_width} × {model.image_height} after resizing by area) becomes {model.tokens} tokens of
{model.token_width} numbers; Stable Diffusion 3 draws the image back from them and from noise. The published model of
StaMo (arXiv 2510.05057): frozen features ({model.features.kind}), trained compressor, trained transformer, frozen
autoencoder.

## Data and licences

{sources}

Licences of data and of the released weights inside: {training.data_licence}. Trained with seed {training.seed} for
{training.steps} steps by

    {training.command}

## Held-out episodes of the same sources

One draw of each image, always from the same noise.

| reconstruction from | PSNR dB | SSIM |
|---|---|---|
{rows}

## Limits

- Draws are plausible images, not means: another noise gives another image.
- Heads of `action_r2` and the PCA baseline come with `pca_images` only.
"""


TASK = PaperTask
