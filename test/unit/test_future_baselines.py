"""Trajectories without a network do what their names say."""

import torch

from wm_ros.future.baselines import PhaseTable, Ridge, constant_velocity, hold


def test_hold_repeats_the_last_state():
    body = torch.randn(2, 5, 4)
    assert torch.equal(hold(body, 3), body[:, -1:].expand(2, 3, 4))


def test_constant_velocity_takes_the_last_three_states_and_fades():
    body = torch.tensor([0.0, 9.0, 1.0, 2.0, 3.0]).view(1, 5, 1)  # velocity of the last three: 1 per step
    future = constant_velocity(body, 3, damping=0.5)[0, :, 0]
    assert torch.allclose(future, torch.tensor([4.0, 4.5, 4.75]))


def test_ridge_recovers_a_linear_motion_that_it_was_fitted_on():
    generator = torch.Generator().manual_seed(0)
    start, speed = torch.randn(200, 1, 3, generator=generator), torch.randn(200, 1, 3, generator=generator)
    course = start + speed * torch.arange(12.0)[None, :, None]
    ridge = Ridge(3, 4, 6)
    ridge.fit(course[:, :6], course[:, 6:], strength=1e-8)
    assert torch.allclose(ridge(course[:, :6]), course[:, 6:], atol=1e-3)


def test_a_strong_ridge_predicts_the_mean_displacement():
    generator = torch.Generator().manual_seed(0)
    past = torch.randn(100, 4, 2, generator=generator)
    future = past[:, -1:] + torch.tensor([0.5, -1.0]) + torch.zeros(100, 3, 2)
    ridge = Ridge(2, 4, 3)
    ridge.fit(past, future, strength=1e9)
    assert torch.allclose(ridge(past) - past[:, -1:], torch.tensor([0.5, -1.0]).expand(100, 3, 2), atol=1e-4)


def test_phase_adds_the_change_of_the_mean_course_to_the_last_state():
    table = PhaseTable(1, bins=11)
    table.fit([torch.arange(0.0, 11.0)[:, None]], rate_hz=10.0, mean_episode_s=1.0)  # 1 per tenth of a second
    body = torch.full((1, 3, 1), 7.0)
    future = table(body, torch.tensor([0.1, 0.25]), torch.tensor([0.4]), 1.0)
    assert torch.allclose(future[0, :, 0], torch.tensor([8.0, 9.5]), atol=1e-4)


def test_phase_holds_beyond_the_mean_length_of_an_episode():
    table = PhaseTable(1, bins=11)
    table.fit([torch.arange(0.0, 11.0)[:, None]], rate_hz=10.0, mean_episode_s=1.0)
    future = table(torch.zeros(1, 3, 1), torch.tensor([0.5]), torch.tensor([3.0]), 1.0)
    assert torch.allclose(future, torch.zeros(1, 1, 1))
