"""`action_r2@k`: the change of the right arm over k steps, decoded from a change of state, pooled over joints."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.bundle import select
from wm_ros.state.action import JOINTS, METHODS, ActionHead
from wm_ros.state.kinds import Kinds

Rows = NDArray[np.float64]


class ActionHeads:
    """The heads of a bundle, one set for each kind of recording; false where it has none (no joints in its data)."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.heads: list[dict[str, ActionHead]] = []
        while weights := select(tensors, f"baseline.action.{len(self.heads)}"):
            self.heads.append({method: _head(select(weights, method)) for method in METHODS})
        if self.heads:
            self.kinds = Kinds(*tensors["baseline.action.kinds.weight"].shape)
            self.kinds.load_state_dict(select(tensors, "baseline.action.kinds"))

    def __bool__(self) -> bool:
        return bool(self.heads)

    def kind(self, tokens: NDArray[np.float32]) -> int:
        """Which kind of recording the states (N, T, D) of an episode are of: the one they look most like."""
        return int(self.kinds(torch.from_numpy(tokens).flatten(1)).mean(0).argmax())

    def predict(self, kind: int, method: str, k: int, change: torch.Tensor) -> Rows:
        """(N, inputs) differences → (N, 7) changes of joints, radians."""
        decoded: Rows = self.heads[kind][method](change, k).double().numpy()
        return decoded


def _head(weights: dict[str, torch.Tensor]) -> ActionHead:
    head = ActionHead(weights["input_scale"].shape[1], weights["net.0.bias"].shape[0])
    head.load_state_dict(weights)
    return head.eval().requires_grad_(False)


def change_rows(predicted: Rows, truth: Rows) -> Rows:
    """Statistics that add up over pairs and episodes, (N, 3 + 7): squared error, 1, squared truth, truth per joint."""
    error = np.square(predicted - truth).sum(1)
    return np.column_stack([error, np.ones(len(truth)), np.square(truth).sum(1), truth])


def r_squared(total: Rows) -> float:
    """Pooled R² of summed `change_rows`: 1 − squared error / squared deviation from each joint's mean."""
    error, count, squares, sums = total[0], total[1], total[2], total[3 : 3 + JOINTS]
    return float(1.0 - error / max(squares - float(np.square(sums).sum()) / count, 1e-12))
