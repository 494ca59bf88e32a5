"""Both stages, the autoencoder and the constants as one module, and its bundle."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from wm_ros.bundle import BundleConfig, TrainingRecord, load_bundle, load_weights, save_bundle
from wm_ros.future.baselines import PhaseTable
from wm_ros.future.config import FutureConfig
from wm_ros.future.frames import FrameModel, Scene, keep_detail
from wm_ros.future.trajectory import Normaliser, TrajectoryModel
from wm_ros.nn.autoencoder import ImageAutoencoder

PREFIXES = {
    "trajectory": "model.trajectory",
    "frames": "model.frames",
    "autoencoder": "model.autoencoder",
    "norm": "norm",
    "phase": "baseline.phase",
}
# The linear path is stage I's and the `ridge` baseline's; it and the constants keep full precision in a bundle.
FULL_PRECISION = ("trajectory.base", "norm", "phase")


class FutureModel(nn.Module):
    """Modules: `trajectory` (stage I), `frames` (stage II), `autoencoder`, `norm`, `phase` (a baseline)."""

    def __init__(self, config: FutureConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = Normaliser(config, config.autoencoder.channels)
        self.trajectory = TrajectoryModel(config, self.norm)
        self.frames = FrameModel(config, self.norm)
        self.autoencoder = ImageAutoencoder(config.autoencoder)
        self.phase = nn.ModuleList(PhaseTable(config.values) for _ in range(config.kinds))

    @torch.no_grad()
    def paint(self, image: Tensor, scene: Scene, trajectory: Tensor | None) -> Tensor:
        """Frames to come (B, K, 3, H, W) in 0..1 from the current image (B, 3, H, W) and its scene.

        Args:
            trajectory: (B, F, V) future bodies; None withholds them (the `no_trajectory` control).
        """
        return self.compose(image, scene, self.frames.draw(scene, trajectory))

    @torch.no_grad()
    def compose(self, image: Tensor, scene: Scene, latents: Tensor) -> Tensor:
        """Frames (B, K, 3, H, W) in 0..1 of drawn latents (B, K, C, h, w) and the current image."""
        count, horizons = latents.shape[:2]
        decoded = self.autoencoder.decode(torch.cat([scene.latent[:, None], latents], 1).flatten(0, 1))
        decoded = decoded.unflatten(0, (count, horizons + 1))
        return keep_detail(image, decoded[:, 0], decoded[:, 1:], self.config.frames.detail_scale)


def save(path: Path, name: str, model: FutureModel, training: TrainingRecord, card: str) -> None:
    """Write the bundle: networks in half precision, constants in single."""
    tensors: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        module, _, rest = key.partition(".")
        half = value.is_floating_point() and not key.startswith(FULL_PRECISION)
        tensors[f"{PREFIXES[module]}.{rest}"] = value.half() if half else value.clone()
    config = BundleConfig[FutureConfig](capability="future", name=name, model=model.config, training=training)
    save_bundle(path, config, tensors, card)


def load(path: Path) -> tuple[BundleConfig[FutureConfig], FutureModel]:
    """Read a bundle. Raises BundleError as `wm_ros.bundle.load_bundle`."""
    config, tensors = load_bundle(path, "future", FutureConfig)
    model = FutureModel(config.model).eval().requires_grad_(False)
    for module, prefix in PREFIXES.items():
        load_weights(getattr(model, module), tensors, prefix, path)
    return config, model
