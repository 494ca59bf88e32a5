"""What stage I learns from: losses, and the parts of its input that are withheld in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_ros.future.history import Batch
from wm_ros.future.trajectory import (
    KNOWN_ASKED,
    KNOWN_JOINTS,
    KNOWN_LEFT,
    KNOWN_RIGHT,
    Forecast,
    TrajectoryModel,
)

OTHERS = 8  # futures of other windows that the energy learns to find less plausible


def drop_modalities(batch: Batch, rate: float) -> Batch:
    """In training, forget joints, a hand or the previous state of some examples, so that run time may lack them.

    Commands are forgotten in half of the examples, so that one model learns both to do with and without them.
    """
    keep = torch.rand(batch.known.shape, device=batch.known.device) >= rate
    keep[:, KNOWN_ASKED] = keep[:, KNOWN_JOINTS] & (torch.rand(len(keep), device=keep.device) < 0.5)
    # Without hands and joints there is nothing to predict from; keep at least the hands there.
    keep[:, KNOWN_LEFT : KNOWN_RIGHT + 1] |= ~keep[:, KNOWN_JOINTS, None]
    return batch._replace(known=batch.known & keep)


def trajectory_loss(body: Tensor, scale: Tensor, future: Tensor, there: Tensor) -> dict[str, Tensor]:
    """Losses of forecast bodies against the true future (B, F, V), over the steps that are `there` (B, F) bool.

    hands: mean distance of the wrists, in spreads `scale` of the linear path's error, so that every horizon counts.
    joints: smooth L1 in the same units.
    """
    weight = there.float()
    total = weight.sum().clamp(min=1)
    error = (body - future) / scale
    hands = _length(error[..., :6]).mean(-1)
    joints = nn.functional.smooth_l1_loss(error[..., 6:], torch.zeros_like(error[..., 6:]), reduction="none").mean(-1)
    return {"hands": (hands * weight).sum() / total, "joints": (joints * weight).sum() / total}


def samples_loss(model: TrajectoryModel, forecast: Forecast, body: Tensor, future: Tensor) -> dict[str, Tensor]:
    """Losses of the samples (`Samples.losses`) around a forecast, on windows whose future (B, F, V) is known in full.

    The other futures that the energy is to find less plausible are those of other windows, from where the wrists are.
    """
    hands, now = future[..., :6], body[:, -1, :6]
    moved = hands - now[:, None]
    rivals = min(OTHERS, len(hands) - 1)
    others = now[:, None, None] + torch.stack([moved.roll(shift + 1, 0) for shift in range(rivals)], 1)
    context, centre = forecast.context, forecast._replace(body=forecast.body.detach())
    return model.samples.losses(context, centre.left_open(hands), centre.left_open(others))


def subtask_loss(log_probability: Tensor, subtask: Tensor) -> Tensor:
    """Mean cross-entropy of phrases (B, P) to their true numbers (B,), over those that are known (not negative)."""
    total = nn.functional.nll_loss(log_probability, subtask, ignore_index=-1, reduction="sum")
    return total / (subtask >= 0).sum().clamp(min=1)


def _length(hands: Tensor) -> Tensor:
    """Length of each wrist's vector, (…, 6) → (…, 2); its gradient is bounded at zero."""
    return (hands.unflatten(-1, (2, 3)).square().sum(-1) + 1e-6).sqrt()
