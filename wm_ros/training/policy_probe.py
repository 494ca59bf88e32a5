"""`wm foresee`: what a policy's context knows of the states to come, as ACT-JEPA asks it (arXiv 2501.14622, its
world-model probe).

The encoder is frozen; a small head learns to say from the mean of its context tokens where the joints will be at each
step of the chunk. Errors are those on demonstrations that neither has seen:

    rmse   root of the mean square over joints and steps, in standard deviations of each joint
    ate    mean distance of the first three joints (metres where they are a place of the hand), over steps

Beside it: joints that stay where they are, and the same head on an encoder that was never trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wm_ros.bundle import load_bundle, load_weights
from wm_ros.errors import UserError
from wm_ros.evaluation.metrics import summarise
from wm_ros.evaluation.scorer import Metric
from wm_ros.nn.instruction import open_words
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.head import PolicyHead
from wm_ros.policy.objectives import pooled
from wm_ros.training.policy_batches import FIELDS, observation
from wm_ros.training.windows import Windows, align

BATCH, HIDDEN, STEPS, STRIDE = 128, 256, 1500, 2


def foresee(bundles: dict[str, Path], train: list[str], test: list[str], cache: Path, seed: int = 0) -> dict[str, Any]:
    """Probe each bundle on the same windows.

    Args:
        bundles: name → folder, of policies that see the same cameras; the first is compared with the others.

    Returns:
        metrics as in metrics.json: `rmse` and `ate`, the other bundles, `untrained` and `hold` as baselines.

    Raises:
        UserError: a bundle that reads state tokens, or one of another rate, chunk or cameras than the first.
    """
    heads = {name: _head(folder) for name, folder in bundles.items()}
    first = next(iter(heads.values())).config
    for name, head in heads.items():
        same = ("cameras", "rate_hz", "chunk_steps", "joint_names")
        if not head.config.cameras.names or any(getattr(head.config, f) != getattr(first, f) for f in same):
            raise UserError(f"bundle '{name}': the probe compares policies of the same cameras, rate and chunk")
    torch.manual_seed(seed)
    heads["untrained"] = PolicyHead(first).eval()
    heads["untrained"].context.norm.load_state_dict(next(iter(heads.values())).context.norm.state_dict())
    seen, unseen = (_windows(sources, first, cache) for sources in (train, test))
    norm = next(iter(heads.values())).context.norm
    statistics: dict[str, dict[str, list[NDArray[np.float64]]]] = {"rmse": {}, "ate": {}}
    truth, pad, episode = _future(unseen)
    hold = truth[:, :1] * 0 + _now(unseen)[:, None]
    answers = {"hold": hold.expand_as(truth)}
    for name, head in heads.items():
        answers[name] = _probe(head, seen, unseen, norm.joint_mean, norm.joint_std, seed)
    names = ["model", *list(bundles)[1:], "untrained", "hold"]
    keys = [next(iter(bundles)), *list(bundles)[1:], "untrained", "hold"]
    keep = (~pad).double()
    for name, key in zip(names, keys, strict=True):
        error = (answers[key] - truth).double()
        square = ((error / norm.joint_std).square().mean(2) * keep).sum(1) / keep.sum(1)
        distance = (error[..., :3].norm(dim=2) * keep).sum(1) / keep.sum(1)
        for kind, values in (("rmse", torch.stack([square, torch.ones_like(square)], 1)), ("ate", distance[:, None])):
            statistics[kind][name] = [values[episode == e].numpy() for e in episode.unique()]
    episodes = []
    for place in range(len(episode.unique())):
        rows = {kind: {name: parts[place] for name, parts in found.items()} for kind, found in statistics.items()}
        episodes.append(
            [
                Metric("rmse", "1", "lower", rows["rmse"], lambda total: float(np.sqrt(total[0] / total[1]))),
                Metric("ate", "m", "lower", rows["ate"]),
            ]
        )
    return summarise(episodes)


def _head(folder: Path) -> PolicyHead:
    config, tensors = load_bundle(folder, "policy", PolicyModelConfig)
    head = PolicyHead(config.model)
    load_weights(head, tensors, "model", folder)
    return head.eval()


def _windows(sources: list[str], config: PolicyModelConfig, cache: Path) -> Windows:
    height, width = config.cameras.size
    aligned = [
        align(source, config.joint_names, cache, rate_hz=config.rate_hz, width=width, height=height)
        for source in sources
    ]
    chosen = [(a, list(range(len(a.episodes)))) for a in aligned]
    now = tuple(FIELDS[name] for name in config.cameras.names)
    return Windows(
        chosen, config.joint_history, config.chunk_steps, ("joints",), ("joints", "commands"), STRIDE, now=now
    )


def _collated(windows: Windows, numbers: range) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = torch.utils.data.default_collate([windows[i] for i in numbers])
    return batch


def _future(windows: Windows) -> tuple[Tensor, Tensor, Tensor]:
    """Joints to come (n, F, J), their padding (n, F), and the number of the episode (n,) over all sources."""
    now, windows.now = windows.now, ()
    batch = _collated(windows, range(len(windows)))
    windows.now = now
    return batch["joints_future"], batch["pad_future"], batch["source"] * 100_000 + batch["episode"]


def _now(windows: Windows) -> Tensor:
    now, windows.now = windows.now, ()
    batch = _collated(windows, range(len(windows)))
    windows.now = now
    return batch["joints"][:, -1]


@torch.no_grad()
def _contexts(head: PolicyHead, windows: Windows) -> Tensor:
    """(n, width), the mean context of each window."""
    words = open_words(head.config.language)(windows.texts)
    found = []
    for begin in range(0, len(windows), BATCH):
        batch = _collated(windows, range(begin, min(begin + BATCH, len(windows))))
        found.append(pooled(*head.context(observation(batch, head.config, words))))
    return torch.cat(found)


def _probe(head: PolicyHead, seen: Windows, unseen: Windows, mean: Tensor, std: Tensor, seed: int) -> Tensor:
    """Joints to come (n, F, J) at the unseen windows, by a head that was trained on the seen ones."""
    contexts = _contexts(head, seen)
    truth, pad, _ = _future(seen)
    target, keep = (truth - mean) / std, (~pad)[..., None].float()
    torch.manual_seed(seed)
    centre, spread = contexts.mean(0), contexts.std(0).clamp_min(1e-3)
    small = nn.Sequential(nn.Linear(contexts.shape[1], HIDDEN), nn.GELU(), nn.Linear(HIDDEN, target[0].numel()))
    optimiser = torch.optim.AdamW(small.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        drawn = torch.randint(len(contexts), (BATCH,))
        said = small((contexts[drawn] - centre) / spread).view_as(target[drawn])
        loss = ((said - target[drawn]).square() * keep[drawn]).sum() / keep[drawn].sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        said = small((_contexts(head, unseen) - centre) / spread)
        return said.view(-1, *target.shape[1:]) * std + mean
