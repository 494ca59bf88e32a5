"""Both stages, the autoencoder and the constants as one module, and its bundle."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_ros.bundle import BundleConfig, TrainingRecord, load_bundle, load_weights, save_bundle
from wm_ros.future.baselines import PhaseTable
from wm_ros.future.config import FutureConfig
from wm_ros.future.frames import FrameModel, Scene
from wm_ros.future.reader import HandReader, hand_error_m
from wm_ros.future.solvers import Solver
from wm_ros.future.trajectory import Normaliser, TrajectoryModel
from wm_ros.nn.autoencoder import ImageAutoencoder

PREFIXES = {
    "trajectory": "model.trajectory",
    "frames": "model.frames",
    "autoencoder": "model.autoencoder",
    "reader": "model.reader",
    "norm": "norm",
    "phase": "baseline.phase",
}
# Constants, those of the linear path too, keep full precision in a bundle.
FULL_PRECISION = re.compile(r"norm\.|phase\.|reader\.(mean|std|error_m)|trajectory\.base.*\.(bias|mean|scale)$")
NEIGHBOURHOOD = 9  # pixels over which `keep_detail` looks for change


class FutureModel(nn.Module):
    """Modules: `trajectory` (stage I), `frames` (stage II), `autoencoder`, `reader` (of hands in frames, may be None),
    `norm`, `phase` (a baseline)."""

    def __init__(self, config: FutureConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = Normaliser(config, config.autoencoder.channels)
        self.trajectory = TrajectoryModel(config, self.norm)
        self.frames = FrameModel(config, self.norm)
        self.autoencoder = ImageAutoencoder(config.autoencoder)
        grid, width = (config.image_height // 8, config.image_width // 8), config.frames.reader_width
        self.reader = HandReader(config.autoencoder.channels, grid, width, config.kinds) if width else None
        self.phase = nn.ModuleList(PhaseTable(config.values) for _ in range(config.kinds))

    @torch.no_grad()
    def paint(self, image: Tensor, scene: Scene, trajectory: Tensor | None, solver: Solver | None = None) -> Tensor:
        """Frames to come (B, K, 3, H, W) in 0..1 from the current image (B, 3, H, W) and its scene.

        Args:
            trajectory: (B, F, V) future bodies; None withholds them (the `no_trajectory` control).
            solver: of the flow; that of the config by default.
        """
        return self.show(image, scene, self.frames.draw(scene, trajectory, solver))

    @torch.no_grad()
    def show(self, image: Tensor, scene: Scene, latents: Tensor) -> Tensor:
        """Latents (B, K, C, h, w) of frames to come as pictures (B, K, 3, H, W) in 0..1."""
        count, horizons = latents.shape[:2]
        decoded = self.autoencoder.decode(torch.cat([scene.latent[:, None], latents], 1).flatten(0, 1))
        decoded = decoded.unflatten(0, (count, horizons + 1))
        scales = torch.tensor(self.config.frames.detail_scales, device=image.device)
        scale = scales[self.norm.kind(scene.states).clamp(max=len(scales) - 1)]
        return keep_detail(image, decoded[:, 0], decoded[:, 1:], scale)

    @torch.no_grad()
    def hand_error_m(self, scene: Scene, shown: Tensor, trajectory: Tensor) -> Tensor | None:
        """How far the hand in frames shown (B, K, 3, H, W) is from where a trajectory (B, F, V) has it.

        Returns:
            (B, K) m, of the wrist that the trajectory moves further, as read by the reader; None for a model without.
        """
        if self.reader is None:
            return None
        latents = self.autoencoder.encode(shown.flatten(0, 1)).unflatten(0, shown.shape[:2])
        due = [step - 1 for step in self.config.frame_steps[: shown.shape[1]]]
        now = scene.body[:, :6]
        return hand_error_m(self.reader.moved(now, scene.latent, latents), now, trajectory[:, due, :6])


def keep_detail(current: Tensor, decoded_current: Tensor, decoded: Tensor, scale: Tensor) -> Tensor:
    """Keep the current image, with the detail that the autoencoder loses, where the picture stays as it is.

    A decoded future frame fades in where it differs from the decoded current one by more than about `scale`
    (brightness 0..1, mean of a neighbourhood). Smaller differences are noise of the estimate more often than motion.

    Args:
        current, decoded_current: (B, 3, H, W). decoded: (B, K, 3, H, W). scale: (B,).

    Returns:
        (B, K, 3, H, W) in 0..1.
    """
    change = (decoded - decoded_current[:, None]).abs().mean(2)
    change = functional.avg_pool2d(change, NEIGHBOURHOOD, stride=1, padding=NEIGHBOURHOOD // 2, count_include_pad=False)
    kept = torch.exp(-((change / scale[:, None, None, None]) ** 2))[:, :, None]
    return (kept * current[:, None] + (1 - kept) * decoded).clamp(0, 1)


def save(path: Path, name: str, model: FutureModel, training: TrainingRecord, card: str) -> None:
    """Write the bundle: networks in half precision, constants in single."""
    tensors: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        module, _, rest = key.partition(".")
        half = value.is_floating_point() and not FULL_PRECISION.match(key)
        tensors[f"{PREFIXES[module]}.{rest}"] = value.half() if half else value.clone()
    config = BundleConfig[FutureConfig](capability="future", name=name, model=model.config, training=training)
    save_bundle(path, config, tensors, card)


def load(path: Path) -> tuple[BundleConfig[FutureConfig], FutureModel]:
    """Read a bundle. Raises BundleError as `wm_ros.bundle.load_bundle`."""
    config, tensors = load_bundle(path, "future", FutureConfig)
    model = FutureModel(config.model).eval().requires_grad_(False)
    for module, prefix in PREFIXES.items():
        if getattr(model, module) is not None:
            load_weights(getattr(model, module), tensors, prefix, path)
    return config, model
