"""Rows of `wm bench`: the paper's sparse backbone beside spconv, and a sweep from message to message.

Sweeps are real ones where the folder WM_DATA has them (default ../shared/data), simulated ones of 64 × 1800 rays
elsewhere; each row says which.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wm_ros import messages, topics
from wm_ros.data.kitti import read_sweep
from wm_ros.data.simulator import drive_samples
from wm_ros.evaluation.bench import Row
from wm_ros.lidar import Lidar, sparse
from wm_ros.lidar.config import EncoderConfig, LidarConfig, VoxelConfig
from wm_ros.lidar.encoder import BevEncoder, to_sparse
from wm_ros.lidar.sparse import Sparse, StridedConv3d, SubmanifoldConv3d, library
from wm_ros.lidar.voxels import voxelise
from wm_ros.paths import bundle_path
from wm_ros.types import EgoPose, Sweep

Points = NDArray[np.float32]
PAPER_VOXELS = VoxelConfig(range_m=(0.0, -40.0, -3.0, 70.4, 40.0, 1.0), size_m=(0.05, 0.05, 0.1))
PAPER_ENCODER = EncoderConfig(
    channels=(16, 32, 64, 64), out_channels=128, strides=((2, 2, 2), (2, 2, 2), (2, 2, 2)), dilate=True
)
PEER = "spconv_cpu_1_thread"  # with more threads its sums race on a CPU
PERIOD_NS = 100_000_000


def lidar_rows() -> list[Row]:
    """The backbone forward, with bfloat16, and in a training step; and a message with a sweep → occupancy messages."""
    sweeps, source = bench_sweeps()
    encoder, x = paper_backbone(sweeps[0])
    rows = []
    gflop = work_gflop(encoder, x)
    for name, arithmetic, train in (
        ("sparse_backbone_forward", "float32", False),
        ("sparse_backbone_train_step", "float32", True),
        ("sparse_backbone_forward_bf16", "bfloat16", False),
    ):
        if arithmetic == "bfloat16" and not library.bfloat16_kind():
            continue
        peers: dict[str, Callable[[], float]] = {}
        if find_spec("spconv"):
            peers[PEER] = partial(_backbone, "spconv", "float32", encoder, x, train)
        facts: dict[str, Any] = {"input": source, "voxels": len(x.sites)}
        if arithmetic == "bfloat16":
            facts["cosine_to_float32"] = round(_cosine(encoder, x), 6)
        work = 3 * sum(gflop) - gflop[0] if train else sum(gflop)  # nobody asks for the gradient of the points
        rows.append(
            Row(
                name,
                _at_threads(partial(_backbone, "native", arithmetic, encoder, x, train)),
                peers=peers,
                facts=_floor(facts, work, torch.bfloat16 if arithmetic == "bfloat16" else torch.float32),
            )
        )
    facts = {"input": source, "points": int(np.mean([len(s) for s in sweeps]))}
    return [*rows, Row("sweep_to_occupancy", _message_to_message(sweeps), facts=lambda threads, median_s: facts)]


# ------------------------------------------------------------------------- input


def bench_sweeps(count: int = 8) -> tuple[list[Points], str]:
    """Consecutive sweeps, (N, 4) each, and what they are."""
    data = Path(os.environ.get("WM_DATA", "../shared/data"))
    packed, plain = sorted(data.rglob("*.kmm.xz")), sorted(data.rglob("velodyne_points/data/*.bin"))
    unpack = data / "to_kitti_raw.py"
    if packed and unpack.is_file():
        folder = max({file.parent for file in packed}, key=lambda folder: len(list(folder.iterdir())))
        spec = importlib.util.spec_from_file_location("unpack", unpack)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        files = [file for file in packed if file.parent == folder]
        return [module.decode(file.read_bytes()) for file in files[:count]], "real KITTI sweeps"
    if plain:
        return [read_sweep(file) for file in plain[:count]], "real KITTI sweeps"
    drive = drive_samples(seed=1, seconds=count / 10, beams=64, azimuths=1800)
    return [s.points for s in drive if isinstance(s, Sweep)][:count], "simulated sweeps of 64 x 1800 rays"


def paper_backbone(points: Points) -> tuple[BevEncoder, Sparse]:
    """The published backbone (arXiv 2501.04969) on the KITTI grid, and a voxelised sweep."""
    config = LidarConfig(voxels=PAPER_VOXELS, encoder=PAPER_ENCODER)
    torch.manual_seed(0)
    encoder = BevEncoder(config)
    x = to_sparse([voxelise(points, PAPER_VOXELS)], PAPER_VOXELS)
    with torch.no_grad():  # statistics of the norms as after some training: features of ordinary size
        for _ in range(20):
            encoder(_fresh(x))
    return encoder, x


def _fresh(x: Sparse) -> Sparse:
    """Without rulebooks: they are part of what is timed."""
    return Sparse(x.features, x.sites, x.shape, x.batch)


# ------------------------------------------------------------------------- backbone


def _backbone(backend: Any, arithmetic: Any, encoder: BevEncoder, x: Sparse, train: bool) -> float:
    """Seconds of one forward pass, or of forward, backward and weight gradients."""
    threads = torch.get_num_threads()
    sparse.choose(backend, arithmetic)
    if backend == "spconv":
        torch.set_num_threads(1)
    encoder.train(train)
    encoder.zero_grad(set_to_none=True)
    try:
        begin = time.perf_counter()
        with torch.set_grad_enabled(train):
            bev = encoder(_fresh(x))
        if train:
            bev.sum().backward()
        return time.perf_counter() - begin
    finally:
        sparse.choose()
        torch.set_num_threads(threads)


def _at_threads(action: Callable[[], float]) -> Callable[[int], float]:
    return lambda threads: action()  # the loop has set their number


def _cosine(encoder: BevEncoder, x: Sparse) -> float:
    encoder.eval()
    found: list[Tensor] = []
    try:
        for arithmetic in ("float32", "bfloat16"):
            sparse.choose("native", arithmetic)
            with torch.no_grad():
                found.append(encoder(_fresh(x)).flatten().double())
    finally:
        sparse.choose()
    return float(nn.functional.cosine_similarity(found[0], found[1], 0))


def work_gflop(encoder: nn.Module, x: Sparse) -> list[float]:
    """10⁹ operations (a multiplication and an addition are two) of each convolution, counted from its pairs."""
    found: list[float] = []

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        assert isinstance(layer, (SubmanifoldConv3d, StridedConv3d))
        sites, shape = inputs[0].sites, inputs[0].shape
        how = layer.geometry
        book = (
            library.submanifold(sites, shape)
            if how is None
            else library.strided(sites, shape, inputs[0].batch, how.kernel, how.stride, how.padding)[0]
        )
        cout, *_, cin = layer.weight.shape
        found.append(2e-9 * book.pairs * cin * cout)

    layers = [layer for layer in encoder.modules() if isinstance(layer, (SubmanifoldConv3d, StridedConv3d))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        encoder(_fresh(x))
    for hook in hooks:
        hook.remove()
    return found


def machine_gflops(threads: int, dtype: torch.dtype, size: int = 1536) -> float:
    """The best of a few large matrix products, in 10⁹ operations a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(8):
        begin = time.perf_counter()
        torch.mm(a, a)
        times.append(time.perf_counter() - begin)
    torch.set_num_threads(before)
    return 2e-9 * size**3 / min(times)


def _floor(facts: dict[str, Any], gflop: float, dtype: torch.dtype) -> Callable[[int, float], dict[str, Any]]:
    """How far the median is from the counted work at the measured speed of large matrix products."""

    def found(threads: int, median_s: float) -> dict[str, Any]:
        speed = machine_gflops(threads, dtype)
        floor_s = gflop / speed
        return facts | {
            "gflop": round(gflop, 2),
            "machine_gflops": round(speed, 1),
            "floor_ms": round(floor_s * 1e3, 1),
            "times_the_floor": round(median_s / floor_s, 2),
        }

    return found


# ------------------------------------------------------------------------- message to message


def _message_to_message(sweeps: list[Points]) -> Callable[[int], float]:
    """A PointCloud2 in, tokens and occupancy out, as a node does it; sweeps in a ring, odometry goes straight on."""
    lidars = {threads: Lidar.from_bundle(bundle_path("lidar-lite")) for threads in (1, 2)}
    ticks = dict.fromkeys(lidars, 0)
    for lidar in lidars.values():
        lidar.wanted = set()

    def run(threads: int) -> float:
        tick = ticks[threads]
        ticks[threads] += 1
        stamp_ns, here = tick * PERIOD_NS, np.eye(4)
        here[0, 3] = tick * 1.0
        (_, cdr), *_ = messages.encode_sample(Sweep(stamp_ns, "velodyne", sweeps[tick % len(sweeps)]))
        lidars[threads].step(EgoPose(stamp_ns, "odom", "base_link", here))
        begin = time.perf_counter()
        prediction = lidars[threads].step(messages.decode(topics.POINTS.type, cdr))
        assert prediction is not None
        messages.encode_prediction(prediction, set())
        return time.perf_counter() - begin

    return run
