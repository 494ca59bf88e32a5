"""The compiled part of sparse convolution, by ctypes: voxels, rulebooks, float32 and bfloat16 arithmetic.

`setup.py` compiles the C files next to this one for the machine that it runs on.
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.errors import UserError
from wm_ros.lidar.sparse.tensor import Rulebook, Triple, grid_after

NAME = "_kernels"
MAX_KERNEL = 32
PIECE = 1 << 16  # numbers that one thread rounds at a time
BFLOAT16 = ("none", "AVX-512 BF16", "AMX")
_POINTER, _i64 = ctypes.c_void_p, ctypes.c_int64


class Convolution(ctypes.Structure):
    """`Convolution` of kernels.h."""

    _fields_: ClassVar[Any] = [
        *((name, _POINTER) for name in ("x", "w")),
        *((name, ctypes.c_int64) for name in ("cin", "cout")),
        *((name, _POINTER) for name in ("inputs", "outputs", "bounds")),
        *((name, ctypes.c_int64) for name in ("places", "tiles", "centre", "sites")),
        *((name, _POINTER) for name in ("scale", "shift", "y")),
    ]


@cache
def library() -> ctypes.CDLL:
    """The shared library. Raises UserError with the remedy where it was not built, or not for this machine."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
    path = Path(__file__).with_name(NAME + str(suffix))
    again = "install the package again here: pip install --no-deps --no-build-isolation -e ."
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        raise UserError(
            f"the compiled sparse convolution is missing ({error}): with a C compiler (apt install gcc, or pip install "
            f"ziglang) {again}"
        ) from None
    if not found.wm_runs_here():
        raise UserError(f"the sparse convolution was compiled for another CPU: {again}")
    found.wm_strided_count.restype = found.wm_voxelise.restype = ctypes.c_int64
    return found


@cache
def bfloat16_kind() -> int:
    """Index into `BFLOAT16` of what this CPU offers."""
    return int(library().wm_bfloat16())


def pointer(tensor: Tensor | NDArray[np.generic]) -> ctypes.c_void_p:
    """Address of a contiguous array."""
    return _POINTER(tensor.data_ptr() if isinstance(tensor, Tensor) else tensor.ctypes.data)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="sparse")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def in_parallel(work: Callable[[int, int], object], count: int, each: int = 8) -> None:
    """work(first, last) over 0 .. count, by as many threads as torch may use, in about `each` pieces for each.

    C code leaves the interpreter free.
    """
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    cuts = np.linspace(0, count, min(each * threads, count) + 1).round().astype(int).tolist()
    pieces = iter(list(pairwise(cuts)))  # whoever is free takes the next one

    def take() -> None:
        for first, last in pieces:
            work(first, last)

    helpers = [_pool(threads - 1).submit(take) for _ in range(threads - 1)]
    take()
    for helper in helpers:
        if not helper.cancel():  # it did not even begin: nothing was left
            helper.result()


# ------------------------------------------------------------------------- rulebooks


def submanifold(sites: Tensor, shape: Triple) -> Rulebook:
    """3 × 3 × 3, outputs where the inputs are; `sites` as in `Sparse`."""
    sites, count, grid = sites.contiguous(), len(sites), np.array(shape, np.int32)
    inputs, outputs = torch.empty(2, 26 * count, dtype=torch.int32).unbind(0)
    starts = torch.empty(28, dtype=torch.int64)
    if library().wm_submanifold(
        pointer(sites), _i64(count), pointer(grid), pointer(inputs), pointer(outputs), pointer(starts)
    ):
        raise MemoryError(f"no memory for the keys of {count} sites")
    pairs = int(starts[-1])
    return Rulebook(inputs[:pairs], outputs[:pairs], starts, 13, count, count)


def strided(
    sites: Tensor, shape: Triple, batch: int, kernel: Triple, stride: Triple, padding: Triple
) -> tuple[Rulebook, Tensor, Triple]:
    """Outputs wherever at least one input falls into the kernel; returns also their sites and the grid's shape."""
    if max(kernel) > MAX_KERNEL:
        raise ValueError(f"kernel {kernel}: at most {MAX_KERNEL} places along an axis")
    out_shape = grid_after(shape, kernel, stride, padding)
    geometry = np.array([*kernel, *stride, *padding, *out_shape], np.int32)
    sites, count, places = sites.contiguous(), len(sites), kernel[0] * kernel[1] * kernel[2]
    words = -(-batch * out_shape[0] * out_shape[1] * out_shape[2] // 64)
    bits, before = torch.zeros(words, dtype=torch.int64), torch.empty(words, dtype=torch.int32)
    starts, cursors = torch.empty(places + 1, dtype=torch.int64), torch.empty(places, dtype=torch.int64)
    known = [pointer(sites), _i64(count), pointer(geometry), pointer(bits), pointer(before)]
    known += [_i64(words), pointer(starts)]
    total = library().wm_strided_count(*known)
    inputs, outputs = torch.empty(2, int(starts[-1]), dtype=torch.int32).unbind(0)
    out_sites = torch.empty(total, 4, dtype=torch.int64)
    library().wm_strided_fill(*known, pointer(cursors), pointer(inputs), pointer(outputs), pointer(out_sites))
    return Rulebook(inputs, outputs, starts, -1, count, total), out_sites, out_shape


def _bounds(book: Rulebook, side: str) -> Tensor:
    """Where the pairs of each tile of the sites of `side` begin within each place: (places, tiles + 1)."""
    if side not in book.bounds:
        rows, count = (book.inputs, book.inputs_count) if side == "inputs" else (book.outputs, book.outputs_count)
        tiles = -(-count // library().wm_tile())
        found = torch.empty(book.places, tiles + 1, dtype=torch.int64)
        library().wm_bounds(pointer(rows), pointer(book.starts), _i64(book.places), _i64(tiles), pointer(found))
        book.bounds[side] = found
    return book.bounds[side]


# ------------------------------------------------------------------------- arithmetic


def convolve(
    x: Tensor,
    weight: Tensor,
    book: Rulebook,
    *,
    backwards: bool = False,
    bfloat16: bool = False,
    affine: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """(outputs, C_out) sums over pairs of x[input] @ weight[place].

    Args:
        x: (inputs, C_in) float32. weight: (places, C_in, C_out).
        backwards: from the rulebook's outputs to its inputs (inverse convolution, gradient).
        bfloat16: round inputs and weights to bfloat16; sums stay float32.
        affine: scale and shift (C_out,), then ReLU: a BatchNorm in evaluation and what follows it.
    """
    _, cin, cout = weight.shape
    kind = bfloat16_kind() if bfloat16 and cin % 2 == 0 and cout % 16 == 0 else 0
    x = x.contiguous()
    if kind:  # pairs of input channels side by side, as the instructions take them
        x, weight = _rounded(x), _rounded(_copied(weight.unflatten(1, (cin // 2, 2)).transpose(2, 3)))
    else:
        weight = _copied(weight)
    y = torch.empty(book.inputs_count if backwards else book.outputs_count, cout)
    job = _job(x, weight, cin, cout, book, backwards, y, affine or (None, None))
    code, last = (library().wm_convolve_bfloat16, [ctypes.c_int32(kind)]) if kind else (library().wm_convolve, [])
    in_parallel(lambda a, b: code(ctypes.byref(job), _i64(a), _i64(b), *last), int(job.tiles))
    return y


def _copied(x: Tensor) -> Tensor:
    """Contiguous. numpy copies: to wake torch's threads for some kilobytes costs more than it saves."""
    return torch.from_numpy(np.ascontiguousarray(x.detach().numpy()))


def _rounded(x: Tensor) -> Tensor:
    """Contiguous float32 as bfloat16."""
    out = torch.empty(x.shape, dtype=torch.bfloat16)
    code, known = library().wm_round, (pointer(x), pointer(out))
    pieces = -(-x.numel() // PIECE)
    in_parallel(lambda a, b: code(*known, _i64(a * PIECE), _i64(min(b * PIECE, x.numel()))), pieces)
    return out


def weight_gradient(x: Tensor, gradient: Tensor, book: Rulebook, *, backwards: bool = False) -> Tensor:
    """(places, C_in, C_out): by place, the sum over pairs of x[input]ᵀ gradient[output]; one thread for each place."""
    x, gradient = x.contiguous(), gradient.contiguous()
    cin, cout = x.shape[1], gradient.shape[1]
    out = torch.empty(book.places, cin, cout)
    job = _job(x, None, cin, cout, book, backwards, gradient)
    code = library().wm_weight_gradient
    # Few pieces: neighbouring places share rows, which are then still in cache.
    in_parallel(lambda a, b: code(ctypes.byref(job), pointer(out), _i64(a), _i64(b)), book.places, each=3)
    return out


def _job(
    x: Tensor,
    weight: Tensor | None,
    cin: int,
    cout: int,
    book: Rulebook,
    backwards: bool,
    y: Tensor,
    affine: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Convolution:
    bounds = _bounds(book, "inputs" if backwards else "outputs")
    inputs, outputs = (book.outputs, book.inputs) if backwards else (book.inputs, book.outputs)
    optional = [pointer(part) if part is not None else None for part in (weight, *affine)]
    return Convolution(
        pointer(x),
        optional[0],
        cin,
        cout,
        pointer(inputs),
        pointer(outputs),
        pointer(bounds),
        book.places,
        bounds.shape[1] - 1,
        book.centre,
        len(y),
        optional[1],
        optional[2],
        pointer(y),
    )
