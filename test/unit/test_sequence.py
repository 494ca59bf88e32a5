"""Sequence models: causal, the same step by step, and faithful to the equations that they are named after."""

import cmath
import math

import pytest
import torch
from torch.nn import functional

from wm_ros.nn.sequence import MIXERS, Backbone, S4d, SelectiveSsm, scan

KINDS = sorted(MIXERS)
WIDTH = 16


def backbone(kind: str, layers: int = 2) -> Backbone:
    torch.manual_seed(0)
    return Backbone(kind, WIDTH, layers).eval()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_later_input_changes_no_earlier_output(kind):
    net, x = backbone(kind), torch.randn(2, 20, WIDTH)
    changed = x.clone()
    changed[:, 12:] = torch.randn(2, 8, WIDTH)
    before, after = net(x), net(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12], rtol=0, atol=1e-5)
    assert (before[:, 12:] - after[:, 12:]).abs().amax((0, 2)).min() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_early_input_changes_the_last_output(kind):
    net, x = backbone(kind).double(), torch.randn(2, 8, WIDTH).double()
    changed = x.clone()
    changed[:, 0] = torch.randn(2, WIDTH)
    assert (net(x)[:, -1] - net(changed)[:, -1]).abs().max() > 1e-6  # in double precision


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_one_input_after_another_gives_what_the_whole_sequence_gives(kind):
    net, x = backbone(kind), torch.randn(3, 25, WIDTH)
    state, outputs = None, []
    for index in range(x.shape[1]):
        output, state = net.step(x[:, index], state)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, 1), net(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    net = backbone(kind).train()
    net(torch.randn(2, 12, WIDTH)).square().mean().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead, dead


@torch.no_grad()
def test_the_kernel_of_s4d_is_the_answer_of_its_recurrence_to_an_impulse():
    torch.manual_seed(0)
    mixer, length = S4d(3, states=4), 40
    step, decay, frequency = mixer.log_step.exp(), mixer.log_decay.exp(), mixer.frequency
    c = torch.view_as_complex(mixer.c)
    kernel = mixer.kernel(length)
    for channel in range(3):
        states = [0j] * 4
        for index in range(length):
            answer = 0.0
            for n in range(4):
                a = complex(-float(decay[channel, n]), float(frequency[channel, n]))
                held = cmath.exp(a * float(step[channel]))
                states[n] = held * states[n] + (held - 1) / a * (index == 0)
                answer += 2 * (complex(c[channel, n]) * states[n]).real
            assert float(kernel[channel, index]) == pytest.approx(answer, abs=1e-5)


def test_s4d_starts_with_the_frequencies_and_the_decay_of_the_paper():
    mixer = S4d(2, states=3)
    assert mixer.frequency[0].tolist() == pytest.approx([0, math.pi, 2 * math.pi])
    assert (-mixer.log_decay.exp()).flatten().tolist() == pytest.approx([-0.5] * 6)
    assert ((mixer.log_step.exp() >= 1e-3) & (mixer.log_step.exp() <= 1e-1)).all()


@pytest.mark.parametrize("length", [1, 2, 7, 12, 33])
def test_the_scan_sums_what_was_added_and_decayed_since(length):
    torch.manual_seed(0)
    decay, drive = torch.rand(2, length, 3, 4), torch.randn(2, length, 3, 4)
    found = scan(decay, drive)
    for last in range(length):
        left = [drive[:, at] * decay[:, at + 1 : last + 1].prod(1) for at in range(last + 1)]
        torch.testing.assert_close(found[:, last], torch.stack(left).sum(0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_selective_model_is_its_equations():
    torch.manual_seed(0)
    mixer, u = SelectiveSsm(8, states=4, expand=2, taps=3), torch.randn(1, 10, 8)
    inner, hidden, outputs = 16, torch.zeros(16, 4), []
    entered = u[0] @ mixer.entry.weight.T
    x_in, z = entered[:, :inner], entered[:, inner:]
    a = -torch.exp(mixer.log_decay)
    for t in range(10):
        x = mixer.conv.bias.clone()
        for tap in range(3):  # the last tap sees the present
            if t - tap >= 0:
                x = x + mixer.conv.weight[:, 0, 2 - tap] * x_in[t - tap]
        x = x * torch.sigmoid(x)
        rank, b, c = torch.split(mixer.select.weight @ x, [1, 4, 4])
        delta = functional.softplus(mixer.to_step.weight @ rank + mixer.to_step.bias)
        for channel in range(inner):
            for n in range(4):
                held = torch.exp(delta[channel] * a[channel, n])
                hidden[channel, n] = held * hidden[channel, n] + delta[channel] * b[n] * x[channel]
        y = hidden @ c + mixer.d * x
        outputs.append(mixer.out.weight @ (y * functional.silu(z[t])))
    torch.testing.assert_close(mixer(u)[0], torch.stack(outputs), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_selective_model_forgets_what_the_input_tells_it_to():
    """With Δ large the state is what came last; with Δ near zero it stays as it was."""
    mixer = SelectiveSsm(8, states=4)
    x = torch.randn(1, 5, 16)
    mixer.to_step.weight.zero_()
    for bias, kept in ((-20.0, 1.0), (20.0, 0.0)):
        mixer.to_step.bias.fill_(bias)
        decay, _, _ = mixer.dynamics(x)
        torch.testing.assert_close(decay, torch.full_like(decay, kept), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["gru", "s4d"])
def test_it_learns_to_repeat_what_it_heard_some_steps_ago(kind):
    """Values of ±1, to be said again eight steps later: a guess is right half of the time."""
    delay, length = 8, 24
    torch.manual_seed(0)
    net, entry, said = Backbone(kind, 32, 1), torch.nn.Linear(1, 32), torch.nn.Linear(32, 1)
    parameters = [p for part in (net, entry, said) for p in part.parameters()]
    optimiser = torch.optim.AdamW(parameters, 1e-2)
    for _ in range(150):
        heard = torch.randint(2, (32, length, 1)) * 2.0 - 1
        output = said(net(entry(heard)))[:, delay:]
        loss = functional.mse_loss(output, heard[:, :-delay])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    heard = torch.randint(2, (64, length, 1)) * 2.0 - 1
    right = said(net(entry(heard)))[:, delay:].sign() == heard[:, :-delay]
    assert right.float().mean() > 0.75
