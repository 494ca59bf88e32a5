"""How far stage I heeds its reading, how widely its samples spread and how much their energy counts, set on episodes
that no network has seen.

Few episodes are soon known by heart, so what was read of states, words and image is heeded as far as it brought the
central estimate nearer to the truth on held-out ones. On its training episodes that estimate is nearer to the truth
than on others, so samples that were learned there are too narrow. For each kind of recording: the spread at each step
is brought to that of the held-out errors, the weight of the energy is the one with the lowest energy score, and a last
factor makes the 90 % region hold 90 % of the futures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wm_ros.future.history import Batch
from wm_ros.future.samples import energy_score, region
from wm_ros.future.trajectory import KNOWN_ASKED, TrajectoryModel
from wm_ros.training.future_windows import Item, batch_of

SHARE = 0.9
HORIZONS_S = (0.5, 1.0, 2.0)  # over which the coverage is averaged
HEEDS = (0.0, 0.25, 0.5, 0.75, 1.0)
TRUSTS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
FACTORS = torch.linspace(0.6, 3.0, 49)
FEWEST = 50  # windows of a kind, below which its samples stay as they were learned


@torch.no_grad()
def calibrate(
    model: TrajectoryModel, held_out: Item, scenes: Item | None = None, share: float = 0.5
) -> dict[str, float]:
    """Set `heed`, and `dispersion` and `trust` of the samples; returns what was found, by name.

    Args:
        held_out: collated windows; those with a whole future are used, without commands.
        scenes: windows of scenes in which words decide, held out too: `share` of what decides what is heeded in
            recordings of their kind, as it was of what the reading learned from.
    """
    samples, rate_hz = model.samples, model.config.rate_hz
    windows = {name: value[held_out["there"].all(1)] for name, value in held_out.items()}
    facts: dict[str, float] = {}
    for kind in range(model.config.kinds):
        own = {name: value[windows["source"] == kind] for name, value in windows.items()}
        if len(own["body"]) < FEWEST:
            continue
        samples.dispersion[kind], samples.trust[kind] = 1.0, 0.0
        truth = own["future"][..., :6]
        # The reading.
        parts = [(1.0, own)]
        if scenes is not None:
            drawn = _of_kind(scenes, kind, model)
            if len(drawn["body"]):
                parts = [(1 - share, own), (share, drawn)]
        errors = {heed: sum(weight * _error_mm(model, part, kind, heed) for weight, part in parts) for heed in HEEDS}
        model.heed[kind] = chosen = min(errors, key=lambda heed: errors[heed])
        facts |= {f"heed_{kind}": chosen, f"unheeded_mm_{kind}": errors[0.0], f"heeded_mm_{kind}": errors[chosen]}
        forecast = model(state_only(own))
        forecast = forecast._replace(kind=torch.full_like(forecast.kind, kind))
        # Spread at each step.
        hands = model.imagine(forecast).hands
        centre = hands.mean(1)
        error = ((truth - centre) / forecast.scale[..., :6]).square().mean((0, 2)).sqrt()
        spread = ((hands - centre[:, None]) / forecast.scale[:, None, :, :6]).square().mean((0, 1, 3)).sqrt()
        samples.dispersion[kind] = error / spread.clamp(min=1e-6)
        # Weight of the energy.
        fan, side = model.imagine(forecast), _moving_side(truth)
        paths, path = _of_side(fan.hands, side), _of_side(truth, side)
        steps = round(HORIZONS_S[1] * rate_hz)
        scores = {
            trust: float(energy_score(paths[:, :, :steps], (-trust * fan.energy).softmax(1), path[:, :steps]).mean())
            for trust in TRUSTS
        }
        samples.trust[kind] = min(scores, key=lambda trust: scores[trust])
        # Width of the region.
        probability = (-samples.trust[kind] * fan.energy).softmax(1)
        covered = {float(f): _coverage(paths, probability, path, float(f), rate_hz) for f in FACTORS}
        factor = min(covered, key=lambda f: abs(covered[f] - SHARE))
        samples.dispersion[kind] *= factor
        facts |= {f"trust_{kind}": float(samples.trust[kind]), f"coverage_{kind}": covered[factor]}
    return facts


def _of_kind(scenes: Item, kind: int, model: TrajectoryModel) -> Item:
    """Windows of scenes that look like a kind of recording, with their whole future."""
    chosen = scenes["there"].all(1) & (model.norm.kind(scenes["states"]) == kind)
    return {name: value[chosen] for name, value in scenes.items()}


def _error_mm(model: TrajectoryModel, windows: Item, kind: int, heed: float) -> float:
    """Mean distance of the wrist that goes further, up to 1 s, where the reading is heeded so far."""
    model.heed[kind] = heed
    hands, truth = model(state_only(windows)).body[..., :6], windows["future"][..., :6]
    side, steps = _moving_side(truth), round(HORIZONS_S[1] * model.config.rate_hz)
    return 1e3 * float((_of_side(hands, side) - _of_side(truth, side))[:, :steps].norm(dim=-1).mean())


def state_only(item: Item) -> Batch:
    """The model's input of collated items, without commands."""
    batch = batch_of(item)
    known = batch.known.clone()
    known[:, KNOWN_ASKED] = False
    return batch._replace(known=known)


def _moving_side(hands: Tensor) -> Tensor:
    """(B,) 0 or 1: the wrist of (B, F, 6) that goes further."""
    return (hands[:, -1] - hands[:, 0]).unflatten(-1, (2, 3)).norm(dim=-1).argmax(1)


def _of_side(hands: Tensor, side: Tensor) -> Tensor:
    """(B, …, 6) → (B, …, 3) of each example's wrist."""
    return hands.unflatten(-1, (2, 3))[torch.arange(len(side)), ..., side, :]


def _coverage(paths: Tensor, probability: Tensor, truth: Tensor, factor: float, rate_hz: float) -> float:
    """Share of true paths (B, F, 3) inside the region of the samples (B, S, F, 3) spread by `factor`."""
    inside = []
    for horizon in HORIZONS_S:
        steps = round(horizon * rate_hz)
        middle, radius = region(paths[:, :, :steps], probability, SHARE)
        away = (truth[:, :steps] - middle).norm(dim=-1)
        inside.append((away <= factor * radius).all(1).float().mean())
    return float(torch.stack(inside).mean())
