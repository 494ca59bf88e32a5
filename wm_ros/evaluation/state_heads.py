"""`action_r2@k`: the change of the right arm over k steps, decoded from a change of state, pooled over joints."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.bundle import select
from wm_ros.state.action import JOINTS, METHODS, STEPS, ActionHead

Rows = NDArray[np.float64]


class ActionHeads:
    """The heads of a bundle; false where it has none (its training data had no joints)."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.heads: dict[tuple[str, int], ActionHead] = {}
        for method in METHODS:
            for k in STEPS:
                weights = select(tensors, f"baseline.action.{method}.k{k}")
                if weights:
                    head = ActionHead(weights["input_scale"].shape[0], weights["net.1.bias"].shape[0])
                    head.load_state_dict(weights)
                    self.heads[method, k] = head.eval().requires_grad_(False)

    def __bool__(self) -> bool:
        return bool(self.heads)

    def predict(self, method: str, k: int, change: torch.Tensor) -> Rows:
        """(N, inputs) differences → (N, 7) changes of joints, radians."""
        decoded: Rows = self.heads[method, k](change).double().numpy()
        return decoded


def change_rows(predicted: Rows, truth: Rows) -> Rows:
    """Statistics that add up over pairs and episodes, (N, 3 + 7): squared error, 1, squared truth, truth per joint."""
    error = np.square(predicted - truth).sum(1)
    return np.column_stack([error, np.ones(len(truth)), np.square(truth).sum(1), truth])


def r_squared(total: Rows) -> float:
    """Pooled R² of summed `change_rows`: 1 − squared error / squared deviation from each joint's mean."""
    error, count, squares, sums = total[0], total[1], total[2], total[3 : 3 + JOINTS]
    return float(1.0 - error / max(squares - float(np.square(sums).sum()) / count, 1e-12))
