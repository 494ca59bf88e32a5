"""What the past alone says of a chunk: fitted where there is something to learn, no further than unseen windows."""

import pytest
import torch
from policy_parts import CONFIG, make_head
from test_policy_head import observation

from wm_ros.policy.config import PastConfig
from wm_ros.policy.context import Observation
from wm_ros.policy.head import PolicyHead
from wm_ros.policy.past import PastPath, Pasts
from wm_ros.training.held_out import fit_held_out
from wm_ros.training.policy_past import PastWindows, calibrate, fit_past, fit_pasts, fit_ridge, mean_error

JOINTS, HISTORY, STEPS, COMMANDS, PARTS = 3, 4, 5, 2, 2
HEARS = CONFIG.model_copy(update={"past": PastConfig(commands=COMMANDS, members=2, width=8, kinds=2)})


def windows(count: int, seed: int, told: float = 0.0) -> PastWindows:
    """Joints that turn by the square of how fast they were, which no linear path can say; `told` by commands."""
    generator = torch.Generator().manual_seed(seed)
    speed = torch.randn(count, 1, JOINTS, generator=generator)
    joints = speed * torch.arange(1 - HISTORY, 1).view(1, -1, 1) * 0.1
    commands = joints[:, -COMMANDS:] + torch.randn(count, 1, JOINTS, generator=generator)
    turn = speed.square() - 1 + told * (commands[:, -1:] - joints[:, -1:])
    truth = joints[:, -1:] + turn * torch.arange(1, STEPS + 1).view(1, -1, 1) * 0.1
    pad = torch.zeros(count, HISTORY, dtype=torch.bool)
    known = torch.zeros(count, STEPS, dtype=torch.bool)
    return PastWindows(joints, pad, commands, pad[:, -COMMANDS:], truth, known, torch.arange(count) % PARTS)


def small(commands: int = 0) -> PastPath:
    return PastPath(JOINTS, HISTORY, STEPS, commands, width=64, members=2)


def error(path: PastPath, of: PastWindows) -> float:
    return float(mean_error(path(*of[:4]), of.change(), of.pad))


def staying_error(path: PastPath, of: PastWindows) -> float:
    return float(mean_error(path.staying(of.inputs(path)), of.change(), of.pad))


def ridge_error(path: PastPath, fitted: PastWindows, of: PastWindows) -> float:
    coefficients = fit_ridge(fitted, fitted.inputs(path))
    said = (coefficients[0] + of.inputs(path) @ coefficients[1:]).unflatten(1, path.size)
    return float(mean_error(said, of.change(), of.pad))


def test_a_path_that_was_not_fitted_holds_still_or_stays_at_the_last_command():
    one = windows(5, 0)
    assert not small()(*one[:4]).any()
    there = one.commands[:, -1:] - one.joints[:, -1:]
    torch.testing.assert_close(small(COMMANDS)(*one[:4]), there.expand(-1, STEPS, -1))
    unknown = torch.ones_like(one.commands_pad)
    assert not small(COMMANDS)(one.joints, one.joints_pad, one.commands, unknown).any()


@pytest.mark.parametrize("commands", [0, COMMANDS])
def test_the_mlps_learn_what_ridge_cannot_say(commands):
    torch.manual_seed(0)
    path, unseen = small(commands), windows(300, 2, told=float(commands > 0))
    seen = windows(3000, 1, told=float(commands > 0))
    assert min(fit_past(path, seen)) > 0
    assert error(path, unseen) < 0.6 * ridge_error(path, seen, unseen)


def test_ridge_finds_what_is_linear_and_is_as_strong_as_unseen_parts_like():
    seen, unseen = windows(2000, 1), windows(300, 2)
    linear = [
        w._replace(truth=(3.0 * w.joints[:, -1:] - 2.0 * w.joints[:, :1]).expand(-1, STEPS, -1)) for w in (seen, unseen)
    ]
    path = small()
    assert ridge_error(path, *linear) < 0.01 * staying_error(path, linear[1])
    noise = [w._replace(truth=w.joints[:, -1:] + torch.randn(w.truth.shape)) for w in (seen, unseen)]
    assert ridge_error(path, *noise) < 1.02 * staying_error(path, noise[1])


def test_commands_say_what_joints_do_not():
    torch.manual_seed(0)
    deaf, hearing = small(), small(COMMANDS)
    seen, unseen = windows(2000, 1, told=2.0), windows(300, 2, told=2.0)
    for path in (deaf, hearing):
        fit_past(path, seen)
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
    fit_past(path, seen)
    assert ridge_error(path, seen, unseen) > 0.4
    assert error(path, unseen) < 0.33


def test_a_past_that_says_nothing_is_not_learned_by_heart():
    torch.manual_seed(0)
    seen = windows(400, 1)
    seen = seen._replace(truth=seen.joints[:, -1:] + torch.randn(seen.truth.shape))
    path = small()
    steps = fit_past(path, seen)
    for number, trained in enumerate(steps):
        own = PastWindows._make(field[seen.part == number] for field in seen)
        inputs = own.inputs(path)
        found = mean_error(path.staying(inputs) + path.member(number, inputs), own.change(), own.pad)
        assert found < staying_error(path, own) if trained else found == staying_error(path, own)


def test_each_mlp_learns_from_all_parts_but_its_own():
    """In part 2 alone joints are far to either side, and go up there: its own MLP cannot know."""
    torch.manual_seed(0)
    seen = windows(3000, 1)
    number = torch.arange(3000)
    far = torch.where(number % 2 == 0, 3.0, -3.0)[:, None, None] * (number % 3 == 2)[:, None, None]
    truth = seen.truth + far + 2.0 * (far != 0)
    seen = seen._replace(joints=seen.joints + far, truth=truth, part=number % 3)
    path = PastPath(JOINTS, HISTORY, STEPS, width=64, members=3)
    fit_past(path, seen)
    inputs, change = (value[seen.part == 2] for value in (seen.inputs(path), seen.change()))
    errors = [float((path.staying(inputs) + path.member(one, inputs) - change).abs().mean()) for one in range(3)]
    assert max(errors[:2]) < 0.7 * errors[2]


def test_what_is_padded_is_not_looked_at():
    path, one = small(COMMANDS).eval(), windows(4, 0)
    for network in path.networks:
        torch.nn.init.normal_(network[-1].weight)
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
    fit_past(path, seen._replace(pad=pad))
    fit_past(other, seen._replace(pad=pad, truth=wrong))
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
    fit_past(first, seen)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    fit_past(second, seen)
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
        "episode": torch.tensor([7, 9]),
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
    assert found.part.tolist() == [0, 1]
    assert PastWindows.of(batch, HISTORY).commands.shape == (2, 0, JOINTS)


# ------------------------------------------------------------------------- in a head


def told(known: bool = True, batch: int = 3, seed: int = 0) -> Observation:
    """What a head that hears commands sees."""
    generator = torch.Generator().manual_seed(seed)
    commands = torch.randn(batch, COMMANDS, JOINTS, generator=generator)
    pad = torch.full((batch, COMMANDS), not known)
    return observation(batch, seed)._replace(commands=commands, commands_pad=pad)


def hearing_head() -> PolicyHead:
    """Its paths say something of their own each; joint 0 above 0 is kind 1."""
    head = make_head(HEARS)
    assert head.past is not None
    for path in (*head.past.deaf, *head.past.hearing):
        for network in path.networks:
            torch.nn.init.normal_(network[-1].weight)
    head.past.kinds.weight[0, 1] = 1.0
    return head


def test_a_head_adds_to_its_path_as_far_as_it_is_heeded():
    head, seen = hearing_head(), told()
    assert head.past is not None
    ends = []
    for heed in (0.0, 1.0, 0.25):
        head.past.heed.fill_(heed)
        ends.append(head(seen))
    path, _ = head.past(seen)
    torch.testing.assert_close(ends[0], seen.joints[:, -1:] + path)
    torch.testing.assert_close(ends[2], ends[0].lerp(ends[1], 0.25))
    assert not torch.allclose(ends[0], ends[1])


def test_commands_are_heard_where_they_are_known_and_only_there():
    head, known, unknown = hearing_head(), told(), told(known=False)
    moved = known.commands + 1.0
    assert not torch.allclose(head(known), head(known._replace(commands=moved)))
    torch.testing.assert_close(head(unknown), head(unknown._replace(commands=moved)))
    torch.testing.assert_close(head(unknown), head(unknown._replace(commands=None, commands_pad=None)))
    mixed = known._replace(commands_pad=torch.tensor([[False, False], [True, True], [True, False]]))
    torch.testing.assert_close(head(mixed)[0], head(known)[0])
    torch.testing.assert_close(head(mixed)[1], head(unknown)[1])
    assert not torch.allclose(head(mixed)[2], head(known)[2]), "an earlier command is not known"


def test_each_kind_of_recording_has_a_path_of_its_own():
    head, seen = hearing_head(), told()
    assert head.past is not None
    kind = head.past.kind(seen.joints)
    assert kind.tolist() == (seen.joints[:, -1, 0] > 0).long().tolist() and set(kind.tolist()) == {0, 1}
    before = head(seen)
    head.past.hearing[1].left_open += 1.0
    changed = (head(seen) - before).abs().amax((1, 2)) > 0.5
    assert changed.tolist() == (kind == 1).tolist()


def batch_of_two_robots(count: int = 1200) -> dict[str, torch.Tensor]:
    """One whose joints go on as they went, one whose joints turn back; the second stands elsewhere."""
    generator = torch.Generator().manual_seed(0)
    speed = torch.randn(count, 1, JOINTS, generator=generator) * 0.1
    source = torch.arange(count) % 2
    where = 4.0 * source[:, None, None]
    way = torch.where(source[:, None, None] == 0, speed, -speed)
    return {
        "source": source,
        "episode": torch.arange(count) // 2 % 10,
        "joints": where + speed * torch.arange(1 - HISTORY, 1).view(1, -1, 1),
        "commands": torch.randn(count, HISTORY, JOINTS, generator=generator),
        "pad": torch.zeros(count, HISTORY, dtype=torch.bool),
        "commands_future": where + way * torch.arange(1, 16).view(1, -1, 1),
        "pad_future": torch.zeros(count, 15, dtype=torch.bool),
    }


def test_paths_are_fitted_to_their_own_sources_and_told_apart_by_joints():
    pasts, batch = Pasts(HEARS, HEARS.past), batch_of_two_robots()
    ridge = fit_pasts(pasts, batch, HISTORY, HEARS.past)
    assert set(ridge) == {"0", "0_commands", "1", "1_commands"}
    seen = observation(len(batch["source"]))._replace(joints=batch["joints"], joints_pad=batch["pad"])
    assert pasts.kind(seen.joints).tolist() == batch["source"].tolist()
    told_too = seen._replace(commands=batch["commands"][:, -COMMANDS:], commands_pad=batch["pad"][:, -COMMANDS:])
    truth, now = batch["commands_future"], seen.joints[:, -1:]
    # Each path against what it starts from: holding the joints, and repeating the last command (noise in here).
    for given, start in ((seen, now), (told_too, batch["commands"][:, -1:])):
        error = (now + pasts(given)[0] - truth).abs().mean()
        assert error < 0.75 * (start - truth).abs().mean()


def test_what_makes_held_out_windows_worse_is_not_heeded_and_what_helps_is():
    head = hearing_head()
    assert head.past is not None
    seen = told(batch=40)
    kind = head.past.kind(seen.joints)
    head.past.heed.fill_(0.0)
    paths = {True: head(seen), False: head(seen._replace(commands=None, commands_pad=None))}
    head.past.heed.fill_(1.0)
    whole = head(seen._replace(commands=None, commands_pad=None))
    # Kind 0 does what the paths say and kind 1 what is said in whole, where nothing was commanded.
    truth = torch.where((kind == 0)[:, None, None], paths[False], whole)
    facts = calibrate(head, seen, truth, torch.zeros(40, 15, dtype=torch.bool))
    assert head.past.heed[:, 0].tolist() == [0.0, 1.0]
    assert facts["heed_0"] == 0.0 and facts["heed_1"] == 1.0 and facts["heeded_1"] < facts["unheeded_1"]


def test_without_examples_a_network_is_left_as_it_is():
    network = torch.nn.Linear(2, 1)
    before = network.weight.clone()
    assert fit_held_out(network, 0, lambda rows: network.weight.sum(), lambda: 1.0) == 0
    torch.testing.assert_close(network.weight, before)
    assert not network.weight.requires_grad
