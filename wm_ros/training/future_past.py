"""The part of stage I that sees the past alone, fitted before everything that learns from images and words.

Few steps with large batches: a few dozen episodes are known by heart after some hundred. How many is decided by the
held-out episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_ros.future.history import Batch
from wm_ros.future.losses import drop_modalities, trajectory_loss
from wm_ros.future.trajectory import TrajectoryModel
from wm_ros.nn.ema import Ema
from wm_ros.training.future_windows import Item

BATCH, MOST_STEPS, LOOK_EVERY, PATIENCE = 256, 1500, 50, 4
LR, WEIGHT_DECAY, EMA = 1e-3, 0.05, 0.99


@torch.enable_grad()
def fit_past(
    model: TrajectoryModel, windows: Item, held_out: Item, kind: int, commanded: bool, dropout: float = 0.0
) -> None:
    """Fit the network of one kind of recording on its windows, until held-out ones no longer gain.

    Args:
        dropout: share of the examples that lack joints, or a hand.
    """
    path = model.past_asked if commanded else model.past
    own, network = path.networks[kind], Member(model, kind, commanded)
    own.requires_grad_(True)
    optimiser = torch.optim.AdamW(own.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    average = Ema(own, EMA)
    best, kept, worse = _loss(network, held_out), _copy(own), 0
    order = torch.Generator().manual_seed(kind)
    for step in range(MOST_STEPS):
        own.train()
        rows = torch.randint(len(windows["body"]), (BATCH,), generator=order)
        loss = network.loss({name: value[rows] for name, value in windows.items()}, dropout)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update(own)
        if (step + 1) % LOOK_EVERY:
            continue
        trained = _copy(own)
        own.load_state_dict(average.average.state_dict())
        error = _loss(network, held_out)
        best, kept, worse = (error, _copy(own), 0) if error < best else (best, kept, worse + 1)
        own.load_state_dict(trained)
        if worse == PATIENCE:
            break
    own.load_state_dict(kept)
    own.eval().requires_grad_(False)


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


@torch.no_grad()
def _loss(network: Member, windows: Item) -> float:
    paths = network.model.past_asked if network.commanded else network.model.past
    paths.networks[network.kind].eval()
    return float(network.loss(windows))


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
