"""PSNR and SSIM of image batches in 0..1, as tensors that gradients flow through.

SSIM is that of Wang et al. 2004: Gaussian window of 11 pixels, σ = 1.5, constants 0.01² and 0.03², mean over the
places where the window fits and over the three channels.
"""

from __future__ import annotations

import torch
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image, (B, 3, H, W) twice → (B,) dB; 100 dB where they are equal."""
    error = (images - truth).square().flatten(1).mean(1)
    return -10.0 * torch.log10(error.clamp_min(1e-10))


def ssim(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image, (B, 3, H, W) twice → (B,)."""
    window = _window(images)
    mean_a, mean_b = _blur(images, window), _blur(truth, window)
    var_a = _blur(images * images, window) - mean_a * mean_a
    var_b = _blur(truth * truth, window) - mean_b * mean_b
    covariance = _blur(images * truth, window) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1)
    structure = (2 * covariance + C2) / (var_a + var_b + C2)
    return (luminance * structure).flatten(1).mean(1)


def _window(like: torch.Tensor) -> torch.Tensor:
    offsets = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return weights / weights.sum()


def _blur(images: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    channels = images.shape[1]
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(functional.conv2d(images, rows, groups=channels), columns, groups=channels)
