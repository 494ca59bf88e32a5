"""Fit the part of `policy` that sees the past alone, before everything that learns from images and words.

The MLPs are trained on the absolute error, which is what a chunk is judged by: a hand that may open or not is better
left closed than half open. Episodes are dealt into as many parts as there are MLPs: each MLP is trained on all parts
but its own, by as many steps as its own gains from, so that all of them together have learned from every episode.
Beside each path ridge regression is fitted to the same windows, the baseline that sees what the path sees.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wm_ros.policy.config import PastConfig
from wm_ros.policy.context import Observation
from wm_ros.policy.head import PolicyHead
from wm_ros.policy.past import PastPath, Pasts, place
from wm_ros.state.kinds import Kinds
from wm_ros.training.held_out import fit_held_out

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the penalty, relative to the mean square of an input
HEEDS = (0.0, 0.25, 0.5, 0.75, 1.0)
FLOOR_RAD = 1e-3  # joints that never move are not blown up


class PastWindows(NamedTuple):
    """Examples. N windows, H and K steps of history, F ahead.

    Attributes:
        joints: (N, H, J) rad. joints_pad: (N, H) bool. commands: (N, K, J) rad. commands_pad: (N, K) bool.
        truth: (N, F, J) rad, what was commanded. pad: (N, F) bool, True where nothing was.
        part: (N,) which of the parts that episodes are dealt into.
    """

    joints: Tensor
    joints_pad: Tensor
    commands: Tensor
    commands_pad: Tensor
    truth: Tensor
    pad: Tensor
    part: Tensor

    @classmethod
    def of(cls, batch: dict[str, Tensor], history: int, commands: int = 0, parts: int = 2) -> PastWindows:
        """From a batch of `Windows` with joints and commands of the past and commands to come.

        Args:
            history, commands: H and K, at most the steps of past that the batch has; K = 0 is none.
            parts: episodes are dealt into so many, in turn.
        """
        pad, truth = batch["pad"], batch["commands_future"]
        heard = batch["commands"][:, pad.shape[1] - commands :]
        _, place = batch["episode"].unique(return_inverse=True)
        return cls(
            batch["joints"][:, -history:],
            pad[:, -history:],
            heard.nan_to_num(),
            pad[:, pad.shape[1] - commands :] | heard.isnan().any(-1),
            truth.nan_to_num(),
            batch["pad_future"] | truth.isnan().any(-1),
            place % parts,
        )

    def inputs(self, path: PastPath) -> Tensor:
        """(N, inputs) of `path`."""
        return path.inputs(self.joints, self.joints_pad, self.commands, self.commands_pad)

    def change(self) -> Tensor:
        """(N, F, J) rad: commands minus joints now."""
        return self.truth - self.joints[:, -1:]


def fit_pasts(
    pasts: Pasts, batch: dict[str, Tensor], history: int, past: PastConfig, seed: int = 0
) -> dict[str, Tensor]:
    """Fit all paths, each to the windows of its source, and what tells the sources apart.

    Args:
        batch: of `Windows`, with `source`. history: steps of joints that the paths see. past: as in the model.

    Returns:
        `fit_ridge` of each path, by `wm_ros.policy.past.place`.
    """
    ridge = {}
    now, sources = batch["joints"][:, -1], range(len(pasts.deaf))
    own = [(batch["source"] == number).nonzero()[:, 0] for number in sources]
    pasts.kinds.load_state_dict(Kinds.fit([now[rows] for rows in own]).state_dict())
    for number, rows in enumerate(own):
        part = {name: batch[name][rows] for name in ("joints", "commands", "pad", "commands_future", "pad_future")}
        part["episode"] = batch["episode"][rows]
        for heard, paths in ((0, pasts.deaf), (past.commands, pasts.hearing)):
            for path in paths[number : number + 1]:
                assert isinstance(path, PastPath)
                windows = PastWindows.of(part, history, heard, past.members)
                fit_past(path, windows, seed)
                ridge[place(number, heard > 0)] = fit_ridge(windows, windows.inputs(path))
    return ridge


def fit_past(path: PastPath, windows: PastWindows, seed: int = 0) -> list[int]:
    """Fit `path` to `windows`, each MLP by as many steps as its own part gains from.

    Args:
        seed: of dropout and of the order of the windows. Others' random numbers are left as they were.

    Returns:
        steps that each MLP was trained, 0 where its own part gained nothing and it says nothing.
    """
    inputs, change, pad = windows.inputs(path), windows.change(), windows.pad
    joints = path.size[1]
    path.mean[:joints] = inputs[:, :joints].mean(0)
    path.std.copy_(_units(inputs, windows.joints.shape[1], joints))
    start = path.staying(inputs)
    keep = (~pad).to(change.dtype)[..., None]
    left = ((change - start).abs() * keep).sum(0) / keep.sum(0).clamp_min(1.0)
    path.left_open.copy_(left.clamp_min(FLOOR_RAD))
    unit = path.left_open.mean()

    def fit(number: int) -> int:
        learned, own = (rows.nonzero()[:, 0] for rows in (windows.part != number, windows.part == number))

        def error(rows: Tensor) -> Tensor:
            return mean_error(start[rows] + path.member(number, inputs[rows]), change[rows], pad[rows])

        @torch.no_grad()
        def unseen() -> float:
            return float(error(own))

        def loss(rows: Tensor) -> Tensor:
            return error(learned[rows]) / unit

        return fit_held_out(path.networks[number], len(learned), loss, unseen, seed + number)

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
def fit_ridge(windows: PastWindows, inputs: Tensor) -> Tensor:
    """Ridge regression (1 + I, F·J) of each step of the chunk minus joints now on `inputs`, the constant free.

    Its strength is what parts that it was not fitted to like best.
    """
    change, pad, part = windows.change(), windows.pad, windows.part
    features = torch.cat([torch.ones_like(inputs[:, :1]), inputs], 1).double()
    penalty = torch.eye(features.shape[1], dtype=torch.float64) * len(features) * features[:, 1:].square().mean()
    penalty[0, 0] = 0.0
    parts = [(part == number).nonzero()[:, 0] for number in range(int(part.max()) + 1)]
    sums = [_normal_equations(features[rows], change[rows], pad[rows]) for rows in parts]
    gram, right = (torch.stack(each).sum(0) for each in zip(*sums, strict=True))

    def solve(gram: Tensor, right: Tensor, strength: float) -> Tensor:
        found = torch.linalg.solve(gram + strength * penalty + 1e-9 * torch.eye(len(penalty)), right)  # (F, 1 + I, J)
        return found.transpose(0, 1).flatten(1)

    errors = dict.fromkeys(STRENGTHS, 0.0)
    for rows, (own_gram, own_right) in zip(parts, sums, strict=True):
        for strength in STRENGTHS:
            said = features[rows] @ solve(gram - own_gram, right - own_right, strength)
            error = mean_error(said.unflatten(1, change.shape[1:]), change[rows], pad[rows])
            errors[strength] += len(rows) * float(error)
    return solve(gram, right, min(errors, key=lambda strength: errors[strength])).float()


def _normal_equations(features: Tensor, change: Tensor, pad: Tensor) -> tuple[Tensor, Tensor]:
    """(F, 1 + I, 1 + I) and (F, 1 + I, J), of the windows whose step of the chunk is known."""
    whole, told = features.T @ features, change.double() * ~pad[..., None]
    gram = torch.stack([whole - features[lost].T @ features[lost] for lost in pad.T])
    return gram, torch.stack([features.T @ told[:, step] for step in range(change.shape[1])])


@torch.no_grad()
def calibrate(head: PolicyHead, seen: Observation, truth: Tensor, pad: Tensor) -> dict[str, float]:
    """Set how far a head heeds what it adds to its paths, for each kind of recording, without and with commands.

    Few episodes are soon known by heart, so it is heeded as far as windows gain by it that nothing was trained on.

    Args:
        seen: held-out windows. truth: (B, F, J) rad, what was commanded. pad: (B, F) bool, True where nothing was.

    Returns:
        heed, and errors in rad without and with it, by name.
    """
    assert head.past is not None
    kind = head.past.kind(seen.joints)
    facts: dict[str, float] = {}
    for heard, given in ((1, seen), (0, seen._replace(commands=None, commands_pad=None))):
        for number in range(len(head.past.heed)):
            rows = ((kind == number) & (given.heard == bool(heard))).nonzero()[:, 0]
            if not len(rows):
                continue
            own = given.rows(rows)
            ends = []
            for heed in (0.0, 1.0):
                head.past.heed[number, heard] = heed
                ends.append(head(own))
            errors = {h: float(mean_error(ends[0].lerp(ends[1], h), truth[rows], pad[rows])) for h in HEEDS}
            head.past.heed[number, heard] = chosen = min(errors, key=lambda heed: errors[heed])
            name = place(number, heard > 0)
            facts |= {f"heed_{name}": chosen, f"unheeded_{name}": errors[0.0], f"heeded_{name}": errors[chosen]}
    return facts
