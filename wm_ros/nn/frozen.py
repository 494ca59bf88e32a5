"""Networks that are used as they are."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound="Frozen")


class Frozen(nn.Module):
    """A module that is never trained: `train()` leaves it in evaluation mode, so that dropout stays off."""

    def train(self: Module, mode: bool = True) -> Module:
        """Evaluation mode, whatever is asked."""
        return super().train(False)
