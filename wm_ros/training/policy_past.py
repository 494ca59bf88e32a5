"""Fit the part of `policy` that sees the past alone, before everything that learns from images and words.

The linear path is ridge regression, its strength chosen on held-out windows. The MLPs on top of it are trained on
the absolute error, which is what a chunk is judged by: a hand that may open or not is better left closed than half
open.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wm_ros.policy.past import PastPath
from wm_ros.training.held_out import fit_held_out

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the penalty, relative to the mean square of an input
FLOOR_RAD = 1e-3  # joints that never move are not blown up


class PastWindows(NamedTuple):
    """Examples. N windows, H and K steps of history, F ahead.

    Attributes:
        joints: (N, H, J) rad. joints_pad: (N, H) bool. commands: (N, K, J) rad. commands_pad: (N, K) bool.
        truth: (N, F, J) rad, what was commanded. pad: (N, F) bool, True where nothing was.
    """

    joints: Tensor
    joints_pad: Tensor
    commands: Tensor
    commands_pad: Tensor
    truth: Tensor
    pad: Tensor

    @classmethod
    def of(cls, batch: dict[str, Tensor], history: int, commands: int = 0) -> PastWindows:
        """From a batch of `Windows` with joints and commands of the past and commands to come.

        Args:
            history, commands: H and K, at most the steps of past that the batch has; K = 0 is none.
        """
        pad, truth = batch["pad"], batch["commands_future"]
        heard = batch["commands"][:, pad.shape[1] - commands :]
        return cls(
            batch["joints"][:, -history:],
            pad[:, -history:],
            heard.nan_to_num(),
            pad[:, pad.shape[1] - commands :] | heard.isnan().any(-1),
            truth.nan_to_num(),
            batch["pad_future"] | truth.isnan().any(-1),
        )

    def inputs(self, path: PastPath) -> Tensor:
        """(N, inputs) of `path`."""
        return path.inputs(self.joints, self.joints_pad, self.commands, self.commands_pad)

    def change(self) -> Tensor:
        """(N, F, J) rad: commands minus joints now."""
        return self.truth - self.joints[:, -1:]


def fit_past(path: PastPath, windows: PastWindows, held_out: PastWindows, seed: int = 0) -> list[int]:
    """Fit `path` to `windows`; the strength of ridge and the steps of each MLP are chosen on `held_out`.

    Args:
        seed: of dropout and of the order of the windows. Others' random numbers are left as they were.

    Returns:
        steps that each MLP was trained, 0 where held-out windows gained nothing and it stays as it was.
    """
    inputs, unseen = windows.inputs(path), held_out.inputs(path)
    change, unseen_change = windows.change(), held_out.change()
    joints = path.size[1]
    path.mean[:joints] = inputs[:, :joints].mean(0)
    path.std.copy_(_units(inputs, windows.joints.shape[1], joints))
    _fit_linear(path, inputs, change, windows.pad, unseen, unseen_change, held_out.pad)
    start, unseen_start = path.straight(inputs), path.straight(unseen)
    keep = (~windows.pad).to(change.dtype)[..., None]
    left = ((change - start).abs() * keep).sum(0) / keep.sum(0).clamp_min(1.0)
    path.left_open.copy_(left.clamp_min(FLOOR_RAD))
    unit = path.left_open.mean()

    def fit(number: int) -> int:
        def loss(rows: Tensor) -> Tensor:
            found = start[rows] + path.member(number, inputs[rows])
            return mean_error(found, change[rows], windows.pad[rows]) / unit

        @torch.no_grad()
        def error() -> float:
            return float(mean_error(unseen_start + path.member(number, unseen), unseen_change, held_out.pad))

        return fit_held_out(path.networks[number], len(inputs), loss, error, seed + number)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [fit(number) for number in range(len(path.networks))]


def _units(inputs: Tensor, history: int, joints: int) -> Tensor:
    """(inputs,) rad: one unit a joint for where it is, for all that it moved, and for all that it was commanded.

    A unit for each step of its own would blow up the noise of the last ones.
    """
    spread = inputs.std(0).clamp_min(FLOOR_RAD).view(-1, joints)
    now, moved, asked = spread[:1], spread[1:history], spread[history:]
    return torch.cat([part.amax(0).expand(len(part), -1) for part in (now, moved, asked) if len(part)]).flatten()


def mean_error(found: Tensor, truth: Tensor, pad: Tensor) -> Tensor:
    """Mean absolute error of (N, F, J) where `pad` (N, F) is False."""
    keep = (~pad).to(found.dtype)[..., None]
    return ((found - truth).abs() * keep).sum() / (keep.sum() * found.shape[-1]).clamp_min(1.0)


@torch.no_grad()
def _fit_linear(
    path: PastPath,
    inputs: Tensor,
    change: Tensor,
    pad: Tensor,
    unseen: Tensor,
    unseen_change: Tensor,
    unseen_pad: Tensor,
) -> None:
    """Ridge regression of each step of the chunk; the constant is free."""
    features = torch.cat([torch.ones_like(inputs[:, :1]), inputs], 1).double()
    penalty = torch.eye(features.shape[1], dtype=torch.float64) * len(features) * features[:, 1:].square().mean()
    penalty[0, 0] = 0.0
    whole, told = features.T @ features, change.double() * ~pad[..., None]
    normal = [whole - features[lost].T @ features[lost] for lost in pad.T]
    target = [features.T @ told[:, step] for step in range(path.size[0])]
    gram, right = torch.stack(normal), torch.stack(target)
    best, kept = float("inf"), torch.zeros_like(right)
    for strength in STRENGTHS:
        found = torch.linalg.solve(gram + strength * penalty + 1e-9 * torch.eye(len(penalty)), right)  # (F, 1 + I, J)
        path.linear.weight.copy_(found[:, 1:].transpose(1, 2).flatten(0, 1))
        path.linear.bias.copy_(found[:, 0].flatten())
        error = float(mean_error(path.straight(unseen), unseen_change, unseen_pad))
        if error < best:
            best, kept = error, found
    path.linear.weight.copy_(kept[:, 1:].transpose(1, 2).flatten(0, 1))
    path.linear.bias.copy_(kept[:, 0].flatten())
