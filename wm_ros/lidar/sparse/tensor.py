"""Features at the occupied sites of a grid, and the pairs of sites that a kernel joins."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

Triple = tuple[int, int, int]


@dataclass
class Rulebook:
    """Pairs (input site, output site), place by place of the kernel, ascending in both within a place.

    Attributes:
        inputs, outputs: (P,) int32. starts: (places + 1,) int64. centre: the place at which every site meets itself
            (submanifold; its pairs are not listed), else -1.
        inputs_count, outputs_count: sites on each side.
        bounds: by side, where the pairs of each tile of rows begin; found when first needed.
    """

    inputs: Tensor
    outputs: Tensor
    starts: Tensor
    centre: int
    inputs_count: int
    outputs_count: int
    bounds: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def places(self) -> int:
        return len(self.starts) - 1

    @property
    def pairs(self) -> int:
        """All pairs, those of the centre included: multiply by 2 · C_in · C_out for the work in FLOP."""
        return len(self.inputs) + (self.outputs_count if self.centre >= 0 else 0)


@dataclass(frozen=True)
class Sparse:
    """Features at occupied sites, of a whole batch.

    Attributes:
        features: (N, C). sites: (N, 4) int64, batch, z, y, x in ascending order. shape: grid along z, y, x.
        batch: number of samples.
        rulebooks: those built so far for this set of sites, by key; layers with the same key share one.
        strided: by key of a strided convolution passed on the way: its rulebook and the tensor that it came from.
        foreign: the same tensor in the form of another backend, so that it need not be converted between layers.
    """

    features: Tensor
    sites: Tensor
    shape: Triple
    batch: int
    rulebooks: dict[str, Any] = field(default_factory=dict)
    strided: dict[str, tuple[Any, Sparse]] = field(default_factory=dict)
    foreign: Any = None

    def with_features(self, features: Tensor) -> Sparse:
        """Other features at the same sites."""
        foreign = self.foreign.replace_feature(features) if self.foreign is not None else None
        return replace(self, features=features, foreign=foreign)

    def dense(self) -> Tensor:
        """(B, C, Z, Y, X), zeros where there is no site."""
        depth, height, width = self.shape
        b, z, y, x = self.sites.unbind(1)
        whole = self.features.new_zeros(self.batch, self.features.shape[1], depth * height * width)
        whole[b, :, (z * height + y) * width + x] = self.features  # straight into place: no permuted copy of the grid
        return whole.view(self.batch, -1, depth, height, width)


def grid_after(shape: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Triple:
    """The grid's shape behind a strided convolution."""
    z, y, x = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding, strict=True))
    return z, y, x
