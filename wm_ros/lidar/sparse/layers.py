"""Layers of sparse convolution. Weights have the layout of spconv, (C_out, kz, ky, kx, C_in), in every backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wm_ros.errors import UserError
from wm_ros.lidar.sparse import backends
from wm_ros.lidar.sparse.backends import Geometry
from wm_ros.lidar.sparse.tensor import Sparse, Triple

Affine = tuple[Tensor, Tensor]


class _SparseConv3d(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, kernel: Triple, geometry: Geometry | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, *kernel, channels_in))
        # Kaiming for ReLU over the places that are usually met: about a third of them.
        fan = channels_in * max(1.0, kernel[0] * kernel[1] * kernel[2] / 3)
        nn.init.normal_(self.weight, std=(2.0 / fan) ** 0.5)
        self.geometry = geometry
        self._foreign: dict[str, Any] = {}

    def forward(self, x: Sparse, affine: Affine | None = None) -> Sparse:
        """`affine` (scale, shift), where given: max(0, y · scale + shift) follows, without gradients."""
        backend = backends.backend_for(x.features)
        if backend == "native":
            return backends.native(x, self.weight, self.geometry, affine)
        if backend == "dense":
            y = backends.dense(x, self.weight, self.geometry)
        else:
            y = backends.spconv(x, self.weight, self.geometry, self._foreign)
        return y if affine is None else y.with_features(torch.relu(y.features * affine[0] + affine[1]))


class SubmanifoldConv3d(_SparseConv3d):
    """3 × 3 × 3 without bias; sites stay where they are. Layers on the same sites share one rulebook."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, (3, 3, 3), None)


class StridedConv3d(_SparseConv3d):
    """Strided convolution without bias; sites dilate where the kernel is larger than the stride.

    Args:
        key: under which an `InverseConv3d` finds its way back.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: Triple, stride: Triple, padding: Triple, key: str = ""
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, Geometry(kernel, stride, padding, key))


class InverseConv3d(_SparseConv3d):
    """From the sites behind a strided convolution back to those before it, by the same pairs; without bias."""

    def __init__(self, channels_in: int, channels_out: int, kernel: Triple, key: str) -> None:
        super().__init__(channels_in, channels_out, kernel, None)
        self.key = key

    def forward(self, x: Sparse, affine: Affine | None = None) -> Sparse:
        if self.key not in x.strided:
            raise UserError(f"InverseConv3d: no strided convolution with key '{self.key}' came before")
        found, origin = x.strided[self.key]
        backend = backends.backend_for(x.features)
        if backend == "native":
            by_place = self.weight.flatten(1, 3).permute(1, 2, 0)
            return origin.with_features(backends.native_features(x.features, by_place, found, True, affine))
        if backend == "dense":
            y = origin.with_features(backends.dense_inverse(x, self.weight, found, origin))
        else:
            y = backends.spconv_inverse(x, self.weight, found, origin, self._foreign)
        return y if affine is None else y.with_features(torch.relu(y.features * affine[0] + affine[1]))


class Block(nn.Module):
    """Convolution, BatchNorm1d (eps 1e-3, momentum 0.01), ReLU."""

    def __init__(self, convolution: SubmanifoldConv3d | StridedConv3d | InverseConv3d) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm1d(convolution.weight.shape[0], eps=1e-3, momentum=0.01)

    def forward(self, x: Sparse) -> Sparse:
        if self.training or torch.is_grad_enabled():
            y: Sparse = self.convolution(x)
            return y.with_features(torch.relu(self.norm(y.features)))
        # In evaluation the norm is one factor and one term for each channel: the convolution adds them as it writes.
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        scale = self.norm.weight * torch.rsqrt(variance + self.norm.eps)
        folded: Sparse = self.convolution(x, (scale, self.norm.bias - mean * scale))
        return folded
