"""What the past alone says of a chunk: fitted where there is something to learn, no further than held-out windows."""

import pytest
import torch

from wm_ros.policy.past import PastPath
from wm_ros.training.policy_past import PastWindows, fit_past, mean_error

JOINTS, HISTORY, STEPS, COMMANDS = 3, 4, 5, 2


def windows(count: int, seed: int, told: float = 0.0) -> PastWindows:
    """Joints that turn by the square of how fast they were, which no linear path can say; `told` by commands."""
    generator = torch.Generator().manual_seed(seed)
    speed = torch.randn(count, 1, JOINTS, generator=generator)
    joints = speed * torch.arange(1 - HISTORY, 1).view(1, -1, 1) * 0.1
    commands = joints[:, -COMMANDS:] + torch.randn(count, 1, JOINTS, generator=generator)
    turn = speed.square() - 1 + told * (commands[:, -1:] - joints[:, -1:])
    truth = joints[:, -1:] + turn * torch.arange(1, STEPS + 1).view(1, -1, 1) * 0.1
    pad = torch.zeros(count, HISTORY, dtype=torch.bool)
    return PastWindows(joints, pad, commands, pad[:, -COMMANDS:], truth, torch.zeros(count, STEPS, dtype=torch.bool))


def small(commands: int = 0) -> PastPath:
    return PastPath(JOINTS, HISTORY, STEPS, commands, width=64, members=2)


def error(path: PastPath, of: PastWindows) -> float:
    return float(mean_error(path(*of[:4]), of.change(), of.pad))


def straight_error(path: PastPath, of: PastWindows) -> float:
    return float(mean_error(path.straight(of.inputs(path)), of.change(), of.pad))


@pytest.mark.parametrize("commands", [0, COMMANDS])
def test_a_path_that_was_not_fitted_holds_still(commands):
    assert not small(commands)(*windows(5, 0)[:4]).any()


@pytest.mark.parametrize("commands", [0, COMMANDS])
def test_the_mlp_learns_what_the_linear_path_cannot_say(commands):
    torch.manual_seed(0)
    path, unseen = small(commands), windows(300, 2, told=float(commands > 0))
    steps = fit_past(path, windows(3000, 1, told=float(commands > 0)), unseen)
    assert min(steps) > 0
    assert error(path, unseen) < 0.6 * straight_error(path, unseen)


def test_commands_say_what_joints_do_not():
    torch.manual_seed(0)
    deaf, hearing = small(), small(COMMANDS)
    seen, unseen = windows(2000, 1, told=2.0), windows(300, 2, told=2.0)
    for path in (deaf, hearing):
        fit_past(path, seen, unseen)
    assert error(hearing, unseen) < 0.4 * error(deaf, unseen)


def test_a_hand_that_opens_or_not_is_not_left_half_open():
    """Opened in seven of ten, by nothing that is seen: nearest on average is to open it, not to open it by 0.7."""
    generator = torch.Generator().manual_seed(0)

    def hands(count: int) -> PastWindows:
        opened = (torch.rand(count, 1, JOINTS, generator=generator) < 0.7).float()
        one = windows(count, 3)
        return one._replace(truth=one.joints[:, -1:] + opened.expand(-1, STEPS, -1))

    torch.manual_seed(0)
    path, seen, unseen = small(), hands(2000), hands(500)
    fit_past(path, seen, unseen)
    assert straight_error(path, unseen) > 0.4
    assert error(path, unseen) < 0.33


def test_a_past_that_says_nothing_leaves_the_linear_path_alone():
    torch.manual_seed(0)
    seen, unseen = windows(400, 1), windows(300, 2)
    seen, unseen = (w._replace(truth=w.joints[:, -1:] + torch.randn(w.truth.shape)) for w in (seen, unseen))
    path = small()
    fit_past(path, seen, unseen)
    assert error(path, unseen) <= straight_error(path, unseen)


def test_what_is_padded_is_not_looked_at():
    path, one = small(COMMANDS), windows(4, 0)
    torch.nn.init.normal_(path.linear.weight)
    joints_pad, commands_pad = one.joints_pad.clone(), one.commands_pad.clone()
    joints_pad[:, :2], commands_pad[:, :1] = True, True
    joints, commands = one.joints.clone(), one.commands.clone()
    joints[:, :2], commands[:, :1] = 7.0, float("nan")
    found = path(joints, joints_pad, commands, commands_pad)
    assert torch.equal(found, path(one.joints, joints_pad, one.commands, commands_pad))
    assert not torch.equal(found, path(*one[:4]))


def test_padded_steps_of_the_chunk_are_not_learned_from():
    seen, unseen = windows(500, 1), windows(100, 2)
    pad = torch.zeros_like(seen.pad)
    pad[::2, 2:] = True
    wrong = torch.where(pad[..., None], torch.full_like(seen.truth, 50.0), seen.truth)
    path, other = small(), small()
    other.load_state_dict(path.state_dict())
    fit_past(path, seen._replace(pad=pad), unseen)
    fit_past(other, seen._replace(pad=pad, truth=wrong), unseen)
    assert torch.allclose(path(*unseen[:4]), other(*unseen[:4]), atol=1e-4)


def test_a_path_that_hears_commands_wants_them():
    one = windows(2, 0)
    with pytest.raises(ValueError, match="hears commands"):
        small(COMMANDS)(one.joints, one.joints_pad)


def test_the_fit_is_frozen_repeatable_and_leaves_others_random_numbers_alone():
    seen, unseen = windows(300, 1), windows(100, 2)
    first = small()
    second = small()
    second.load_state_dict(first.state_dict())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit_past(first, seen, unseen)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    fit_past(second, seen, unseen)
    assert torch.equal(first(*unseen[:4]), second(*unseen[:4]))
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert not any(network.training for network in first.networks)


def test_windows_come_from_a_batch_of_the_training_set():
    batch = {
        "joints": torch.randn(2, 6, JOINTS),
        "commands": torch.randn(2, 6, JOINTS),
        "pad": torch.zeros(2, 6, dtype=torch.bool),
        "commands_future": torch.randn(2, STEPS, JOINTS),
        "pad_future": torch.zeros(2, STEPS, dtype=torch.bool),
    }
    batch["pad"][0, :5] = True
    batch["commands"][1, -2:] = float("nan")
    batch["commands_future"][1, 0] = float("nan")
    batch["pad_future"][0, 4] = True
    found = PastWindows.of(batch, HISTORY, 3)
    assert torch.equal(found.joints, batch["joints"][:, 2:])
    assert found.joints_pad.tolist() == [[True, True, True, False], [False] * 4]
    assert found.commands_pad.tolist() == [[True, True, False], [False, True, True]]
    assert found.pad.tolist() == [[False] * 4 + [True], [True] + [False] * 4]
    assert found.truth.isfinite().all() and found.commands.isfinite().all()
    assert PastWindows.of(batch, HISTORY).commands.shape == (2, 0, JOINTS)
