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
        "ours": {"p50_ms": 1.0, "p95_ms": 1.0, "n": 5},
        "peers": {"other": {"p50_ms": 4.0, "p95_ms": 4.0, "n": 5}},
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


@pytest.mark.parametrize("solver", [bench_future.Ddim(50), bench_future.FlowEuler(50)])
def test_the_samplers_of_the_peer_follow_the_flow(solver) -> None:
    """Where the data are normal the flow has a closed form: noise ε goes to mean + spread · ε."""
    mean, spread = 0.7, 0.4

    def velocity(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        s = sigma.view(-1, 1, 1, 1)
        at_mean = (1 - s) * mean
        clean = mean + spread**2 * (1 - s) / ((1 - s) ** 2 * spread**2 + s**2) * (z - at_mean)
        noise = s / ((1 - s) ** 2 * spread**2 + s**2) * (z - at_mean)
        return noise - clean

    like = torch.zeros(2, 3, 4, 4)
    start = torch.randn(like.shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(solver.solve(velocity, like), mean + spread * start, atol=0.06)


def test_frames_are_timed_and_judged_beside_the_samplers_of_diffusers() -> None:
    row = bench_future.frames_row(range(100_000, 100_001), steps=2)
    assert list(row.peers) == ["ddim_2", "flow_euler_2"] and row.ours(1) > 0
    before = torch.get_num_threads()
    assert all(peer() > 0 for peer in row.peers.values())
    torch.set_num_threads(before)
    facts = row.facts(1, 0.1)
    assert facts["moments"] == 2
    assert set(facts["psnr_db"]) == set(facts["ssim"]) == {"ours", "last_image", *row.peers}
    assert facts["psnr_db"]["ours"] > facts["psnr_db"]["ddim_2"] > 5  # two steps from noise are no picture yet


def test_slow_peers_run_less_often() -> None:
    row = Row("step", lambda threads: 0.001, threads=(1,), peers={"slow": lambda: 1.0}, peer_runs=2)
    (entry,) = measure([row], 6)
    assert entry["ours"]["n"] == 6 and entry["peers"]["slow"]["n"] == 2
