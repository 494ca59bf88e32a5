"""What the head sees, and the context encoder that makes tokens of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_ros.nn.instruction import make_encoder
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.image_encoder import ImageEncoder

KINDS = ("task", "joints", "state", "bev", "cameras")


class Observation(NamedTuple):
    """A batch of what the head sees. H = joint_history, S = len(token_history), both oldest first.

    Attributes:
        joints: (B, H, J) rad. joints_pad: (B, H) bool, True where nothing was measured yet.
        text: (B, …) the instruction, as `wm_ros.nn.instruction.Words` gives it.
        state: (B, S, N, D) state tokens as they come, or None. state_pad: (B, S) bool, True where there is none.
        bev: (B, T, C) or None. bev_pad: (B,) bool, True where there is none, or None.
        images: (B, V, 3, H, W) uint8, one of each camera, or None. images_pad: (B, V) bool, True where there is none.
        commands: (B, K, J) rad, those in force, oldest first, or None. commands_pad: (B, K) bool, True where none was.
    """

    joints: Tensor
    joints_pad: Tensor
    text: Tensor
    state: Tensor | None = None
    state_pad: Tensor | None = None
    bev: Tensor | None = None
    bev_pad: Tensor | None = None
    images: Tensor | None = None
    images_pad: Tensor | None = None
    commands: Tensor | None = None
    commands_pad: Tensor | None = None

    def rows(self, chosen: Tensor) -> Observation:
        """Some items of the batch."""
        return Observation._make(None if part is None else part[chosen] for part in self)

    @property
    def heard(self) -> Tensor:
        """(B,) bool, True where the command in force is known."""
        if self.commands_pad is None:
            return torch.zeros(len(self.joints), dtype=torch.bool, device=self.joints.device)
        return ~self.commands_pad[:, -1]


class Normalisation(nn.Module):
    """Constants fitted on training data; saved with the weights.

    Attributes:
        joint_mean, joint_std: (J,) of measured joints. move_std: (J,) of their change over the history.
        action_mean, action_std: (F, J) of commands at each step of the chunk, minus measured joints where `relative`.
        state_mean, state_std: (N, D). bev_mean, bev_std: (C,).
    """

    joint_mean: Tensor
    joint_std: Tensor
    move_std: Tensor
    action_mean: Tensor
    action_std: Tensor
    state_mean: Tensor
    state_std: Tensor
    bev_mean: Tensor
    bev_std: Tensor

    def __init__(self, config: PolicyModelConfig) -> None:
        super().__init__()
        joints, state = (len(config.joint_names),), (config.state_tokens, config.state_width)
        for name, shape in (("joint", joints), ("state", state), ("bev", (config.bev_width,))):
            self.register_buffer(f"{name}_mean", torch.zeros(shape))
            self.register_buffer(f"{name}_std", torch.ones(shape))
        self.register_buffer("move_std", torch.ones(joints))
        self.register_buffer("action_mean", torch.zeros(config.chunk_steps, *joints))
        self.register_buffer("action_std", torch.ones(config.chunk_steps, *joints))


def positions(steps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding (len(steps), width) of times in grid steps, 0 = now, negative = past."""
    frequency = torch.exp(torch.arange(0, width, 2, device=steps.device) * (-math.log(1000.0) / width))
    angle = steps[:, None].float() * frequency
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


class ContextEncoder(nn.Module):
    """Tokens of everything seen → contextual tokens; the same layout encodes future joints as JEPA targets."""

    joints_when: Tensor
    states_when: Tensor

    def __init__(self, config: PolicyModelConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.transformer
        width, joints = sizes.width, len(config.joint_names)
        # When joints were measured and states seen.
        past, back = torch.arange(1 - config.joint_history, 1), -torch.tensor(config.token_history[::-1])
        self.register_buffer("joints_when", positions(past, width), persistent=False)
        self.register_buffer("states_when", positions(back, width), persistent=False)
        self._heard: tuple[Tensor, Tensor] | None = None
        self.settled = False
        self.norm = Normalisation(config)
        self.task = make_encoder(config.language, width)
        self.joints = nn.Linear(2 * joints, width)
        self.state = nn.Linear(config.state_width, width)
        self.bev = nn.Linear(config.bev_width, width) if config.bev_width else None
        # What stands in for a sensor that is not there.
        self.absent_bev = nn.Parameter(torch.randn(width) * 0.02)
        self.absent_state = nn.Parameter(torch.randn(width) * 0.02)
        self.cameras = nn.ModuleList([ImageEncoder(config.cameras, width) for _ in config.cameras.names])
        self.absent_camera = nn.Parameter(torch.randn(len(config.cameras.names), width) * 0.02)
        self.kind = nn.Parameter(torch.randn(len(KINDS), width) * 0.02)
        # What is left to add to a path that heard commands is another thing.
        self.told = nn.Parameter(torch.zeros(width)) if config.past is not None and config.past.commands else None
        self.slot = nn.Parameter(torch.randn(config.state_tokens, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, sizes.heads, sizes.feedforward, sizes.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, sizes.layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, seen: Observation) -> tuple[Tensor, Tensor]:
        """→ tokens (B, K, width) and their padding mask (B, K), True where there is nothing to attend to."""
        config = self.config
        task = self._task(seen.text)
        if self.told is not None:
            task = task + self.told * seen.heard[:, None]
        groups = [
            task[:, None] + self.kind[0],
            self.proprioception(seen.joints, seen.joints[:, -1], self.joints_when),
            self._bev(seen, len(seen.joints)) + self.kind[3],
        ]
        if config.token_history:
            groups.append(self._states(seen))
        if config.cameras.names:
            groups.append(self._images(seen))
        tokens = torch.cat(groups, 1)
        pad = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        pad[:, 1 : 1 + config.joint_history] = seen.joints_pad
        return self.layers(tokens, src_key_padding_mask=pad), pad

    def settle(self) -> None:
        """Weights stay as they are from now on, until training: an instruction is encoded once."""
        self.settled, self._heard = True, None

    def train(self, mode: bool = True) -> ContextEncoder:
        """Back to learning: every instruction is encoded."""
        self.settled = self.settled and not mode
        super().train(mode)
        return self

    def _task(self, text: Tensor) -> Tensor:
        """The token (B, width) of what is to be done."""
        if not self.settled:
            task: Tensor = self.task(text)
            return task
        if self._heard is None or not torch.equal(self._heard[0], text):
            self._heard = text, self.task(text)
        return self._heard[1]

    def future(self, text: Tensor, joints: Tensor, now: Tensor, pad: Tensor) -> Tensor:
        """Latent states to come (B, F, width): the task and `joints` (B, F, J) after `now` (B, J), bidirectional."""
        steps = torch.arange(1, joints.shape[1] + 1, device=joints.device)
        task = self.task(text)[:, None] + self.kind[0]
        when = positions(steps, self.config.transformer.width)
        tokens = torch.cat([task, self.proprioception(joints, now, when)], 1)
        pad = torch.cat([torch.zeros_like(pad[:, :1]), pad], 1)
        encoded: Tensor = self.layers(tokens, src_key_padding_mask=pad)
        return encoded[:, 1:]

    def proprioception(self, joints: Tensor, now: Tensor, when: Tensor) -> Tensor:
        """(B, T, J) at times `when` (T, width) → (B, T, width): where the joints are, and how far from now."""
        norm = self.norm
        where = (joints - norm.joint_mean) / norm.joint_std
        moved = (joints - now[:, None]) / norm.move_std
        tokens: Tensor = self.joints(torch.cat([where, moved], -1))
        return tokens + (when + self.kind[1])

    def _states(self, seen: Observation) -> Tensor:
        """A state is `state_tokens` tokens that share a time; a missing one is the learned token for absence."""
        norm = self.norm
        assert seen.state is not None and seen.state_pad is not None
        state = self.state((seen.state - norm.state_mean) / norm.state_std) + self.slot
        state = torch.where(seen.state_pad[:, :, None, None], self.absent_state, state)
        placed: Tensor = state + self.states_when[:, None] + self.kind[2]
        return placed.flatten(1, 2)

    def _images(self, seen: Observation) -> Tensor:
        """One token of each camera, or the learned one for its absence."""
        assert seen.images is not None and seen.images_pad is not None
        tokens = torch.stack([encode(seen.images[:, place]) for place, encode in enumerate(self.cameras)], 1)
        return torch.where(seen.images_pad[..., None], self.absent_camera, tokens + self.kind[4])

    def _bev(self, seen: Observation, batch: int) -> Tensor:
        absent = self.absent_bev.expand(batch, max(1, self.config.bev_tokens), -1)
        if self.bev is None or seen.bev is None or seen.bev_pad is None:
            return absent
        tokens = self.bev((seen.bev - self.norm.bev_mean) / self.norm.bev_std)
        return torch.where(seen.bev_pad[:, None, None], absent, tokens)
