"""What `wm bench` writes is what it measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm_ros.evaluation import bench_future, bench_lidar, bench_state
from wm_ros.evaluation.bench import WARM_UP, Row, measure
from wm_ros.lidar.sparse import Sparse, StridedConv3d, SubmanifoldConv3d


def test_ours_and_peers_run_in_turn_and_warm_up_does_not_count() -> None:
    order: list[str] = []

    def timed(name: str, first: float, later: float) -> float:
        order.append(name)
        return first if order.count(name) <= WARM_UP else later

    row = Row(
        "step",
        lambda threads: timed(f"ours {threads} {torch.get_num_threads()}", 9.0, threads / 1000),
        peers={"other": lambda: timed("other", 9.0, 0.004)},
        facts=lambda threads, median_s: {"doubled_ms": 2000 * median_s},
    )
    before = torch.get_num_threads()
    one, two = measure([row], 5)
    assert order == ["ours 1 1", "ours 2 2", "other"] * (5 + WARM_UP)
    assert torch.get_num_threads() == before
    assert one == {
        "name": "step",
        "threads": 1,
        "ours": {"p50_ms": 1.0, "p95_ms": 1.0},
        "peers": {"other": {"p50_ms": 4.0, "p95_ms": 4.0}},
        "n": 5,
        "doubled_ms": 2.0,
    }
    assert two["threads"] == 2 and two["ours"]["p50_ms"] == 2.0


def test_work_is_counted_from_the_pairs_of_sites() -> None:
    sites = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 2], [0, 3, 3, 3]])  # two neighbours and one alone
    x = Sparse(torch.ones(3, 2), sites, (4, 4, 4), 1)
    layers = torch.nn.Sequential(SubmanifoldConv3d(2, 3), StridedConv3d(3, 4, (2, 2, 2), (2, 2, 2), (0, 0, 0)))
    submanifold, strided = bench_lidar.work_gflop(layers, x)
    assert submanifold == pytest.approx((3 + 2) * 2 * 2 * 3 * 1e-9)
    assert strided == pytest.approx(3 * 2 * 3 * 4 * 1e-9)


def test_the_paper_backbone_is_a_map_of_256_channels_at_stride_8() -> None:
    points = np.random.default_rng(0).uniform([5, -10, -1.7, 0], [20, 10, 0.5, 1], (2000, 4)).astype(np.float32)
    encoder, x = bench_lidar.paper_backbone(points)
    assert (encoder.bev_channels, encoder.bev_shape, encoder.stride) == (256, (200, 176), (8, 8))
    assert x.shape == (41, 1600, 1408)


def test_an_image_is_timed_alone_and_between_messages_beside_a_resnet18() -> None:
    rows = bench_state.state_rows()
    assert [row.name for row in rows] == ["image_to_tokens", "image_to_tokens_node"]
    for row in rows:
        assert list(row.peers) == [bench_state.PEER]
        assert 0 < row.ours(1) < 10 and 0 < row.peers[bench_state.PEER]() < 10


def test_the_peer_has_the_size_of_resnet18() -> None:
    assert sum(p.numel() for p in bench_state.resnet18().parameters()) == 11_176_512  # without the classifier


def test_the_peer_of_the_frames_draws_what_the_flow_leads_to() -> None:
    clean = torch.randn(3, 2, 4)

    def velocity(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return (z - clean) / sigma[:, None, None]  # exact where all of the data is `clean`

    drawn = bench_future.ddim(velocity, clean, torch.Generator().manual_seed(0), steps=50)
    assert torch.allclose(drawn, clean, atol=0.05)
