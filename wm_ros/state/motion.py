"""Motion is a difference of states: what follows from it, on tokens (…, T, D)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

Tokens = TypeVar("Tokens", np.ndarray, torch.Tensor)


def difference(before: Tokens, after: Tokens) -> Tokens:
    """The motion from one state to another, over any horizon."""
    return after - before


def interpolate(start: Tokens, goal: Tokens, share: float) -> Tokens:
    """The state `share` (0..1) of the way from `start` to `goal`, on the straight line."""
    return (1.0 - share) * start + share * goal


def transfer(start: Tokens, end: Tokens, other: Tokens) -> Tokens:
    """The motion of one scene (start → end) applied to the state of another."""
    return other + difference(start, end)
