"""What a state is compared with: principal components with as many numbers, and the mean image, out of the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.bundle import load_bundle, load_weights
from wm_ros.nn.preprocessing import to_tensor, to_uint8
from wm_ros.state.config import StateModelConfig
from wm_ros.state.model import StateModel
from wm_ros.state.pca import PrincipalComponents
from wm_ros.state.published import make_model

CHUNK = 32


@dataclass(frozen=True)
class Baselines:
    """Images are (B, H, W, 3) uint8 of the model's size.

    Attributes:
        tensors: everything in the bundle, by dotted name. model: to draw states that no prediction holds.
    """

    config: StateModelConfig
    tensors: dict[str, torch.Tensor]
    model: StateModel
    pca: PrincipalComponents

    @torch.inference_mode()
    def pca_numbers(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """(B, N) components."""
        return torch.cat([self.pca.encode(to_tensor(part)) for part in _parts(images)])

    @torch.inference_mode()
    def pca_decode(self, numbers: torch.Tensor) -> NDArray[np.uint8]:
        """(B, N) components → images."""
        return np.concatenate([to_uint8(self.pca.decode(part)) for part in numbers.split(CHUNK)])

    def pca_images(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images through the components and back."""
        return self.pca_decode(self.pca_numbers(images))

    def mean_image(self) -> NDArray[np.uint8]:
        """The mean of the training images, (H, W, 3)."""
        return to_uint8(self.pca.mean.view(self.pca.shape))

    @torch.inference_mode()
    def render(self, tokens: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Deterministic images of states (B, T, D)."""
        parts = torch.from_numpy(tokens).split(CHUNK)
        return np.concatenate([to_uint8(self.model.reconstruct(part)) for part in parts])

    @torch.inference_mode()
    def draw(self, tokens: NDArray[np.float32], steps: int) -> NDArray[np.uint8]:
        """One sample for each of the states (B, T, D), the same in each run."""
        drawn = [self.model.draw(part, seed=0, steps=steps) for part in torch.from_numpy(tokens).split(CHUNK)]
        return np.concatenate([to_uint8(part) for part in drawn])


def load_baselines(bundle: Path) -> Baselines:
    """Read them from a bundle, once as long as its config stays as it is. Raises BundleError."""
    config = Path(bundle) / "config.json"
    return _load(Path(bundle), config.read_bytes() if config.is_file() else b"")


@lru_cache(maxsize=1)
def _load(bundle: Path, _: bytes) -> Baselines:
    config, tensors = load_bundle(bundle, "state", StateModelConfig)
    model = make_model(config.model)
    load_weights(model, tensors, "model", bundle)
    model.eval().requires_grad_(False)
    if model.linear is not None:
        pca = model.linear.pca
    else:
        sizes = config.model
        pca = PrincipalComponents(sizes.tokens * sizes.token_width, sizes.image_height, sizes.image_width)
        load_weights(pca, tensors, "baseline.pca", bundle)
    return Baselines(config.model, tensors, model, pca)


def _parts(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [images[at : at + CHUNK] for at in range(0, len(images), CHUNK)]
