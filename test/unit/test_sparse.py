"""Sparse convolution: the same as a dense one at every site, in every backend, at any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from wm_ros.errors import UserError
from wm_ros.lidar.config import EncoderConfig, LidarConfig, VoxelConfig
from wm_ros.lidar.encoder import BevEncoder, to_sparse
from wm_ros.lidar.sparse import Block, InverseConv3d, Sparse, StridedConv3d, SubmanifoldConv3d, choose, library
from wm_ros.lidar.voxels import voxelise

STRIDES = [
    ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2), (0, 1, 1)),
    ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0)),
    ((2, 1, 1), (2, 1, 1), (0, 0, 0)),
]


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    choose()
    torch.set_num_threads(threads)


def cloud(seed: int, channels: int) -> Sparse:
    """The seeds take turns: random, empty, one voxel, all voxels, border cells, voxels of points that share cells."""
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(int(n) for n in torch.randint(3, 12, (3,), generator=generator))
    batch = int(torch.randint(1, 3, (), generator=generator))
    filled = torch.rand(batch, *shape, generator=generator)
    kind = seed % 6
    if kind == 1:
        chosen = filled < 0
    elif kind == 2:
        chosen = filled == filled.max()
    elif kind == 3:
        chosen = filled >= 0
    elif kind == 4:
        inside = torch.zeros(batch, *shape, dtype=torch.bool)
        inside[:, 1:-1, 1:-1, 1:-1] = True
        chosen = (filled < 0.6) & ~inside
    elif kind == 5:
        config = VoxelConfig(range_m=(0, 0, 0, shape[2], shape[1], shape[0] - 1), size_m=(1, 1, 1))
        points = torch.rand(400, 4, generator=generator).numpy() * np.float32([shape[2], shape[1], shape[0] - 1, 1])
        return widened(to_sparse([voxelise(points, config)], config), channels)
    else:
        chosen = filled < 0.2
    sites = chosen.nonzero()
    features = torch.randn(len(sites), channels, generator=generator)
    return Sparse(features, sites, (shape[0], shape[1], shape[2]), batch)


def widened(x: Sparse, channels: int) -> Sparse:
    mixing = torch.randn(x.features.shape[1], channels, generator=torch.Generator().manual_seed(0))
    return Sparse(x.features @ mixing, x.sites, x.shape, x.batch)


def run(backend: str, threads: int, x: Sparse, layers: list[torch.nn.Module]) -> tuple[Sparse, list[torch.Tensor]]:
    """Output and gradients (of the features, then of each weight) of layers one after the other."""
    choose(backend)
    torch.set_num_threads(threads)
    for layer in layers:
        layer.zero_grad()
    features = x.features.clone().requires_grad_()
    y = Sparse(features, x.sites, x.shape, x.batch)
    for layer in layers:
        y = layer(y)
    torch.sin(y.features).sum().backward()
    weights = [layer.weight.grad for layer in layers]
    return y, [g if g is not None else torch.zeros(()) for g in (features.grad, *weights)]


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert ours.shape == theirs.shape
    ours, theirs = ours.detach(), theirs.detach()
    scale = float(theirs.abs().max()) if theirs.numel() else 1.0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * max(scale, 1.0))


@pytest.mark.parametrize("part", range(10))
def test_native_equals_dense_on_200_clouds_forward_and_backward_at_one_and_two_threads(part: int) -> None:
    torch.manual_seed(part)
    for seed in range(part * 20, part * 20 + 20):
        cin, middle, cout = ((4, 16, 32), (3, 5, 8), (16, 64, 24), (8, 40, 128))[seed % 4]
        kernel, stride, padding = STRIDES[seed % len(STRIDES)]
        x = cloud(seed, cin)
        layers = [
            SubmanifoldConv3d(cin, middle),
            StridedConv3d(middle, cout, kernel, stride, padding, key="down"),
            InverseConv3d(cout, middle, kernel, "down"),
        ]
        reference, expected = run("dense", 1, x, layers)
        one, gradients = run("native", 1, x, layers)
        two, gradients_of_two = run("native", 2, x, layers)
        assert torch.equal(one.sites, reference.sites)
        close(one.features, reference.features)
        for ours, theirs in zip(gradients, expected, strict=True):
            close(ours, theirs)
        assert torch.equal(one.features, two.features)
        for a, b in zip(gradients, gradients_of_two, strict=True):
            assert torch.equal(a, b)


def test_a_strided_convolution_has_every_site_that_sees_an_input() -> None:
    for seed in range(12):
        x = cloud(seed, 4)
        for kernel, stride, padding in STRIDES:
            layer = StridedConv3d(4, 8, kernel, stride, padding)
            choose("dense")
            expected = layer(x)
            choose("native")
            found = layer(x)
            assert torch.equal(found.sites, expected.sites)
            assert found.shape == expected.shape


def test_layers_on_the_same_sites_share_one_rulebook() -> None:
    x = cloud(0, 4)
    first, second = SubmanifoldConv3d(4, 8), SubmanifoldConv3d(8, 8)
    y = first(x)
    book = y.rulebooks["submanifold"]
    assert second(y).rulebooks["submanifold"] is book


def test_norm_and_relu_in_evaluation_are_those_of_training_statistics() -> None:
    block = Block(SubmanifoldConv3d(4, 16))
    block.norm.running_mean.normal_()
    block.norm.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(block.norm.weight)
    x = cloud(0, 4)
    block.eval()
    with_gradients = block(x).features
    with torch.no_grad():
        folded = block(x).features
    close(folded, with_gradients.detach())


def sweep(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(-np.pi, np.pi, 20_000), rng.uniform(3, 40, 20_000)
    height = rng.uniform(-1.7, 0.8, 20_000)
    rows = [radius * np.cos(angle), radius * np.sin(angle), height, rng.random(20_000)]
    return np.stack(rows, 1).astype(np.float32)


def paper_encoder() -> tuple[BevEncoder, Sparse]:
    """The paper's backbone on a sweep."""
    config = LidarConfig(encoder=EncoderConfig(channels=(16, 32, 64, 64), out_channels=128, dilate=True))
    torch.manual_seed(0)
    return BevEncoder(config), to_sparse([voxelise(sweep(), config.voxels)], config.voxels)


def test_spconv_agrees_with_the_same_checkpoint() -> None:
    pytest.importorskip("spconv", reason="the package spconv is not installed")
    encoder, x = paper_encoder()
    torch.set_num_threads(1)
    for training in (False, True):
        encoder.train(training)
        found = {}
        for backend in ("native", "spconv"):
            choose(backend)
            with torch.set_grad_enabled(training):
                found[backend] = encoder(Sparse(x.features, x.sites, x.shape, x.batch)).detach()
        close(found["native"], found["spconv"], 1e-4)


def test_spconv_gives_the_same_gradients() -> None:
    pytest.importorskip("spconv", reason="the package spconv is not installed")
    x = cloud(0, 16)
    layers = [SubmanifoldConv3d(16, 16), StridedConv3d(16, 32, (3, 3, 3), (2, 2, 2), (1, 1, 1), key="down")]
    ours, gradients = run("native", 1, x, layers)
    theirs, expected = run("spconv", 1, x, layers)
    close(ours.dense(), theirs.dense(), 1e-4)
    for a, b in zip(gradients, expected, strict=True):
        close(a, b, 1e-4)


def test_spconv_on_a_cpu_refuses_several_threads() -> None:
    pytest.importorskip("spconv", reason="the package spconv is not installed")
    choose("spconv")
    torch.set_num_threads(2)
    with pytest.raises(UserError, match="set 1"):
        SubmanifoldConv3d(4, 4)(cloud(0, 4))


@pytest.mark.skipif(not library.bfloat16_kind(), reason="this CPU has no bfloat16 arithmetic")
def test_bfloat16_points_the_same_way_and_is_the_same_at_any_thread_count() -> None:
    encoder, x = paper_encoder()
    encoder.eval()
    bev = {}
    for arithmetic, threads in (("float32", 1), ("bfloat16", 1), ("bfloat16", 2)):
        choose("native", arithmetic)
        torch.set_num_threads(threads)
        with torch.no_grad():
            bev[arithmetic, threads] = encoder(Sparse(x.features, x.sites, x.shape, x.batch)).flatten()
    assert torch.equal(bev["bfloat16", 1], bev["bfloat16", 2])
    cosine = torch.nn.functional.cosine_similarity(bev["float32", 1], bev["bfloat16", 1], dim=0)
    assert cosine > 0.999
    assert not torch.equal(bev["float32", 1], bev["bfloat16", 1])


def test_bfloat16_by_dot_products_equals_tiles_to_rounding() -> None:
    if library.bfloat16_kind() != 2:
        pytest.skip("this CPU has one kind of bfloat16 arithmetic at most")
    x = cloud(0, 32)
    book = library.submanifold(x.sites, x.shape)
    weight = torch.randn(27, 32, 48)
    tiles = library.convolve(x.features, weight, book, bfloat16=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "bfloat16_kind", lambda: 1)
        dots = library.convolve(x.features, weight, book, bfloat16=True)
    close(dots, tiles, 1e-5)


def test_an_unknown_backend_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match="native"):
        choose("fast")


def test_what_was_chosen_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="wm_ros.lidar.sparse"):
        choose("native")
        SubmanifoldConv3d(4, 4)(cloud(0, 4))
        SubmanifoldConv3d(4, 4)(cloud(0, 4))
    assert [r.getMessage() for r in caplog.records] == ["sparse convolution: native on cpu"]
