"""How good the frames of `future` are on held-out windows, and what is set by that."""

from __future__ import annotations

import torch
from torch import Tensor

from wm_ros.future.config import FramesConfig
from wm_ros.future.frames import Scene
from wm_ros.future.model import FutureModel
from wm_ros.future.reader import hand_error_m
from wm_ros.nn.image_quality import psnr
from wm_ros.training.future_calibration import state_only
from wm_ros.training.future_fit import of_kind
from wm_ros.training.future_windows import Item, batch_of

DETAIL_SCALES = (0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.16)


def painted_psnr(model: FutureModel, batch: Item, trajectory: Tensor) -> dict[str, Tensor]:
    """PSNR (B,) of painted frames over all horizons: on the forecast, on the truth, without, and of the last frame."""
    scene = Scene.of(batch_of(batch), model.autoencoder.encode(batch["image"]))
    truth, count = batch["images"], len(batch["image"])

    def quality(images: Tensor) -> Tensor:
        return psnr(images.flatten(0, 1), truth.flatten(0, 1)).view(count, -1).mean(1)

    return {
        "psnr": quality(model.paint(batch["image"], scene, trajectory)),
        "psnr_true": quality(model.paint(batch["image"], scene, batch["future"])),
        "psnr_none": quality(model.paint(batch["image"], scene, None)),
        "psnr_last": quality(batch["image"][:, None].expand_as(truth)),
    }


@torch.no_grad()
def judge_reader(model: FutureModel, held: Item) -> dict[str, float]:
    """Set what the reader errs by in frames that were seen, on held-out windows; returns it in mm, by name."""
    reader, due = model.reader, [step - 1 for step in model.config.frame_steps]
    if reader is None:
        return {}
    now, true = held["body"][:, -1, :6], held["future"][:, due, :6]
    error_m = hand_error_m(reader.moved(now, held["latent"], held["latents"]), now, true)
    for kind in range(model.config.kinds):
        own = held["there"][:, due] & (held["source"] == kind)[:, None]
        if own.any():
            reader.error_m[kind] = error_m[own].mean()
    return {f"reader_error_mm_{kind}": 1e3 * float(error) for kind, error in enumerate(reader.error_m)}


@torch.no_grad()
def fitted_detail(model: FutureModel, few: Item) -> FramesConfig:
    """With the scales of `keep_detail` that give the best frames on held-out windows, for each kind of recording."""
    config, frames, chosen = model.config, model.config.frames, []
    for kind in range(config.kinds):
        own = of_kind(few, kind)
        found = {}
        for scale in DETAIL_SCALES if len(own["body"]) else ():
            model.config = config.model_copy(update={"frames": frames.model_copy(update={"detail_scales": (scale,)})})
            found[scale] = float(painted_psnr(model, own, model.trajectory(state_only(own)).body)["psnr"].mean())
        chosen.append(max(found, key=lambda scale: found[scale]) if found else frames.detail_scales[0])
    model.config = config
    return frames.model_copy(update={"detail_scales": tuple(chosen)})
