"""Does a change of light move the state? The test of PreludeNet on image states, as curves over the size of the change.

For frames of recordings, `gain`, `gamma`, a `shadow` across the image and the balance of `colour` are changed in steps.

- token drift: distance of the changed frame's state from that of the frame, relative to the mean distance between the
  states of two random frames. 1 means: the light moves the state as far as another moment does.
- action drift: the change of the arm over four steps as decoded from two states, where the light changes between them,
  against that without a change: root mean square, relative to the root mean square of the decoded changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.capability import load
from wm_ros.data.sources import episodes
from wm_ros.evaluation.metrics import tidy
from wm_ros.evaluation.state_heads import ActionHeads
from wm_ros.nn.preprocessing import to_tensor, to_uint8
from wm_ros.state.baselines import load_baselines
from wm_ros.state.capability import StateCapability
from wm_ros.types import Frame

K = 4  # steps between the two states that an action is decoded from
RANDOM_PAIRS = 500
Images = NDArray[np.uint8]

GAIN = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
GAMMA = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
SHADOW = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # share of the light that is gone
COLOUR = (-0.4, -0.25, -0.1, 0.0, 0.1, 0.25, 0.4)  # red up and blue down by this share


def gain(images: torch.Tensor, value: float) -> torch.Tensor:
    """Brighter or darker, clipped as a camera does. Images here are (B, 3, H, W) in 0..1."""
    return (images * value).clamp(0.0, 1.0)


def gamma(images: torch.Tensor, value: float) -> torch.Tensor:
    """Another response of the camera; above 1 the middle gets darker."""
    return images**value


def shadow(images: torch.Tensor, value: float) -> torch.Tensor:
    """The right half loses a share of its light, with an edge of a tenth of the image's width."""
    across = torch.linspace(0.0, 1.0, images.shape[-1])
    covered = ((across - 0.45) / 0.1).clamp(0.0, 1.0)
    return images * (1.0 - value * covered)


def colour(images: torch.Tensor, value: float) -> torch.Tensor:
    """A warmer or colder light: red and blue in opposite directions."""
    return (images * torch.tensor([1.0 + value, 1.0, 1.0 - value]).view(3, 1, 1)).clamp(0.0, 1.0)


CHANGES: dict[str, tuple[Callable[[torch.Tensor, float], torch.Tensor], tuple[float, ...]]] = {
    "gain": (gain, GAIN),
    "gamma": (gamma, GAMMA),
    "shadow": (shadow, SHADOW),
    "colour": (colour, COLOUR),
}


@dataclass(frozen=True)
class Clips:
    """Pairs of frames `K` steps apart, (B, H, W, 3) uint8 twice, at the model's size."""

    first: Images
    second: Images


def read_clips(source: str, capability: StateCapability, per_episode: int) -> Clips:
    """Evenly spaced pairs of each episode of `source`. Raises UserError."""
    first, second = [], []
    for episode in episodes(source):
        frames = [capability.preprocess(s.rgb) for s in episode.samples() if isinstance(s, Frame)]
        starts = np.unique(np.linspace(0, max(len(frames) - K - 1, 0), per_episode).round().astype(int))
        usable = starts[starts + K < len(frames)]
        first += [frames[i] for i in usable]
        second += [frames[i + K] for i in usable]
    return Clips(np.stack(first), np.stack(second))


def measure(bundle: Path, clips: Clips) -> dict[str, Any]:
    """Curves of one bundle: change → {values, token_drift, action_drift}; no action drift where it has no heads."""
    state = load("state", bundle)
    assert isinstance(state, StateCapability)
    heads = ActionHeads(load_baselines(bundle).tensors)
    before, after = state.tokenize(clips.first), state.tokenize(clips.second)
    rng = np.random.default_rng(0)
    one, other = rng.integers(len(before), size=(2, RANDOM_PAIRS))
    apart = _distance(before[one], before[other]).mean()
    action = _action(heads, before, after) if heads else None
    report: dict[str, Any] = {}
    for name, (change, values) in CHANGES.items():
        token_drift, action_drift = [], []
        for value in values:
            lit = state.tokenize(to_uint8(change(to_tensor(clips.second), value)))
            token_drift.append(tidy(float(_distance(after, lit).mean() / apart)))
            if action is not None:
                error = _action(heads, before, lit) - action
                action_drift.append(tidy(float(np.sqrt(np.square(error).mean() / np.square(action).mean()))))
        report[name] = {"values": list(values), "token_drift": token_drift, "action_drift": action_drift}
    return report


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm((a - b).reshape(len(a), -1), axis=1), np.float64)


def _action(heads: ActionHeads, before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float64]:
    return heads.predict(heads.kind(before), "model", K, torch.from_numpy(after - before).flatten(1))
