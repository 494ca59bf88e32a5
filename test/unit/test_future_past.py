"""What the past alone says: fitted where there is something to learn, and no further than held-out windows like it."""

import pytest
import torch

from wm_ros.future.config import FutureConfig, SamplesConfig, TrajectoryConfig
from wm_ros.future.model import FutureModel
from wm_ros.training.future_past import Member, fit_past

CONFIG = FutureConfig(
    state_width=16,
    image_height=32,
    image_width=64,
    horizon_steps=15,
    trajectory=TrajectoryConfig(width=32, layers=1, heads=2, past_width=64),
    samples=SamplesConfig(count=4, steps=2, coefficients=4, width=16),
)


def windows(count: int, seed: int, told: float = 0.0) -> dict[str, torch.Tensor]:
    """Hands that turn by the square of how fast they were, which no linear path can say; `told` by commands."""
    generator = torch.Generator().manual_seed(seed)
    steps, ahead, values = CONFIG.history_steps, CONFIG.horizon_steps, CONFIG.values
    speed = torch.randn(count, 1, values, generator=generator)
    asked = torch.randn(count, 1, 26, generator=generator)
    body = speed * torch.arange(1 - steps, 1).view(1, -1, 1) * 0.1
    turn = speed.square() - 1 + told * asked[..., :1]
    return {
        "body": body,
        "asked": asked.expand(-1, steps, -1),
        "states": torch.zeros(count, 2, 2, 16),
        "known": torch.ones(count, 6, dtype=torch.bool),
        "future": body[:, -1:] + turn * torch.arange(1, ahead + 1).view(1, -1, 1) * 0.1,
        "there": torch.ones(count, ahead, dtype=torch.bool),
    }


def error(model: FutureModel, commanded: bool, of: dict[str, torch.Tensor]) -> float:
    return float(Member(model.trajectory, 0, commanded).loss(of).detach())


@pytest.mark.parametrize("commanded", [False, True])
def test_the_mlp_learns_what_the_linear_path_cannot_say(commanded):
    torch.manual_seed(0)
    model = FutureModel(CONFIG).eval()
    model.norm.body_std.fill_(0.4)
    unseen = windows(300, 2, told=float(commanded))
    before = error(model, commanded, unseen)
    fit_past(model.trajectory, windows(3000, 1, told=float(commanded)), unseen, 0, commanded)
    assert error(model, commanded, unseen) < 0.6 * before


def test_a_past_that_says_nothing_leaves_the_linear_path_alone():
    torch.manual_seed(0)
    model = FutureModel(CONFIG).eval()
    seen, unseen = windows(400, 1), windows(300, 2)
    for each in (seen, unseen):  # futures of somebody else
        each["future"] = each["body"][:, -1:] + torch.randn(each["future"].shape)
    before = error(model, False, unseen)
    fit_past(model.trajectory, seen, unseen, 0, False)
    assert error(model, False, unseen) <= before


def test_the_fitted_past_is_not_trained_on():
    model = FutureModel(CONFIG)
    fit_past(model.trajectory, windows(300, 1), windows(100, 2), 0, False)
    frozen = [
        p.requires_grad for part in (model.trajectory.past, model.trajectory.past_asked) for p in part.parameters()
    ]
    assert not any(frozen)
