"""Principal components of the training images with as many numbers as a state: the baseline `pca`.

The basis is stored as int8 with one scale per component.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class PrincipalComponents(nn.Module):
    """`encode`: (B, 3, H, W) → (B, N); `decode`: (B, N) → (B, 3, H, W), not clipped."""

    mean: torch.Tensor
    basis: torch.Tensor
    basis_scale: torch.Tensor

    def __init__(self, components: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = (3, height, width)
        pixels = 3 * height * width
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("basis", torch.zeros(components, pixels, dtype=torch.int8))
        self.register_buffer("basis_scale", torch.ones(components))
        self._floats: torch.Tensor | None = None

    def matrix(self) -> torch.Tensor:
        """The basis as floats, (N, 3·H·W), rows of length 1; made once per device."""
        if self._floats is None or self._floats.device != self.basis.device:
            self._floats = self.basis.float() * self.basis_scale[:, None]
        return self._floats

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return (images.flatten(1) - self.mean) @ self.matrix().T

    def decode(self, numbers: torch.Tensor) -> torch.Tensor:
        flat = numbers @ self.matrix() + self.mean
        return flat.unflatten(1, self.shape)

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        self._floats = None
        super()._load_from_state_dict(*args, **kwargs)

    @torch.no_grad()
    def fit(self, images: NDArray[np.uint8], chunk: int = 4096) -> None:
        """Principal components of `images` (M, H, W, 3) uint8, by the eigenvectors of their Gram matrix."""
        count, components = len(images), len(self.basis)
        if count <= components:
            raise ValueError(f"{components} components need more than {count} images")
        flat = torch.from_numpy(images.transpose(0, 3, 1, 2).reshape(count, -1).copy())
        mean = torch.zeros_like(self.mean)
        for rows in flat.split(512):
            mean += rows.float().sum(0) / (255.0 * count)
        gram = torch.zeros(count, count)
        for first in range(0, flat.shape[1], chunk):
            part = flat[:, first : first + chunk].float() / 255.0 - mean[first : first + chunk]
            gram += part @ part.T
        _, vectors = torch.linalg.eigh(gram)
        keep = vectors.flip(1)[:, :components].T
        basis = torch.zeros(components, flat.shape[1])
        for first in range(0, flat.shape[1], chunk):
            part = flat[:, first : first + chunk].float() / 255.0 - mean[first : first + chunk]
            basis[:, first : first + chunk] = keep @ part
        basis /= basis.norm(dim=1, keepdim=True).clamp_min(1e-12)
        step = basis.abs().amax(1).clamp_min(1e-12) / 127.0
        self.mean.copy_(mean)
        self.basis.copy_((basis / step[:, None]).round().to(torch.int8))
        self.basis_scale.copy_(step)
        self._floats = None
