"""The heads of `action_r2` that travel with a state bundle, fitted on the episodes whose joints are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.bundle import half_precision
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.state.action import METHODS, STEPS, fit_head, pooled_pixels, step_pairs
from wm_ros.state.kinds import Kinds
from wm_ros.state.pca import PrincipalComponents
from wm_ros.training.image_cache import ImageCache

FEWEST_PAIRS = 100  # of a source, for each k, below which it gets no heads
Rows = NDArray[np.int64]


def dense_rows(cache: ImageCache, step_s: float, most: int, seed: int) -> list[Rows]:
    """Of each source, images of whole episodes with the arm's joints, `step_s` seconds apart, at most `most`."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(np.isfinite(cache.arm_rad).all(1))
    first, _ = step_pairs(cache.episode[rows], cache.stamp_s[rows], step_s)
    dense = rows[first]
    chosen = []
    for source in np.unique(cache.source[dense]):
        episodes = rng.permutation(np.unique(cache.episode[dense][cache.source[dense] == source]))
        counts = np.cumsum([np.sum(cache.episode == number) for number in episodes])
        chosen.append(rows[np.isin(cache.episode[rows], episodes[counts <= most])])
    return chosen


def action_heads(
    cache: ImageCache, sources: list[Rows], model: Any, pca: PrincipalComponents, seed: int
) -> dict[str, torch.Tensor]:
    """Heads for the state and for its baselines, as tensors of a bundle.

    Args:
        sources: rows of each source (see `dense_rows`); sources are kinds of recordings, each has heads of its own.
        model: a state model; `model.encode` gives the states.
    """
    tensors: dict[str, torch.Tensor] = {}
    states: list[torch.Tensor] = []
    step_s = model.config.step_s
    for rows in sources:
        pairs = {k: step_pairs(cache.episode[rows], cache.stamp_s[rows], k * step_s) for k in STEPS}
        if any(len(first) < FEWEST_PAIRS for first, _ in pairs.values()):
            continue
        values = _values(cache, rows, model, pca)
        arm = torch.from_numpy(cache.arm_rad[rows]).float()
        for method, own in values.items():
            head = fit_head({k: (own[g] - own[f], arm[g] - arm[f]) for k, (f, g) in pairs.items()}, seed)
            tensors |= half_precision(f"baseline.action.{len(states)}.{method}", head)
        states.append(values["model"])
    if states:
        tensors |= {f"baseline.action.kinds.{name}": value for name, value in Kinds.fit(states).state_dict().items()}
    return tensors


@torch.no_grad()
def _values(cache: ImageCache, rows: Rows, model: Any, pca: PrincipalComponents) -> dict[str, torch.Tensor]:
    """What each method makes of images, (N, numbers)."""
    found: dict[str, list[torch.Tensor]] = {method: [] for method in METHODS}
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        images = to_tensor(cache.images[part]).to(pca.mean.device)
        found["model"].append(model.encode(images).flatten(1).float().cpu())
        found["pca"].append(pca.encode(images).cpu())
        found["pixels"].append(pooled_pixels(images).cpu())
    return {method: torch.cat(parts) for method, parts in found.items()}
