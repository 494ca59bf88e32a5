"""Sparse convolution: equal to a dense one where there is something, zero and silent elsewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wm_ros.lidar.sparse import Sparse, StridedConv3d, SubmanifoldConv3d, submanifold_rulebook


def cloud(shape: tuple[int, int, int], channels: int, share: float = 0.15, batch: int = 2, seed: int = 0) -> Sparse:
    """Random sites, some at the edges of the grid, with random features."""
    generator = torch.Generator().manual_seed(seed)
    sites = (torch.rand(batch, *shape, generator=generator) < share).nonzero()
    features = torch.randn(len(sites), channels, generator=generator, dtype=torch.float64)
    return Sparse(features, sites, shape, batch)


def kernel(layer: SubmanifoldConv3d | StridedConv3d) -> torch.Tensor:
    """(C_out, kz, ky, kx, C_in) → what conv3d takes."""
    return layer.weight.permute(0, 4, 1, 2, 3)


def occupied(x: Sparse) -> torch.Tensor:
    return x.with_features(torch.ones(len(x.sites), 1, dtype=torch.float64)).dense()


def test_submanifold_equals_dense_convolution_at_its_sites() -> None:
    x = cloud((5, 7, 6), 3)
    layer = SubmanifoldConv3d(3, 4).double()
    dense = F.conv3d(x.dense(), kernel(layer), padding=1) * occupied(x)
    torch.testing.assert_close(layer(x).dense(), dense)


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [((3, 3, 3), (2, 2, 2), (1, 1, 1)), ((3, 3, 3), (2, 2, 2), (0, 1, 1)), ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
     ((2, 2, 2), (2, 2, 2), (0, 0, 0)), ((2, 1, 1), (2, 1, 1), (0, 0, 0))],
)  # fmt: skip
def test_strided_equals_dense_convolution_and_has_every_site_that_sees_an_input(size, stride, padding) -> None:
    x = cloud((7, 9, 8), 3)
    layer = StridedConv3d(3, 4, size, stride, padding).double()
    y = layer(x)
    torch.testing.assert_close(y.dense(), F.conv3d(x.dense(), kernel(layer), stride=stride, padding=padding))
    seen = F.conv3d(occupied(x), torch.ones(1, 1, *size, dtype=torch.float64), stride=stride, padding=padding) > 0
    assert torch.equal(occupied(y) > 0, seen)
    assert torch.equal(y.sites, seen[:, 0].nonzero())


def test_gradients_equal_those_of_dense_convolution() -> None:
    x = cloud((5, 6, 6), 2)
    features = x.features.clone().requires_grad_()
    first, second = SubmanifoldConv3d(2, 3).double(), StridedConv3d(3, 2, (3, 3, 3), (2, 2, 2), (1, 1, 1)).double()
    (second(first(x.with_features(features))).dense().sin().sum()).backward()
    found = [features.grad, first.weight.grad, second.weight.grad]

    plain = x.features.clone().requires_grad_()
    first.zero_grad(), second.zero_grad()
    dense = F.conv3d(x.with_features(plain).dense(), kernel(first), padding=1) * occupied(x)
    F.conv3d(dense, kernel(second), stride=2, padding=1).sin().sum().backward()
    for ours, theirs in zip(found, [plain.grad, first.weight.grad, second.weight.grad], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_results_are_the_same_bytes_at_one_and_two_threads_and_again() -> None:
    x = cloud((9, 40, 40), 8, 0.2, 1)
    x = x.with_features(x.features.float())
    layers = torch.nn.Sequential(SubmanifoldConv3d(8, 8), StridedConv3d(8, 8, (3, 3, 3), (2, 2, 2), (1, 1, 1)))
    threads = torch.get_num_threads()
    outs = []
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        outs.append(layers(Sparse(x.features, x.sites, x.shape, 1)).features)
    torch.set_num_threads(threads)
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[1], outs[2])


def test_rulebook_is_built_once_for_layers_on_the_same_sites() -> None:
    x = cloud((5, 7, 6), 3)
    torch.nn.Sequential(SubmanifoldConv3d(3, 3), SubmanifoldConv3d(3, 3)).double()(x)
    assert list(x.rulebooks) == ["submanifold"]


def test_neighbours_do_not_wrap_around_edges_or_into_the_next_sample() -> None:
    sites = torch.tensor([[0, 0, 0, 4], [0, 0, 1, 0], [0, 4, 4, 4], [1, 0, 0, 0]])
    book = submanifold_rulebook(sites, (5, 5, 5))
    assert len(book.inputs) == 0


def test_a_single_site_passes_through_the_centre_of_the_kernel() -> None:
    x = Sparse(torch.ones(1, 1, dtype=torch.float64), torch.tensor([[0, 1, 1, 1]]), (3, 3, 3), 1)
    layer = SubmanifoldConv3d(1, 1).double()
    torch.testing.assert_close(layer(x).features, layer.weight[:, 1, 1, 1])
