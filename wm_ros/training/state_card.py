"""The card that travels with a state bundle."""

from __future__ import annotations

import torch

from wm_ros.bundle import BundleConfig
from wm_ros.state.config import StateModelConfig

LABELS = {
    "picture": "its two tokens",
    "pca": "principal components, as many numbers",
    "between": "the mean of the states around it",
    "first": "the state of the first image of the clip",
    "autoencoder": "image autoencoder (not the tokens)",
}


def card(config: BundleConfig[StateModelConfig], tensors: dict[str, torch.Tensor]) -> str:
    """Markdown: what the model does, what it was trained on, how good it was on held-out episodes, its limits."""
    model, training = config.model, config.training
    numbers = model.tokens * model.token_width
    rows = "\n".join(
        f"| {label} | {config.metrics[name + '_psnr']:.2f} | {config.metrics[name + '_ssim']:.3f} |"
        for name, label in LABELS.items()
        if f"{name}_psnr" in config.metrics
    )
    sources = "\n".join(f"- `{source}`" for source in training.data)
    size = sum(t.numel() * t.element_size() for t in tensors.values()) / 1e6
    heads = any(name.startswith("baseline.action") for name in tensors)
    return f"""# {config.name}

A camera image ({model.image_width} × {model.image_height} after resizing by area) becomes {model.tokens} tokens of
{model.token_width} numbers, {numbers} in all; nothing else reaches the decoder. After StaMo (arXiv 2510.05057): patch
features, staged compressor, rectified flow on image latents with Stable Diffusion 3's transformer as decoder. What
differs: all parts are small and trained here from scratch; a linear path joins image and tokens, on which the networks
are corrections, and its numbers favour the means of patches, from which a motion is read; a deterministic decoder gives
the mean image of a state, and the flow draws what that leaves; in training, the mean of two states is held to the image
between them, and a change of state to the change of the image. No joints were used to train the tokens. {size:.1f} MB.

## Data

{sources}

Licences: {training.data_licence}. Trained with seed {training.seed} for {training.steps} steps by

    {training.command}

## Held-out episodes of the same sources

The middle image of clips of about a second, drawn from:

| | PSNR dB | SSIM |
|---|---|---|
{rows}

## Limits

- Reconstructions are means: what {numbers} numbers do not hold is blurred. A sample (`draw`) is further away.
- Scenes unlike the training data fall back to what the linear path holds; the diagnostics say so (`familiarity`).
- {"The heads of `action_r2` are for the right arm." if heads else "No joints in the data: no heads for `action_r2`."}
"""
