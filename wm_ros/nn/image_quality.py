"""PSNR, SSIM and a distance of textures of image batches in 0..1, as tensors that gradients flow through.

SSIM is that of Wang et al. 2004: Gaussian window of 11 pixels, σ = 1.5, constants 0.01² and 0.03², mean over the
places where the window fits and over the three channels.
"""

from __future__ import annotations

import torch
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
OCTAVES, ENERGY_FLOOR = 3, 1e-4


def psnr(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image, (B, 3, H, W) twice → (B,) dB; 100 dB where they are equal."""
    error = (images - truth).square().flatten(1).mean(1)
    return -10.0 * torch.log10(error.clamp_min(1e-10))


def ssim(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image, (B, 3, H, W) twice → (B,)."""
    return ssim_map(images, truth).flatten(1).mean(1)


def ssim_map(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity at each place where the window fits, (B, 3, H, W) twice → (B, 3, H − 10, W − 10)."""
    window = _window(images)
    mean_a, mean_b = _blur(images, window), _blur(truth, window)
    var_a = _blur(images * images, window) - mean_a * mean_a
    var_b = _blur(truth * truth, window) - mean_b * mean_b
    covariance = _blur(images * truth, window) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1)
    structure = (2 * covariance + C2) / (var_a + var_b + C2)
    return luminance * structure


def ssim_within(images: torch.Tensor, truth: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Structural similarity within a region of each image, (B, 3, H, W) twice, (B, H, W) bool → (B,); NaN if empty."""
    edge = WINDOW // 2
    inside = region[:, edge:-edge, edge:-edge].to(images)
    return (ssim_map(images, truth).mean(1) * inside).sum((1, 2)) / inside.sum((1, 2))


def texture_distance(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """How different two images are in local contrast, (B, 3, H, W) twice → (B,); 0 is alike, blur and noise are far.

    Over three octaves of a Laplacian pyramid: mean of |log ratio| of the local energy in windows of 8 × 8. It does not
    ask where an edge is to the pixel, so that a sharp guess may be nearer than a blurred mean.
    """
    total = torch.zeros(len(images), dtype=images.dtype, device=images.device)
    for _ in range(OCTAVES):
        small_a, small_b = (functional.avg_pool2d(x, 2) for x in (images, truth))
        energies = [
            functional.avg_pool2d((x - functional.interpolate(small, scale_factor=2)).square(), 8) + ENERGY_FLOOR
            for x, small in ((images, small_a), (truth, small_b))
        ]
        total = total + (energies[0] / energies[1]).log().abs().flatten(1).mean(1) / OCTAVES
        images, truth = small_a, small_b
    return total


def _window(like: torch.Tensor) -> torch.Tensor:
    offsets = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return weights / weights.sum()


def _blur(images: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    channels = images.shape[1]
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(functional.conv2d(images, rows, groups=channels), columns, groups=channels)
