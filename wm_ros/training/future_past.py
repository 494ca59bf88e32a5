"""The part of stage I that sees the past alone, fitted before everything that learns from images and words."""

from __future__ import annotations

import torch
from torch import Tensor

from wm_ros.future.history import Batch
from wm_ros.future.losses import drop_modalities, trajectory_loss
from wm_ros.future.trajectory import TrajectoryModel
from wm_ros.training.future_windows import Item
from wm_ros.training.held_out import fit_held_out


def fit_past(
    model: TrajectoryModel, windows: Item, held_out: Item, kind: int, commanded: bool, dropout: float = 0.0
) -> None:
    """Fit the network of one kind of recording on its windows, until held-out ones no longer gain.

    Args:
        dropout: share of the examples that lack joints, or a hand.
    """
    path = model.past_asked if commanded else model.past
    member = Member(model, kind, commanded)

    def loss(rows: Tensor) -> Tensor:
        return member.loss({name: value[rows] for name, value in windows.items()}, dropout)

    @torch.no_grad()
    def error() -> float:
        return float(member.loss(held_out))

    fit_held_out(path.networks[kind], len(windows["body"]), loss, error, kind)


class Member:
    """One network with the linear path under it."""

    def __init__(self, model: TrajectoryModel, kind: int, commanded: bool) -> None:
        self.model, self.kind, self.commanded = model, kind, commanded

    def loss(self, windows: Item, dropout: float = 0.0) -> Tensor:
        """As stage I is trained (`trajectory_loss`), hands and joints."""
        known = windows["known"]
        batch = Batch(windows["body"], windows["states"], windows["body"][:, :0, 0], known, windows["asked"])
        batch = drop_modalities(batch, dropout) if dropout else batch
        kind = torch.full((len(known),), self.kind)
        body = self.model.from_past(self.model.take(batch), kind, self.commanded)
        losses = trajectory_loss(body, self.model.norm.left_open[kind], windows["future"], windows["there"])
        return torch.stack(list(losses.values())).sum()
