"""Real-time chunking: weights of the prefix, blending, and guidance against the published formulas."""

import math

import numpy as np
import pytest
import torch

from wm_ros.nn import flow
from wm_ros.policy.realtime import blend, guidance_weight, guide, prefix_weights


@pytest.mark.parametrize(("total", "committed", "horizon"), [(10, 3, 8), (10, 0, 10), (6, 2, 4)])
def test_weights_between_the_committed_prefix_and_the_horizon_are_those_published(
    total: int, committed: int, horizon: int
) -> None:
    c = [(horizon - i) / (horizon - committed + 1) for i in range(committed, horizon)]
    expected = {"linear": c, "exp": [x * (math.exp(x) - 1) / (math.e - 1) for x in c]}
    for schedule, between in expected.items():
        found = prefix_weights(total, committed, horizon, schedule)  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx([1.0] * committed + between + [0.0] * (total - horizon))


def test_schedules_ones_and_zeros_and_edges() -> None:
    assert prefix_weights(6, 2, 4, "ones").tolist() == [1, 1, 1, 1, 0, 0]
    assert prefix_weights(6, 2, 4, "zeros").tolist() == [1, 1, 0, 0, 0, 0]
    assert prefix_weights(4, 9, 9).tolist() == [1, 1, 1, 1], "committed to the end"
    assert prefix_weights(4, 3, 2).tolist() == [1, 1, 0, 0], "the horizon ends the prefix"
    assert prefix_weights(0, 0, 0).tolist() == []


def test_a_blend_keeps_the_prefix_fades_and_ends_as_the_new_chunk() -> None:
    running, new = np.zeros((6, 2)), np.ones((9, 2))
    found = blend(running, new, committed=2, fade=3)
    assert found[:, 0].tolist() == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1])
    short = blend(running[:3], new, committed=1, fade=8)
    assert short[:, 1].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]), "faded by its end"


@pytest.mark.parametrize("sigma", [0.9, 0.5, 0.2, 0.1])
def test_the_weight_of_the_guidance_is_that_published(sigma: float) -> None:
    tau = 1 - sigma
    expected = (1 - tau) / tau * ((1 - tau) ** 2 + tau**2) / (1 - tau) ** 2
    assert guidance_weight(sigma, most=100.0) == pytest.approx(expected)
    assert guidance_weight(sigma, most=0.5) == 0.5
    assert guidance_weight(1.0, most=7.0) == 7.0, "infinite at pure noise, so bounded"


def linear_field(rng: torch.Generator, size: int) -> tuple[torch.Tensor, flow.Velocity]:
    """v(z, σ) = A z + σ b on flattened chunks, whose Jacobian is known."""
    a, b = 0.3 * torch.randn(size, size, generator=rng), torch.randn(size, generator=rng)
    return a, lambda z, sigma: (z.flatten(1) @ a.T + sigma[:, None] * b).view_as(z)


@pytest.mark.parametrize("sigma", [0.75, 0.25])
def test_guided_velocity_of_a_linear_field_is_the_formula_worked_out_by_hand(sigma: float) -> None:
    rng = torch.Generator().manual_seed(0)
    a, velocity = linear_field(rng, 10)
    z, running = torch.randn(2, 5, 2, generator=rng), torch.randn(2, 5, 2, generator=rng)
    weights = torch.tensor([1.0, 1.0, 0.5, 0.25, 0.0])
    at = torch.full((2,), sigma)
    clean = z - sigma * velocity(z, at)
    error = ((running - clean) * weights[:, None]).flatten(1)
    pull = error @ (torch.eye(10) - sigma * a)  # errorᵀ · ∂clean/∂z
    tau = 1 - sigma
    weight = min(10.0, (1 - tau) / tau * ((1 - tau) ** 2 + tau**2) / (1 - tau) ** 2)
    expected = velocity(z, at) - weight * pull.view_as(z)
    torch.testing.assert_close(guide(velocity, running, weights)(z, at), expected)


def test_without_weights_nothing_is_guided() -> None:
    rng = torch.Generator().manual_seed(1)
    _, velocity = linear_field(rng, 6)
    z, sigma = torch.randn(3, 3, 2, generator=rng), torch.full((3,), 0.6)
    guided = guide(velocity, torch.full((3, 3, 2), 9.0), torch.zeros(3))
    torch.testing.assert_close(guided(z, sigma), velocity(z, sigma))


def test_guided_samples_begin_with_the_running_chunk_and_stay_likely() -> None:
    """Chunks are constant, at one of two heights: with noise alone half of the samples take the wrong one."""
    heights = torch.tensor([-1.0, 1.0])

    def velocity(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The exact velocity to chunks of one of the two heights, spread 0.05."""
        s = sigma.view(-1, 1, 1)
        variance = ((1 - s) * 0.05) ** 2 + s**2
        distance = [((z - (1 - s) * h) ** 2 / (2 * variance)).sum((1, 2)) for h in heights]
        share = torch.softmax(-torch.stack(distance), 0)
        clean = sum(
            p.view(-1, 1, 1) * (h + (1 - s) * 0.05**2 / variance * (z - (1 - s) * h))
            for p, h in zip(share, heights, strict=True)
        )
        return (z - clean) / s

    running, weights = torch.ones(64, 8, 1), torch.from_numpy(prefix_weights(8, 2, 5, "exp")).float()
    noise = torch.randn(64, 8, 1, generator=torch.Generator().manual_seed(2))
    free, held = flow.follow(velocity, noise, 10), flow.follow(guide(velocity, running, weights), noise, 10)
    wrong = [float((sample[:, :2].mean((1, 2)) < 0).float().mean()) for sample in (free, held)]
    assert 0.3 < wrong[0] < 0.7 and wrong[1] < 0.05
    assert (held[:, 5:].mean((1, 2)) - 1.0).abs().median() < 0.15, "the rest follows the prefix"
