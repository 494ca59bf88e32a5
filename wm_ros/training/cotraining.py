"""Co-training with pseudo-actions (StaMo, section 3.3 and its co-training experiment): few episodes with actions, more
with images only.

A policy sees the state, its motion over the last steps and, where they are known, the arm's joints; it says how the
right arm's joints will change over the next second. Of most episodes only images are known. What they add:

- `few`: nothing; only episodes with actions are used.
- `latent`: a second head predicts the motions to come, s(t + k) − s(t) for k = 1, 2, 4, 8, on all episodes.
- `decoded`: those motions, decoded to changes of joints by a head that the few episodes taught, stand in for actions.
- `all`: the actions of all episodes, what co-training can hope for at best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional

from wm_ros.bundle import StrictModel
from wm_ros.state.action import JOINTS, STEPS, ActionHead, fit_head, step_pairs

ARMS = ("few", "latent", "decoded", "all")
CHUNK = 15  # steps of a chunk
PAST = 3  # steps that the motion in the observation spans


class CotrainConfig(StrictModel):
    """`config/cotrain.yaml`.

    Attributes:
        few: numbers of episodes with actions. seeds: each draws other episodes and weights.
        steps, batch_size, lr, width, dropout: of the training, alike for every arm.
        latent_weight, decoded_weight: of the losses on episodes without actions.
        drop_joints: share of training windows that must do without joints, as video must.
        head_steps: training of the head that decodes motions.
    """

    few: tuple[int, ...] = (2, 4, 8)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = Field(default=1500, ge=1)
    batch_size: int = Field(default=64, ge=1)
    lr: float = 1e-3
    width: int = 256
    dropout: float = 0.2
    latent_weight: float = 0.5
    decoded_weight: float = 0.5
    drop_joints: float = 0.5
    head_steps: int = 1000


@dataclass(frozen=True)
class Recording:
    """Frames of all episodes, one after the other, at a steady rate.

    Attributes:
        tokens: (N, D) flattened states. arm_rad: (N, 7) right arm, NaN where not known. episode: (N,). stamp_s: (N,).
    """

    tokens: torch.Tensor
    arm_rad: torch.Tensor
    episode: NDArray[np.int64]
    stamp_s: NDArray[np.float64]

    def windows(self, step_s: float) -> NDArray[np.int64]:
        """Frames with `PAST` steps before and `CHUNK` steps after them in their episode, none missing."""
        starts, ends = step_pairs(self.episode, self.stamp_s, (PAST + CHUNK) * step_s)
        return starts[ends == starts + PAST + CHUNK] + PAST

    def without_actions(self, episodes: NDArray[np.int64]) -> Recording:
        """The same with the joints of all but `episodes` unknown."""
        known = torch.from_numpy(np.isin(self.episode, episodes))[:, None]
        unknown = torch.full_like(self.arm_rad, float("nan"))
        return Recording(self.tokens, torch.where(known, self.arm_rad, unknown), self.episode, self.stamp_s)


class ChunkPolicy(nn.Module):
    """State, motion and perhaps joints → chunk of joint changes (B, CHUNK, 7) rad, and motions to come (B, 4, D)."""

    scale: torch.Tensor
    motion_scale: torch.Tensor
    chunk_scale: torch.Tensor
    mean: torch.Tensor

    def __init__(self, tokens: int, config: CotrainConfig) -> None:
        super().__init__()
        for name, shape in (("mean", (tokens,)), ("scale", (tokens,)), ("motion_scale", (len(STEPS), tokens))):
            self.register_buffer(name, torch.ones(shape))
        self.register_buffer("chunk_scale", torch.ones(CHUNK, JOINTS))
        inputs = 2 * tokens + 2 * JOINTS + 1
        self.trunk = nn.Sequential(
            *(nn.Linear(inputs, config.width), nn.GELU(), nn.Dropout(config.dropout)),
            *(nn.Linear(config.width, config.width), nn.GELU(), nn.Dropout(config.dropout)),
        )
        self.chunk = nn.Linear(config.width, CHUNK * JOINTS)
        self.motion = nn.Linear(config.width, len(STEPS) * tokens)

    def forward(self, tokens: torch.Tensor, joints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`tokens`: (B, 2, D) now and `PAST` steps ago; `joints`: (B, 2, 7) alike, NaN where they are not known."""
        now, past = (tokens - self.mean).unbind(1)
        unknown = joints.isnan().any((1, 2))[:, None]
        position, moved = joints[:, 0], (joints[:, 0] - joints[:, 1]) / self.chunk_scale[PAST - 1]
        body = torch.cat([position, moved], 1).masked_fill(unknown, 0.0)
        x = self.trunk(torch.cat([now / self.scale, (now - past) / self.motion_scale[1], body, unknown.float()], 1))
        chunk = self.chunk(x).view(-1, CHUNK, JOINTS) * self.chunk_scale
        return chunk, self.motion(x).view(-1, len(STEPS), now.shape[1])


@torch.no_grad()
def decoded_chunks(recording: Recording, head: ActionHead, now: NDArray[np.int64]) -> torch.Tensor:
    """Pseudo-actions: changes of joints over each step of a chunk, (W, CHUNK, 7), from images alone.

    A change over j steps is the sum of decoded motions over 8, 4, 2 and 1 steps, one after the other.
    """
    chunks = torch.zeros(len(now), CHUNK, JOINTS)
    for step in range(1, CHUNK + 1):
        at = torch.from_numpy(now)
        for k in sorted(STEPS, reverse=True):
            if step & k:
                chunks[:, step - 1] += head(recording.tokens[at + k] - recording.tokens[at], k)
                at = at + k
    return chunks


def fit_motion_head(recording: Recording, step_s: float, config: CotrainConfig, seed: int) -> ActionHead:
    """The head that decodes motions, from the episodes whose joints are known."""
    known = ~torch.isnan(recording.arm_rad).any(1).numpy()
    pairs = {}
    for k in STEPS:
        first, second = step_pairs(recording.episode, recording.stamp_s, k * step_s)
        first, second = (rows[known[first] & known[second]] for rows in (first, second))
        change = recording.tokens[second] - recording.tokens[first]
        pairs[k] = (change, recording.arm_rad[second] - recording.arm_rad[first])
    return fit_head(pairs, seed=seed, steps=config.head_steps)


def train_policy(recording: Recording, arm: str, step_s: float, config: CotrainConfig, seed: int) -> ChunkPolicy:
    """Train one arm of the table; `recording` has joints of the few episodes only (of all for `all`)."""
    now = recording.windows(step_s)
    known = ~torch.isnan(recording.arm_rad[now]).any(1).numpy()
    acting, watching = now[known], now[~known]
    chunks = _chunks(recording, acting)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = ChunkPolicy(recording.tokens.shape[1], config)
        _normalise(policy, recording, acting, chunks)
        pseudo = torch.empty(0)
        if arm == "decoded" and len(watching):
            pseudo = decoded_chunks(recording, fit_motion_head(recording, step_s, config, seed), watching)
        optimiser = torch.optim.AdamW(policy.parameters(), config.lr, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
        for _ in range(config.steps):
            # 1. Windows with actions: L1 on the chunk; half of them must do without joints.
            drawn = torch.randint(len(acting), (config.batch_size,))
            chunk, motion = policy(*_observe(recording, acting[drawn], config.drop_joints))
            loss = ((chunk - chunks[drawn]) / policy.chunk_scale).abs().mean()
            # 2. Windows of video: the motion to come, or the change of joints that it stands for.
            if arm == "latent":
                loss = loss + config.latent_weight * _motion_loss(policy, recording, acting[drawn], motion)
            if arm in ("latent", "decoded") and len(watching):
                drawn = torch.randint(len(watching), (config.batch_size,))
                chunk, motion = policy(*_observe(recording, watching[drawn], 1.0))
                if arm == "latent":
                    loss = loss + config.latent_weight * _motion_loss(policy, recording, watching[drawn], motion)
                else:
                    error = ((chunk - pseudo[drawn]) / policy.chunk_scale).abs().mean()
                    loss = loss + config.decoded_weight * error
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return policy.eval().requires_grad_(False)


def chunk_errors(
    policy: ChunkPolicy, recording: Recording, now: NDArray[np.int64], joints: bool
) -> NDArray[np.float64]:
    """Absolute errors of a policy's chunks, mean over joints, (W, CHUNK) rad; with joints or from images alone."""
    predicted, _ = policy(*_observe(recording, now, 0.0 if joints else 1.0))
    return (predicted - _chunks(recording, now)).abs().mean(2).double().numpy()


def still_errors(recording: Recording, now: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same of an arm that does not move."""
    return _chunks(recording, now).abs().mean(2).double().numpy()


def mean_errors(
    train: Recording, windows: NDArray[np.int64], recording: Recording, now: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The same of the mean chunk of the training windows whose joints are known."""
    mean = _chunks(train, windows).nanmean(0)
    return (mean - _chunks(recording, now)).abs().mean(2).double().numpy()


def _observe(recording: Recording, now: NDArray[np.int64], drop: float) -> tuple[torch.Tensor, torch.Tensor]:
    rows = np.stack([now, now - PAST], 1)
    joints = recording.arm_rad[rows]
    dropped = torch.rand(len(now)) < drop
    return recording.tokens[rows], torch.where(dropped[:, None, None], torch.nan, joints)


def _chunks(recording: Recording, now: NDArray[np.int64]) -> torch.Tensor:
    """Changes of joints from now on, (W, CHUNK, 7) rad."""
    ahead = now[:, None] + np.arange(1, CHUNK + 1)
    return recording.arm_rad[ahead] - recording.arm_rad[now][:, None]


def _motions(recording: Recording, now: NDArray[np.int64]) -> torch.Tensor:
    return recording.tokens[now[:, None] + np.array(STEPS)] - recording.tokens[now][:, None]


def _motion_loss(
    policy: ChunkPolicy, recording: Recording, now: NDArray[np.int64], predicted: torch.Tensor
) -> torch.Tensor:
    return functional.l1_loss(predicted, _motions(recording, now) / policy.motion_scale)


def _normalise(policy: ChunkPolicy, recording: Recording, acting: NDArray[np.int64], chunks: torch.Tensor) -> None:
    policy.mean.copy_(recording.tokens.mean(0))
    policy.scale.copy_(recording.tokens.std(0).clamp_min(1e-6))
    policy.motion_scale.copy_(_motions(recording, acting).std(0).clamp_min(1e-6))
    policy.chunk_scale.copy_(chunks.std(0).clamp_min(1e-4))
