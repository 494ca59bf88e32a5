"""What of `future` is fitted in closed form or before the training loop: constants, linear paths, and the paths of the
past alone, each kind of recording by itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wm_ros.future.baselines import LinearPath, Ridge
from wm_ros.future.model import FutureModel
from wm_ros.future.trajectory import KNOWN_ASKED, Normaliser
from wm_ros.state.kinds import Kinds
from wm_ros.training.future_past import fit_past
from wm_ros.training.future_windows import FutureWindows, Item

FITTED = 20_000  # windows at most, evenly
RIDGE_STRENGTHS = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
RIDGE_HORIZON_S = 1.0  # up to which held-out errors choose among them
MIN_SPREAD = 1e-3  # m and rad; what hardly moves must not dominate the loss


@torch.no_grad()
def fit_constants(model: FutureModel, train: FutureWindows, seen: Item, held_out: Item) -> None:
    """Means and spreads, linear paths, the basis of the samples.

    Args:
        seen, held_out: `for_paths` of the windows for training and of those held out.
    """
    norm, config, body = model.norm, model.config, seen["body"]
    norm.body_mean.copy_(body[:, -1].mean(0))
    norm.body_std.copy_(body[:, -1].std(0).clamp(min=MIN_SPREAD))
    norm.asked_std.copy_(seen["asked"][:, -1].std(0).clamp(min=MIN_SPREAD))
    _fit_images(norm, train, config.frame_steps)
    # States tell the kinds of recordings apart; each has a linear path, as strong as its held-out episodes like it.
    data, steps = train.data, torch.from_numpy(train.index)
    sources = [steps[data.place[steps, 0] == kind] for kind in range(config.kinds)]
    norm.kinds.load_state_dict(Kinds.fit([data.states[own].flatten(1) for own in sources]).state_dict())
    trajectory = model.trajectory
    for kind in range(config.kinds):
        own, unseen = of_kind(seen, kind), of_kind(held_out, kind)
        norm.left_open[kind] = _fit_ridge(trajectory.base, kind, own, unseen, config.rate_hz)
        own, unseen = _beside(_commanded(own)), _beside(_commanded(unseen))
        _fit_ridge(trajectory.base_asked, kind, own, unseen, config.rate_hz)
    norm.step_std.copy_(norm.left_open.square().mean(0).sqrt())
    # The basis of the samples: what the linear path leaves open.
    whole = seen["there"].all(1)
    body, future, source = body[whole], seen["future"][whole], seen["source"][whole]
    left = (future - trajectory.base(body, source)) / norm.left_open[source]
    trajectory.samples.fit(left[..., :6])
    if model.reader is not None:
        model.reader.mean.copy_(norm.body_mean[:6])
        model.reader.std.copy_(norm.body_std[:6])


def fit_paths_of_the_past(model: FutureModel, seen: Item, held_out: Item, dropout: float) -> None:
    """The networks that see the past alone, in units of the model's constants.

    Args:
        dropout: share of the examples that lack joints, or a hand.
    """
    for kind in range(model.config.kinds):
        own, unseen = of_kind(seen, kind), of_kind(held_out, kind)
        fit_past(model.trajectory, own, unseen, kind, False, dropout)
        fit_past(model.trajectory, _commanded(own), _commanded(unseen), kind, True, dropout)


def _fit_images(norm: Normaliser, train: FutureWindows, frame_steps: tuple[int, ...]) -> None:
    """Of states and latents, and of the change of latents up to each frame."""
    data, steps = train.data, torch.from_numpy(train.index)
    norm.state_mean.copy_(data.states[steps].mean(0))
    norm.state_std.copy_(data.states[steps].std(0).clamp(min=1e-4))
    some = steps[:: max(1, len(steps) // 4000)]
    now = data.latents[some].float()
    norm.latent_mean.copy_(now.mean((0, 2, 3)))
    norm.latent_std.copy_(now.std((0, 2, 3)).clamp(min=1e-4))
    for index, step in enumerate(frame_steps):
        lasts = some + step <= data.last[some]
        later = data.latents[(some + step)[lasts]].float()
        norm.change_std[index] = (later - now[lasts]).std((0, 2, 3)).clamp(min=1e-4)


def _fit_ridge(path: LinearPath, kind: int, train: Item, held_out: Item, rate_hz: float) -> Tensor:
    """Fit with the penalty that held-out windows like best; returns the spread of what is left open, (F, V)."""
    ridge, whole = path.ridges[kind], train["there"].all(1)
    assert isinstance(ridge, Ridge)

    def error(strength: float) -> float:
        ridge.fit(train["body"][whole], train["future"][whole], strength)
        guess = ridge(held_out["body"])
        return float(ade_mm(guess, held_out["future"], held_out["there"], rate_hz, RIDGE_HORIZON_S).mean())

    ridge.fit(train["body"][whole], train["future"][whole], min(RIDGE_STRENGTHS, key=error))
    return (train["future"] - ridge(train["body"]))[whole].std(0).clamp(min=MIN_SPREAD)


# ---------------------------------------------------------------------- windows


def for_paths(windows: FutureWindows) -> Item:
    """What the paths are fitted on: past, state and future of `FITTED` windows at most, and their sources."""
    names = ("body", "asked", "states", "known", "future", "there", "source")
    chosen = range(0, len(windows), max(1, len(windows) // FITTED))
    rows = [[item[name] for name in names] for item in (windows[index] for index in chosen)]
    return dict(zip(names, map(torch.stack, zip(*rows, strict=True)), strict=True))


def collated(windows: Dataset[Item], most: int) -> Item:
    """At most about so many windows, evenly."""
    count: int = len(windows)  # type: ignore[arg-type]
    rows = [windows[index] for index in range(0, count, max(1, count // most))]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def of_kind(items: Item, kind: int) -> Item:
    """Those of one source."""
    own = items["source"] == kind
    return {name: value[own] for name, value in items.items()}


def _commanded(items: Item) -> Item:
    """Those with commands; all of them, with none, where there are no commands."""
    known = items["known"][:, KNOWN_ASKED]
    chosen = known if known.any() else ~known
    return {name: value[chosen] for name, value in items.items()}


def _beside(items: Item) -> Item:
    """What was commanded, beside the body."""
    return items | {"body": torch.cat([items["body"], items["asked"]], -1)}


def ade_mm(guess: Tensor, truth: Tensor, there: Tensor, rate_hz: float, horizon_s: float) -> Tensor:
    """Mean distance of the right wrist up to the horizon, millimetres, of the windows that last that long."""
    steps = int(horizon_s * rate_hz + 1e-6)
    lasts = there[:, steps - 1]
    return (guess - truth)[lasts, :steps, 3:6].norm(dim=-1).mean(1) * 1e3
