"""The flow expert: it draws one of two ways where a regression goes between them, and goes on from a running chunk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from policy_parts import CONFIG, NAMES, at, joints, tokens

from wm_ros.nn.language import batch_ids
from wm_ros.policy import Policy
from wm_ros.policy.config import PolicyModelConfig, TransformerConfig
from wm_ros.policy.context import Observation
from wm_ros.policy.head import PolicyHead
from wm_ros.types import ActionChunk

STEPS = 6
SIZES = TransformerConfig(width=24, heads=2, layers=1, feedforward=48, dropout=0.0)
FLOW = CONFIG.model_copy(update={"decoder": "flow", "chunk_steps": STEPS, "transformer": SIZES, "flow_steps": 8})
SPEED = 0.08  # rad for each step of the two ways, up or down; of an absolute head the places are ±0.3 rad


def seen_by(now: torch.Tensor) -> Observation:
    """Moments that say nothing of the way that will be taken; the joints rest at `now` (B, 3)."""
    count = len(now)
    return Observation(
        joints=now[:, None].expand(-1, FLOW.joint_history, -1),
        joints_pad=torch.zeros(count, FLOW.joint_history, dtype=torch.bool),
        text=batch_ids([""] * count),
        state=torch.randn(count, 2, 2, 8),
        state_pad=torch.zeros(count, 2, dtype=torch.bool),
    )


def demonstrations(relative: bool, count: int) -> tuple[Observation, torch.Tensor]:
    """Half of them go up and half down; all joints go the same way, with a little noise."""
    way = torch.sign(torch.randn(count))[:, None, None]
    now = 0.1 * torch.randn(count, 3)
    steps = torch.arange(1, STEPS + 1)[:, None]
    commands = now[:, None] + SPEED * steps * way if relative else 0.3 * way.expand(-1, STEPS, 3)
    return seen_by(now), commands + 0.01 * torch.randn(count, STEPS, 3)


def train(config: PolicyModelConfig, updates: int = 300, batch: int = 64) -> PolicyHead:
    torch.manual_seed(0)
    head = PolicyHead(config)
    torch.nn.init.normal_(head.inertia.weight, std=0.2)  # so that what the linear path says is not nothing
    norm = head.context.norm
    seen, commands = demonstrations(config.relative, 2000)
    actions = commands - (seen.joints[:, -1:] if config.relative else 0.0)
    norm.action_mean.copy_(actions.mean(0))
    norm.action_std.copy_(actions.std(0))
    norm.joint_std.fill_(0.1)
    optimiser = torch.optim.AdamW(head.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=updates)
    unknown = torch.zeros(batch, STEPS, dtype=torch.bool)
    for _ in range(updates):
        seen, commands = demonstrations(config.relative, batch)
        loss = head.action_loss(seen, *head.context(seen), commands, unknown, balanced=True)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return head.eval()


@pytest.fixture(scope="module", params=["relative", "absolute"])
def head(request: pytest.FixtureRequest) -> PolicyHead:
    return train(FLOW.model_copy(update={"relative": request.param == "relative"}))


def ends(head: PolicyHead, count: int = 200) -> torch.Tensor:
    """Where chunks end that are drawn where the joints are at 0, as a share of the way up: (count,)."""
    seen, noise = seen_by(torch.zeros(count, 3)), torch.randn(count, STEPS, 3)
    with torch.no_grad():
        chunk = head.decode(seen, *head.context(seen), noise)
    return chunk[:, -1].mean(1) / (SPEED * STEPS if head.config.relative else 0.3)


def test_a_flow_draws_both_ways_and_hardly_anything_between(head: PolicyHead) -> None:
    torch.manual_seed(1)
    end = ends(head)
    near = (end.abs() - 1.0).abs() < 0.35
    assert 0.3 < (end > 0).float().mean() < 0.7
    assert near.float().mean() > 0.9, f"{int((~near).sum())} of {len(near)} go neither way"


def test_a_regression_goes_between_them() -> None:
    config = FLOW.model_copy(update={"decoder": "regression"})
    torch.manual_seed(1)
    assert ends(train(config)).abs().max() < 0.5


def test_padded_steps_do_not_count() -> None:
    torch.manual_seed(0)
    head = PolicyHead(FLOW).eval()
    seen, commands = demonstrations(True, 4)
    unknown = torch.arange(STEPS).expand(4, -1) >= torch.tensor([STEPS, 4, 2, 0])[:, None]  # all of the last one
    losses = []
    for value in (0.0, 5.0):
        torch.manual_seed(1)
        given = torch.where(unknown[..., None], value, commands)
        losses.append(head.action_loss(seen, *head.context(seen), given, unknown, balanced=True))
    assert torch.isfinite(losses[0]) and losses[0] > 0
    torch.testing.assert_close(losses[0], losses[1])
    losses[0].backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in head.parameters())


def policy_of(head: PolicyHead) -> Policy:
    return Policy(head.config, head)


def draw(policy: Policy, step: float, now: tuple[float, ...] = (0.0, 0.0, 0.0)) -> ActionChunk:
    """The chunk of the state at a step, where the joints are `now`."""
    policy.step(joints(step, now))
    prediction = policy.step(tokens(step))
    assert prediction is not None, policy.withheld
    return prediction.chunk


def test_reset_brings_the_same_chunk_again_and_what_follows_is_another(head: PolicyHead) -> None:
    policy = policy_of(head)
    first, second = draw(policy, 0), draw(policy, 1)
    assert np.abs(first.position_rad - second.position_rad).max() > 1e-3
    policy.reset()
    np.testing.assert_array_equal(draw(policy, 0).position_rad, first.position_rad)
    np.testing.assert_array_equal(draw(policy_of(head), 0).position_rad, first.position_rad)


def test_a_chunk_goes_on_from_the_one_that_runs(head: PolicyHead) -> None:
    """Two steps of it have passed, two more pass while the next is computed; those are what it must begin with."""
    policy, period_ns, passed = policy_of(head), round(1e9 / FLOW.rate_hz), 2
    far: dict[str, list[float]] = {"free": [], "steered": []}
    for number in range(12):
        start = 100.0 * number
        policy.running = None
        chunk = draw(policy, start)
        assert chunk.names == NAMES
        # An absolute head was trained where the joints are near 0.
        now = tuple(chunk.position_rad[passed - 1].tolist()) if head.config.relative else (0.0, 0.0, 0.0)
        for name, running in (("free", None), ("steered", (chunk, 2 * period_ns))):
            policy.running = running
            found = draw(policy, start + passed, now)
            far[name].append(float(np.abs(found.position_rad[:2] - chunk.position_rad[passed : passed + 2]).mean()))
    assert np.mean(far["steered"]) < 0.07, far["steered"]
    assert np.mean(far["free"]) > 3 * np.mean(far["steered"]), far
    assert max(far["steered"]) < 0.16, "none takes the other way"


def test_a_chunk_that_is_over_steers_nothing(head: PolicyHead) -> None:
    policy = policy_of(head)
    over = replace(draw(policy, 0), stamp_ns=at(-100))
    policy.reset()
    free = draw(policy, 0).position_rad
    policy.reset()
    policy.running = over, 0
    np.testing.assert_array_equal(draw(policy, 0).position_rad, free)
