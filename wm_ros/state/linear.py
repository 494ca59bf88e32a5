"""The linear path between image and state, in closed form, from which training starts.

A plain autoencoder of two tokens spends its training on finding the linear subspace. Here that one is given: tokens =
linear numbers + what the compressor adds, image = their linear decode + what the decoder adds.

The numbers are not the principal components. Those hold most of the image, but too little of the motion: a hand that
moves changes few pixels. So they are the components of images in which the means of 16 × 16 patches count more
(`emphasis`), for these are what a motion is read from. And they are mixed by a Hadamard matrix: components differ by
orders of magnitude, the fine ones are mostly noise, and whoever standardises them blows that noise up; mixed, every
number has the same share of each. That is orthogonal, so nothing is lost.

All happens in the span of the principal components and of the patch means, where an image is a short vector v.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from wm_ros.nn.preprocessing import to_tensor
from wm_ros.state.pca import PrincipalComponents

PATCH = 16


class LinearPath(nn.Module):
    """`encode`: (B, 3, H, W) → (B, N) of unit mean square; `decode`: back, not clipped.

    Attributes:
        pca: the principal components, also the baseline.
    """

    cross: torch.Tensor
    rest: torch.Tensor
    encoding: torch.Tensor
    decoding: torch.Tensor

    def __init__(self, numbers: int, height: int, width: int) -> None:
        super().__init__()
        self.pca = PrincipalComponents(numbers, height, width)
        means = 3 * (height // PATCH) * (width // PATCH)
        # patch means in the span: `cross` of them is in the components, the rest is a triangular matrix of its own axes
        self.register_buffer("cross", torch.zeros(means, numbers))
        self.register_buffer("rest", torch.eye(means))
        self.register_buffer("encoding", torch.zeros(numbers, numbers + means))
        self.register_buffer("decoding", torch.zeros(numbers + means, numbers))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return self._vector(images) @ self.encoding.T

    def decode(self, numbers: torch.Tensor) -> torch.Tensor:
        with torch.autocast(numbers.device.type, enabled=False):
            vector = numbers.float() @ self.decoding.T
            components, own = vector.split([self.cross.shape[1], len(self.cross)], dim=1)
            # an axis of its own = patch means without what the components hold of them
            means = torch.linalg.solve_triangular(self.rest, own, upper=False, left=False)
            return self.pca.decode(components - means @ self.cross) + self._spread_out(means)

    @torch.no_grad()
    def fit(self, images: NDArray[np.uint8], emphasis: float, chunk: int = 256) -> None:
        """From images (M, H, W, 3) uint8.

        Args:
            emphasis: how much more patch means count; 0 gives the principal components, mixed.
        """
        # 1. The span: principal components, and the axes that the patch means add to them.
        self.pca.fit(images)
        patterns = self._patterns()
        basis = self.pca.matrix()
        cross = patterns @ basis.T
        rest = torch.linalg.cholesky(patterns @ patterns.T - cross @ cross.T + 1e-6 * torch.eye(len(cross)))
        self.cross.copy_(cross)
        self.rest.copy_(rest)
        # 2. Images in it, and their components where patch means count more.
        parts = [self._vector(to_tensor(images[at : at + chunk])) for at in range(0, len(images), chunk)]
        vectors = torch.cat(parts).double()
        covariance = vectors.T @ vectors / len(vectors)
        means = torch.cat([cross, rest], 1).double()
        weight = torch.eye(len(covariance), dtype=torch.float64) + emphasis * means.T @ means
        values, axes = torch.linalg.eigh(weight @ covariance @ weight)
        numbers = len(self.encoding)
        mixed = axes.flip(1)[:, :numbers] @ hadamard(numbers).double()
        encoding = mixed.T @ weight / (values.flip(0)[:numbers].mean().sqrt())
        # 3. Back by least squares: the linear decode with the smallest error in pixels.
        spread = encoding @ covariance @ encoding.T
        decoding = torch.linalg.solve(spread + 1e-9 * torch.eye(numbers, dtype=torch.float64), encoding @ covariance).T
        self.encoding.copy_(encoding)
        self.decoding.copy_(decoding)

    def _vector(self, images: torch.Tensor) -> torch.Tensor:
        """Coordinates of images in the span, (B, N + means)."""
        components = self.pca.encode(images)
        means = self._means(images - self.pca.mean.view(self.pca.shape)) - components @ self.cross.T
        own = torch.linalg.solve_triangular(self.rest, means.T, upper=False).T
        return torch.cat([components, own], 1)

    def _means(self, images: torch.Tensor) -> torch.Tensor:
        """Patch means, scaled so that this is a projection onto patterns of length 1."""
        return PATCH * functional.avg_pool2d(images, PATCH).flatten(1)

    def _spread_out(self, means: torch.Tensor) -> torch.Tensor:
        """The reverse: images that are flat within patches."""
        _, height, width = self.pca.shape
        grid = means.unflatten(1, (3, height // PATCH, width // PATCH)) / PATCH
        return grid.repeat_interleave(PATCH, -2).repeat_interleave(PATCH, -1)

    def _patterns(self) -> torch.Tensor:
        return self._spread_out(torch.eye(len(self.cross), device=self.cross.device)).flatten(1)


def hadamard(size: int) -> torch.Tensor:
    """The symmetric orthogonal matrix of equal magnitudes, (size, size); the unit matrix if not a power of two."""
    if size & (size - 1):
        return torch.eye(size)
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / size**0.5
