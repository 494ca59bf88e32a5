"""Sparse 3D convolution in plain torch: only occupied sites are stored, only existing neighbours are multiplied.

A *rulebook* lists, for each place k of the kernel, which input site meets which output site. It is found by sorting
the sites' keys and searching in them, once per sweep, and shared by all layers of one resolution. A layer is then a
gather, one matrix product per k, and a scatter. The scatter is a sum of bags of rows (`embedding_bag`), which on a CPU
is four times as fast as `index_add`; each bag is summed by one thread in the order of k, so that the result does not
depend on the number of threads.

Weights have the layout of spconv: (C_out, kz, ky, kx, C_in).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Rulebook:
    """Pairs of sites, grouped by place in the kernel.

    Attributes:
        inputs, outputs: (P,) int64 rows; pairs of place k are at starts[k]:starts[k + 1].
        starts: (K + 1) places. centre: the place at which every site meets itself (submanifold; its pairs are
            not listed), else -1.
    """

    inputs: Tensor
    outputs: Tensor
    starts: list[int]
    centre: int = -1
    _bags: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def bags(self, side: Literal["inputs", "outputs"], count: int) -> tuple[Tensor, Tensor]:
        """(order, offsets): the pairs of site i of `side` are order[offsets[i]:offsets[i + 1]]; found once."""
        if side not in self._bags:
            rows = self.inputs if side == "inputs" else self.outputs
            every = torch.arange(count + 1, device=rows.device)
            if rows.device.type == "cpu":  # site and place in one integer: numpy sorts those fastest
                bits = max(len(rows), 1).bit_length()
                packed = np.sort((rows.numpy() << bits) | np.arange(len(rows)))
                order, ranked = torch.from_numpy(packed & ((1 << bits) - 1)), torch.from_numpy(packed >> bits)
            else:
                ranked, order = torch.sort(rows, stable=True)
            self._bags[side] = (order, _search(ranked, every))
        return self._bags[side]


@dataclass(frozen=True)
class Sparse:
    """Features at occupied sites, of a whole batch.

    Attributes:
        features: (N, C). sites: (N, 4) int64, batch, z, y, x in ascending order. shape: grid along z, y, x.
        batch: number of samples. rulebooks: those built so far for this set of sites, by key.
    """

    features: Tensor
    sites: Tensor
    shape: Triple
    batch: int
    rulebooks: dict[Any, Rulebook] = field(default_factory=dict)

    def with_features(self, features: Tensor) -> Sparse:
        return Sparse(features, self.sites, self.shape, self.batch, self.rulebooks)

    def dense(self) -> Tensor:
        """(B, C, Z, Y, X), zeros where there is no site."""
        depth, height, width = self.shape
        b, z, y, x = self.sites.unbind(1)
        row = ((b * depth + z) * height + y) * width + x
        flat = self.features.new_zeros(self.batch * depth * height * width, self.features.shape[1])
        # index_copy differentiates by a plain gather
        filled = flat.index_copy(0, row, self.features)
        return filled.view(self.batch, depth, height, width, -1).permute(0, 4, 1, 2, 3)


def _keys(sites: Tensor, shape: Triple) -> Tensor:
    """One integer per site on a grid with a margin of one cell, so that neighbours never wrap around an edge."""
    depth, height, width = (n + 2 for n in shape)
    b, z, y, x = sites.unbind(1)
    return ((b * depth + z + 1) * height + y + 1) * width + x + 1


def _search(keys: Tensor, wanted: Tensor) -> Tensor:
    """Place of `wanted` in ascending `keys`; numpy is quicker than torch where the queries are sorted too."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.searchsorted(keys.numpy(), wanted.numpy()))
    return torch.searchsorted(keys, wanted)


def submanifold_rulebook(sites: Tensor, shape: Triple) -> Rulebook:
    """3 × 3 × 3, outputs where the inputs are.

    Half of the kernel is searched, the other half is its mirror image; of a row along x only the first place is
    searched, the next ones can only be the sites that follow.
    """
    keys = _keys(sites, shape)
    height, width = shape[1] + 2, shape[2] + 2
    count = len(keys)
    padded = torch.cat([keys, keys.new_full((3,), -1)])
    every = torch.arange(count, device=keys.device)
    found: dict[int, tuple[Tensor, Tensor]] = {13: (every[:0], every[:0])}  # the centre needs no pairs

    def note(place: int, position: Tensor, hit: Tensor) -> None:
        out = hit.nonzero()[:, 0]
        found[place] = (position.index_select(0, out), out)
        found[26 - place] = (out, found[place][0])

    position = every + 1
    note(14, position, padded[1 : count + 1] == keys + 1)
    for dz, dy in ((0, 1), (1, -1), (1, 0), (1, 1)):
        wanted = keys + ((dz * height + dy) * width - 1)
        position = _search(keys, wanted)
        for dx in range(3):
            hit = padded.index_select(0, position) == wanted + dx
            note((dz + 1) * 9 + (dy + 1) * 3 + dx, position, hit)
            position = position + hit
    return _book([found[place] for place in range(27)], centre=13)


def _book(pairs: list[tuple[Tensor, Tensor]], centre: int = -1) -> Rulebook:
    starts = np.cumsum([0] + [len(inputs) for inputs, _ in pairs]).tolist()
    return Rulebook(torch.cat([i for i, _ in pairs]), torch.cat([o for _, o in pairs]), starts, centre)


def strided_rulebook(
    sites: Tensor, shape: Triple, kernel: Triple, stride: Triple, padding: Triple
) -> tuple[Rulebook, Tensor, Triple]:
    """Outputs wherever at least one input falls into the kernel; returns also their sites and the grid's shape."""
    out_shape = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape, padding, kernel, stride, strict=True))
    factors = ((out_shape[1] + 2) * (out_shape[2] + 2), out_shape[2] + 2, 1)
    base = sites[:, 0] * ((out_shape[0] + 2) * factors[0]) + factors[0] + factors[1] + 1
    axes: list[list[tuple[Tensor, Tensor]]] = []  # for each axis and place: is there an output, and its part of the key
    for axis in range(3):
        row = []
        for place in range(kernel[axis]):
            moved = sites[:, axis + 1] + (padding[axis] - place)
            at = torch.div(moved, stride[axis], rounding_mode="floor")
            row.append(((at * stride[axis] == moved) & (at >= 0) & (at < out_shape[axis]), at * factors[axis]))
        axes.append(row)
    pairs: list[tuple[Tensor, Tensor]] = []
    for okay_z, key_z in axes[0]:
        for okay_y, key_y in axes[1]:
            okay_zy, key_zy = okay_z & okay_y, base + key_z + key_y
            for okay_x, key_x in axes[2]:
                rows = (okay_zy & okay_x).nonzero()[:, 0]
                pairs.append((rows, (key_zy + key_x).index_select(0, rows)))
    all_keys = torch.cat([keys for _, keys in pairs])
    # numpy sorts integers several times faster than torch does on a CPU
    keys = torch.from_numpy(np.unique(all_keys.numpy())) if all_keys.device.type == "cpu" else torch.unique(all_keys)
    shape = (out_shape[0], out_shape[1], out_shape[2])
    return _book([(rows, _search(keys, wanted)) for rows, wanted in pairs]), _sites(keys, shape), shape


def _sites(keys: Tensor, shape: Triple) -> Tensor:
    columns = []
    for size in (shape[2] + 2, shape[1] + 2, shape[0] + 2):
        columns.append(keys % size - 1)
        keys = torch.div(keys, size, rounding_mode="floor")
    return torch.stack([keys, *columns[::-1]], 1)


class _Convolve(torch.autograd.Function):
    """Gather, multiply, scatter; `weight` is (K, C_in, C_out), `count` the number of outputs."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, book: Rulebook, count: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.book = book
        gathered = features.index_select(0, book.inputs)
        products = features.new_empty(len(gathered), weight.shape[2])
        for place, begin, end in _places(book):
            torch.mm(gathered[begin:end], weight[place], out=products[begin:end])
        out = _sum_bags(products, book.bags("outputs", count))
        return out.addmm_(features, weight[book.centre]) if book.centre >= 0 else out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        features, weight = ctx.saved_tensors
        book: Rulebook = ctx.book
        gradient = gradients[0].contiguous()
        gathered, parts = features.index_select(0, book.inputs), gradient.index_select(0, book.outputs)
        to_weight = torch.zeros_like(weight)
        products = features.new_empty(len(parts), weight.shape[1])
        for place, begin, end in _places(book):
            to_weight[place] = gathered[begin:end].T @ parts[begin:end]
            torch.mm(parts[begin:end], weight[place].T, out=products[begin:end])
        if book.centre >= 0:
            to_weight[book.centre] = features.T @ gradient
        if not ctx.needs_input_grad[0]:
            return None, to_weight, None, None
        to_features = _sum_bags(products, book.bags("inputs", len(features)))
        if book.centre >= 0:
            to_features.addmm_(gradient, weight[book.centre].T)
        return to_features, to_weight, None, None


def _sum_bags(rows: Tensor, bags: tuple[Tensor, Tensor]) -> Tensor:
    order, offsets = bags
    if not len(order):
        return rows.new_zeros(len(offsets) - 1, rows.shape[1])
    return F.embedding_bag(order, rows, offsets, mode="sum", include_last_offset=True)


def _places(book: Rulebook) -> list[tuple[int, int, int]]:
    """(place, begin, end) of those that have pairs."""
    ranges = zip(book.starts[:-1], book.starts[1:], strict=True)
    return [(place, begin, end) for place, (begin, end) in enumerate(ranges) if end > begin]


class _SparseConv3d(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, kernel: Triple) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, *kernel, channels_in))
        # Kaiming for ReLU over the places that are usually met: about a third of them.
        fan = channels_in * max(1.0, kernel[0] * kernel[1] * kernel[2] / 3)
        nn.init.normal_(self.weight, std=(2.0 / fan) ** 0.5)

    def _by_place(self) -> Tensor:
        return self.weight.flatten(1, 3).permute(1, 2, 0)


class SubmanifoldConv3d(_SparseConv3d):
    """3 × 3 × 3 without bias; sites stay where they are. Layers on the same sites share one rulebook."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, (3, 3, 3))

    def forward(self, x: Sparse) -> Sparse:
        if "submanifold" not in x.rulebooks:
            x.rulebooks["submanifold"] = submanifold_rulebook(x.sites, x.shape)
        out = _Convolve.apply(x.features, self._by_place(), x.rulebooks["submanifold"], len(x.sites))
        return x.with_features(out)


class StridedConv3d(_SparseConv3d):
    """Strided convolution without bias; sites dilate."""

    def __init__(self, channels_in: int, channels_out: int, kernel: Triple, stride: Triple, padding: Triple) -> None:
        super().__init__(channels_in, channels_out, kernel)
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Sparse) -> Sparse:
        book, sites, shape = strided_rulebook(x.sites, x.shape, self.kernel, self.stride, self.padding)
        return Sparse(_Convolve.apply(x.features, self._by_place(), book, len(sites)), sites, shape, x.batch)


class Block(nn.Module):
    """Convolution, BatchNorm1d (eps 1e-3, momentum 0.01), ReLU."""

    def __init__(self, convolution: _SparseConv3d) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm1d(convolution.weight.shape[0], eps=1e-3, momentum=0.01)

    def forward(self, x: Sparse) -> Sparse:
        x = self.convolution(x)
        return x.with_features(torch.relu(self.norm(x.features)))
