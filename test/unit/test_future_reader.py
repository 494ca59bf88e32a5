"""The reader of hands: what it learns, and what a check of drawn frames says with it."""

import pytest
import torch

from wm_ros.future.reader import HandReader, hand_error_m


def scenes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents with a blob for each hand, and the wrists that put them there."""
    generator = torch.Generator().manual_seed(seed)
    hands = torch.rand(count, 6, generator=generator) * 2 - 1
    down, across = torch.meshgrid(torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 8), indexing="ij")
    blobs = [
        torch.exp(-((across - hands[:, i, None, None]) ** 2 + (down - hands[:, i + 1, None, None]) ** 2) / 0.1)
        for i in (0, 3)
    ]
    latents = torch.stack([*blobs, torch.rand(count, 6, 8, generator=generator)], 1)
    hands[:, [2, 5]] = 0.0  # depth does not show
    return latents, hands


@pytest.fixture(scope="module")
def reader() -> HandReader:
    torch.manual_seed(0)
    reader = HandReader(3, (6, 8), 16, kinds=1)
    optimiser = torch.optim.AdamW(reader.parameters(), lr=3e-3)
    for step in range(300):
        latents, hands = scenes(64, step)
        optimiser.zero_grad()
        reader.loss(latents, hands).backward()
        optimiser.step()
    return reader.eval()


@torch.no_grad()
def test_it_learns_where_the_hands_are(reader):
    latents, hands = scenes(200, 10_000)
    error = (reader(latents) - hands).unflatten(-1, (2, 3)).norm(dim=-1).mean()
    spread = (hands - hands.mean(0)).unflatten(-1, (2, 3)).norm(dim=-1).mean()
    assert float(error) < 0.35 * float(spread)


@torch.no_grad()
def test_a_frame_on_another_trajectory_is_found_out(reader):
    (now_latent, now), (latents, hands) = scenes(100, 20_000), scenes(100, 20_001)
    read = reader.moved(now, now_latent, latents[:, None])
    right = hand_error_m(read, now, hands[:, None])
    wrong = hand_error_m(read, now, hands.roll(1, 0)[:, None])
    assert right.shape == (100, 1) and float(right.mean()) < 0.5 * float(wrong.mean())


@torch.no_grad()
def test_what_it_reads_is_a_change_so_that_a_constant_fault_falls_out(reader):
    (latent, now), (latents, _) = scenes(5, 1), scenes(5, 2)
    before = reader.moved(now, latent, latents[:, None])
    reader.mean += 0.7
    assert torch.allclose(before, reader.moved(now, latent, latents[:, None]), atol=1e-5)
    reader.mean -= 0.7
    assert torch.allclose(reader.moved(now, latent, latent[:, None])[:, 0], now, atol=1e-5)


def test_judged_is_the_wrist_that_goes_further():
    now = torch.zeros(1, 6)
    wanted = torch.tensor([[[0.1, 0, 0, 0.2, 0, 0], [0.3, 0, 0, 0.2, 0, 0]]])
    read = torch.tensor([[[0.1, 0, 0, 0.0, 0, 0], [0.0, 0, 0, 0.2, 0, 0]]])
    assert torch.allclose(hand_error_m(read, now, wanted), torch.tensor([[0.2, 0.3]]))
