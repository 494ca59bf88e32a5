"""Fit a small network by as many steps as held-out examples gain from.

Few steps with large batches: a few dozen episodes are known by heart after some hundred. What is kept is the moving
average of the weights, so a look at the held-out examples says something of the fit and little of the last batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wm_ros.nn.ema import Ema

BATCH, MOST_STEPS, LOOK_EVERY, PATIENCE = 256, 1500, 50, 4
LR, WEIGHT_DECAY, EMA = 1e-3, 0.05, 0.99


@torch.enable_grad()
def fit_held_out(
    network: nn.Module,
    count: int,
    loss: Callable[[Tensor], Tensor],
    error: Callable[[], float],
    seed: int = 0,
) -> int:
    """Train `network` until `error` has not fallen for PATIENCE looks; it is left at its best, not to be trained on.

    Args:
        count: number of examples; without any it is left as it is. loss: of a batch, given its rows (BATCH,).
        error: of the held-out examples; it is called in evaluation mode. seed: of the order of the examples.

    Returns:
        steps after which it was best, 0 where held-out examples never gained.
    """
    network.requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    average = Ema(network, EMA)
    order = torch.Generator().manual_seed(seed)
    network.eval()
    best, kept, best_step = error(), _copy(network), 0
    for step in range(1, MOST_STEPS + 1 if count else 1):
        network.train()
        batch_loss = loss(torch.randint(count, (BATCH,), generator=order))
        optimiser.zero_grad()
        batch_loss.backward()
        optimiser.step()
        average.update(network)
        if step % LOOK_EVERY:
            continue
        trained = _copy(network)
        network.load_state_dict(average.average.state_dict())
        network.eval()
        found = error()
        if found < best:
            best, kept, best_step = found, _copy(network), step
        network.load_state_dict(trained)
        if step - best_step >= PATIENCE * LOOK_EVERY:
            break
    network.load_state_dict(kept)
    network.eval().requires_grad_(False)
    return best_step


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
