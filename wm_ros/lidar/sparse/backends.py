"""One convolution, three ways: `native` (CPU, compiled here), `dense` (a reference for tests) and `spconv`.

Weights and their layout are the same in all, so a checkpoint moves between them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wm_ros.errors import UserError
from wm_ros.lidar.sparse import library
from wm_ros.lidar.sparse.tensor import Rulebook, Sparse, Triple, grid_after

BACKENDS = ("auto", "native", "dense", "spconv")
ARITHMETICS = ("float32", "bfloat16")
log = logging.getLogger("wm_ros.lidar.sparse")


@dataclass(frozen=True)
class Geometry:
    """A strided kernel; None in its place is the submanifold 3 × 3 × 3. `key`: by which an inverse finds it."""

    kernel: Triple
    stride: Triple
    padding: Triple
    key: str = ""


@dataclass
class _Choice:
    backend: str = "auto"
    arithmetic: str = "float32"
    said: str = ""


_choice = _Choice()


def choose(backend: str = "auto", arithmetic: str = "float32") -> None:
    """Set the backend and the arithmetic of this process.

    `auto` is `spconv` for tensors on a GPU and `native` on a CPU. `bfloat16` rounds inputs and weights of `native` in
    inference (sums stay float32); training is always float32 there.

    Raises:
        UserError: an unknown name, spconv without its package, bfloat16 on a CPU that has none.
    """
    if backend not in BACKENDS or arithmetic not in ARITHMETICS:
        raise UserError(
            f"sparse backend '{backend}', arithmetic '{arithmetic}': choose one of "
            f"{', '.join(BACKENDS)} and of {', '.join(ARITHMETICS)}"
        )
    if backend == "spconv":
        _spconv()
    if arithmetic == "bfloat16" and not library.bfloat16_kind():
        raise UserError("sparse arithmetic 'bfloat16': this CPU has no instructions for it; choose float32")
    _choice.backend, _choice.arithmetic, _choice.said = backend, arithmetic, ""


def backend_for(features: Tensor) -> str:
    """The backend that a layer uses for these features; the first time it is logged."""
    name = _choice.backend
    if name == "auto":
        name = "spconv" if features.device.type == "cuda" else "native"
    if _choice.said != name:
        exact = f", bfloat16 by {library.BFLOAT16[library.bfloat16_kind()]}" if _bfloat16() else ""
        log.info("sparse convolution: %s on %s%s", name, features.device, exact)
        _choice.said = name
    return name


def _bfloat16() -> bool:
    return _choice.arithmetic == "bfloat16"


# ------------------------------------------------------------------------- native


class _Native(torch.autograd.Function):
    """`weight`: (places, C_in, C_out)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, book: Rulebook, backwards: bool) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.book, ctx.backwards = book, backwards
        return library.convolve(features, weight, book, backwards=backwards)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        features, weight = ctx.saved_tensors
        gradient = gradients[0].float()
        to_weight = library.weight_gradient(features.float(), gradient, ctx.book, backwards=ctx.backwards)
        to_features = None
        if ctx.needs_input_grad[0]:
            turned = weight.float().transpose(1, 2)
            to_features = library.convolve(gradient, turned, ctx.book, backwards=not ctx.backwards)
        return to_features, to_weight, None, None


def native(x: Sparse, weight: Tensor, geometry: Geometry | None, affine: tuple[Tensor, Tensor] | None) -> Sparse:
    """`weight`: (C_out, kz, ky, kx, C_in). With `affine` scale, shift and ReLU follow, without gradients."""
    out = _native_target(x, geometry)
    by_place = weight.flatten(1, 3).permute(1, 2, 0)
    book: Rulebook = out.rulebooks.pop("made") if geometry else x.rulebooks["submanifold"]
    return out.with_features(native_features(x.features, by_place, book, False, affine))


def native_features(
    features: Tensor, weight: Tensor, book: Rulebook, backwards: bool, affine: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Features behind a convolution, with gradients where they are wanted."""
    if features.device.type != "cpu":
        raise UserError(f"sparse backend 'native' is for the CPU, the features are on {features.device}: use spconv")
    with torch.autocast("cpu", enabled=False):
        features, weight = features.float(), weight.float()
        if affine is not None or not torch.is_grad_enabled():
            return library.convolve(features, weight, book, backwards=backwards, bfloat16=_bfloat16(), affine=affine)
        return _Native.apply(features, weight.contiguous(), book, backwards)


def _native_target(x: Sparse, geometry: Geometry | None) -> Sparse:
    """The sites behind a layer; its rulebook is found once for all layers on the same sites."""
    if geometry is None:
        if "submanifold" not in x.rulebooks:
            x.rulebooks["submanifold"] = library.submanifold(x.sites, x.shape)
        return x
    book, sites, shape = library.strided(x.sites, x.shape, x.batch, geometry.kernel, geometry.stride, geometry.padding)
    passed = x.strided | ({geometry.key: (book, x)} if geometry.key else {})
    return Sparse(x.features[:0], sites, shape, x.batch, {"made": book}, passed)


# ------------------------------------------------------------------------- dense


def dense(x: Sparse, weight: Tensor, geometry: Geometry | None) -> Sparse:
    """The same by a dense convolution, for small grids: slow, and plainly right."""
    kernel = weight.permute(0, 4, 1, 2, 3)
    if geometry is None:
        return x.with_features(_at(F.conv3d(x.dense(), kernel, padding=1), x.sites))
    stride, padding = geometry.stride, geometry.padding
    whole = F.conv3d(x.dense(), kernel, stride=stride, padding=padding)
    with torch.no_grad():  # outputs are where a kernel of ones meets anything
        ones = x.with_features(torch.ones_like(x.features[:, :1])).dense()
        met = F.conv3d(ones, torch.ones_like(kernel[:1, :1]), stride=stride, padding=padding)[:, 0] > 0
    sites = met.nonzero()
    shape = grid_after(x.shape, geometry.kernel, stride, padding)
    passed = x.strided | ({geometry.key: (geometry, x)} if geometry.key else {})
    return Sparse(_at(whole, sites), sites, shape, x.batch, {}, passed)


def dense_inverse(x: Sparse, weight: Tensor, geometry: Geometry, origin: Sparse) -> Tensor:
    """Features at the sites of `origin`: the transposed dense convolution there."""
    kernel = weight.permute(4, 0, 1, 2, 3)
    behind = [
        (n - 1) * s - 2 * p + k
        for n, k, s, p in zip(x.shape, geometry.kernel, geometry.stride, geometry.padding, strict=True)
    ]
    missing = [n - m for n, m in zip(origin.shape, behind, strict=True)]  # cells at the end that stride left out
    back = F.conv_transpose3d(x.dense(), kernel, None, geometry.stride, geometry.padding, output_padding=missing)
    return _at(back, origin.sites)


def _at(whole: Tensor, sites: Tensor) -> Tensor:
    b, z, y, x = sites.unbind(1)
    return whole.permute(0, 2, 3, 4, 1)[b, z, y, x]


# ------------------------------------------------------------------------- spconv


def _spconv() -> Any:
    try:
        import spconv.pytorch as package
    except ImportError as error:
        raise UserError(
            f"sparse backend 'spconv' cannot be loaded ({error}): pip install 'wm_ros[cuda]', or choose native"
        ) from None
    if not torch.cuda.is_available():  # its backward asks for a CUDA stream even where all tensors are on the CPU
        package.ops.get_current_stream = lambda: 0
    return package


def spconv(x: Sparse, weight: Tensor, geometry: Geometry | None, cache: dict[str, Any]) -> Sparse:
    """The package spconv with an explicit algorithm. On a CPU it is only right with one thread, which is demanded.

    Args:
        cache: of the layer, where its module of spconv is kept.
    """
    package = _spconv()
    gpu = x.features.device.type == "cuda"  # that the package could be imported says nothing of a GPU
    if not gpu and torch.get_num_threads() > 1:
        raise UserError("sparse backend 'spconv' gives wrong sums on a CPU with several threads: set 1, or use native")
    if "module" not in cache:
        algorithm = package.ConvAlgo.MaskImplicitGemm if gpu else package.ConvAlgo.Native
        cout, *_, cin = weight.shape
        if geometry is None:
            made = package.SubMConv3d(cin, cout, 3, bias=False, indice_key="submanifold", algo=algorithm)
        else:
            size, stride, padding = (list(part) for part in (geometry.kernel, geometry.stride, geometry.padding))
            made = package.SparseConv3d(
                cin, cout, size, stride, padding, bias=False, indice_key=geometry.key or None, algo=algorithm
            )
        cache["module"] = made
    module = cache["module"]
    module.weight = weight
    foreign = x.foreign
    if foreign is None:
        foreign = package.SparseConvTensor(x.features.contiguous(), x.sites.int().contiguous(), list(x.shape), x.batch)
    if geometry is None:  # one rulebook for each set of sites, under a key of its own
        module.indice_key = f"submanifold {x.shape}"
    out = module(foreign)
    shape = out.spatial_shape
    passed = x.strided | ({geometry.key: (geometry, x)} if geometry and geometry.key else {})
    sites = x.sites if geometry is None else out.indices.long()
    return Sparse(out.features, sites, (shape[0], shape[1], shape[2]), x.batch, {}, passed, out)


def spconv_inverse(x: Sparse, weight: Tensor, geometry: Geometry, origin: Sparse, cache: dict[str, Any]) -> Sparse:
    """Back to the sites of `origin` by the pairs of the strided convolution of that key."""
    package = _spconv()
    if "module" not in cache:
        cout, *size, cin = weight.shape
        cache["module"] = package.SparseInverseConv3d(cin, cout, list(size), indice_key=geometry.key, bias=False)
    cache["module"].weight = weight
    out = cache["module"](x.foreign)
    return Sparse(out.features, out.indices.long(), origin.shape, x.batch, {}, x.strided, out)
