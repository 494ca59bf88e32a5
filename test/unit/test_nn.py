"""Shared network blocks: what a caller may rely on."""

import numpy as np
import pytest
import torch

from wm_ros.nn.attention import TransformerBlock
from wm_ros.nn.autoencoder import AutoencoderConfig, ImageAutoencoder
from wm_ros.nn.ema import Ema
from wm_ros.nn.flow import conditional_mean, guided, interpolate, logit_normal_times, sample, velocity_loss
from wm_ros.nn.image_quality import psnr, ssim
from wm_ros.nn.preprocessing import resize_area, to_tensor, to_uint8


def smooth_images(count: int, seed: int = 0) -> torch.Tensor:
    """Random images (count, 3, 32, 48) without fine detail."""
    coarse = torch.rand(count, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(32, 48), mode="bilinear", align_corners=False)


@pytest.mark.parametrize("height, width", [(96, 128), (192, 256), (1, 1), (7, 1000), (101, 33)])
def test_any_image_size_becomes_the_models_size(height, width):
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = resize_area(rgb, 96, 128)
    assert small.shape == (96, 128, 3) and small.dtype == np.uint8


def test_shrinking_averages_areas():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2, :2] = np.array([[100, 102], [104, 106]], np.uint8)[..., None]
    assert resize_area(rgb, 2, 2)[..., 0].tolist() == [[103, 0], [0, 0]]


def test_pixels_survive_the_way_to_tensors_and_back():
    rgb = np.random.default_rng(1).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    tensor = to_tensor(rgb)
    assert tensor.shape == (2, 3, 5, 6) and tensor.min() >= 0 and tensor.max() <= 1
    assert np.array_equal(to_uint8(tensor), rgb)


def test_quality_of_equal_images_is_perfect_and_falls_with_noise():
    images = smooth_images(2)
    assert psnr(images, images).tolist() == [100.0, 100.0]
    assert torch.allclose(ssim(images, images), torch.ones(2))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    assert psnr(images + 0.1 * noise, images).mean() == pytest.approx(20.0, abs=0.3)
    assert (ssim(images + 0.1 * noise, images) < ssim(images + 0.01 * noise, images)).all()


def test_times_of_the_flow_are_inside_and_mostly_in_the_middle():
    sigma = logit_normal_times(4000, generator=torch.Generator().manual_seed(0))
    assert sigma.min() > 0 and sigma.max() < 1
    assert sigma.mean() == pytest.approx(0.5, abs=0.02)
    assert ((sigma > 0.25) & (sigma < 0.75)).float().mean() > 0.7


def test_flow_runs_from_data_to_noise():
    clean, noise = torch.zeros(2, 3), torch.ones(2, 3)
    assert interpolate(clean, noise, torch.tensor([0.0, 1.0])).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_true_velocity_has_no_loss_and_samples_the_data_exactly():
    # With a single datum the velocity is known: (z − datum) / σ.
    datum = torch.tensor([[0.5, -2.0, 3.0]])

    def velocity(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return (z - datum) / sigma[:, None]

    generator = torch.Generator().manual_seed(0)
    assert velocity_loss(velocity, datum.expand(8, 3), generator) == pytest.approx(0.0, abs=1e-6)
    for steps in (1, 2, 7):
        drawn = sample(velocity, (4, 3), steps, generator)
        assert torch.allclose(drawn, datum.expand(4, 3), atol=1e-5)
    assert torch.allclose(conditional_mean(velocity, datum), datum)


def test_equal_seeds_draw_equal_samples():
    def velocity(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return 0.3 * z

    first, again, other = (sample(velocity, (2, 4), 3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    with pytest.raises(ValueError, match="at least one step"):
        sample(velocity, (2, 4), 0, torch.Generator())


def test_guidance_of_one_is_conditional_and_of_zero_unconditional():
    z, sigma = torch.ones(1, 2), torch.ones(1)
    conditional, unconditional = (lambda z, s: 3 * z), (lambda z, s: z)
    found = [guided(conditional, unconditional, scale)(z, sigma)[0, 0].item() for scale in (0.0, 1.0, 2.0)]
    assert found == [1.0, 3.0, 5.0]


def test_autoencoder_starts_at_the_principal_components_of_patches():
    images = smooth_images(8)
    model = ImageAutoencoder(AutoencoderConfig(channels=16, width=8, blocks=1))
    model.fit_linear(images)
    latents = model.encode(images)
    assert latents.shape == (8, 16, 4, 6)
    assert psnr(model.decode(latents), images).mean() > 30
    assert latents.detach().square().mean() == pytest.approx(1.0, rel=0.05)


def test_block_attends_to_its_context_and_asks_for_it():
    torch.manual_seed(0)
    block, x = TransformerBlock(8, 2, context_dim=6), torch.randn(2, 5, 8)
    context = torch.randn(2, 3, 6)
    assert block(x, context).shape == x.shape
    assert not torch.allclose(block(x, context), block(x, context + 1.0 * torch.randn(2, 3, 6)))
    with pytest.raises(ValueError, match="context"):
        block(x)


def test_average_follows_the_module_and_holds_no_gradient():
    module = torch.nn.Linear(2, 2)
    ema = Ema(module, decay=0.9)
    with torch.no_grad():
        module.weight.add_(1.0)
    before = (ema.average.weight - module.weight).abs().max()
    for _ in range(50):
        ema.update(module)
    assert (ema.average.weight - module.weight).abs().max() < 0.05 * before
    assert not any(p.requires_grad for p in ema.average.parameters())
