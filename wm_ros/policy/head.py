"""The policy head: context encoder and action decoder of ACT-JEPA (arXiv 2501.14622, section 4.1 of its method).

What differs from the paper: images enter as a token of each camera, or as the tokens of `state`, instead of
a ResNet's feature map; BEV tokens of `lidar` may join them; the task is words instead of a number; the context may hold
a short history of joints and states, because one state says nothing of speed; and a linear path from that history is
added to the decoder's output, so that an untrained head holds still, or extrapolates where that path was fitted first.
The part that predicts latent states is in `wm_ros.policy.jepa` and not needed to act.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_ros.nn.flow import Velocity, follow, velocity_loss
from wm_ros.nn.instruction import make_encoder
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.flow_expert import FlowExpert
from wm_ros.policy.image_encoder import ImageEncoder

KINDS = ("task", "joints", "state", "bev", "cameras")


Steer = Callable[[Velocity], Velocity]


def unsteered(velocity: Velocity) -> Velocity:
    """A flow that is left as it is."""
    return velocity


class Observation(NamedTuple):
    """A batch of what the head sees. H = joint_history, S = len(token_history), both oldest first.

    Attributes:
        joints: (B, H, J) rad. joints_pad: (B, H) bool, True where nothing was measured yet.
        text: (B, …) the instruction, as `wm_ros.nn.instruction.Words` gives it.
        state: (B, S, N, D) state tokens as they come, or None. state_pad: (B, S) bool, True where there is none.
        bev: (B, T, C) or None. bev_pad: (B,) bool, True where there is none, or None.
        images: (B, V, 3, H, W) uint8, one of each camera, or None. images_pad: (B, V) bool, True where there is none.
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

    def __init__(self, config: PolicyModelConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.transformer
        width, joints = sizes.width, len(config.joint_names)
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
        self.slot = nn.Parameter(torch.randn(config.state_tokens, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, sizes.heads, sizes.feedforward, sizes.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, sizes.layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, seen: Observation) -> tuple[Tensor, Tensor]:
        """→ tokens (B, K, width) and their padding mask (B, K), True where there is nothing to attend to."""
        config = self.config
        steps = torch.arange(1 - config.joint_history, 1, device=seen.joints.device)
        groups = [
            self.task(seen.text)[:, None] + self.kind[0],
            self.proprioception(seen.joints, seen.joints[:, -1], steps),
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

    def future(self, text: Tensor, joints: Tensor, now: Tensor, pad: Tensor) -> Tensor:
        """Latent states to come (B, F, width): the task and `joints` (B, F, J) after `now` (B, J), bidirectional."""
        steps = torch.arange(1, joints.shape[1] + 1, device=joints.device)
        task = self.task(text)[:, None] + self.kind[0]
        tokens = torch.cat([task, self.proprioception(joints, now, steps)], 1)
        pad = torch.cat([torch.zeros_like(pad[:, :1]), pad], 1)
        encoded: Tensor = self.layers(tokens, src_key_padding_mask=pad)
        return encoded[:, 1:]

    def proprioception(self, joints: Tensor, now: Tensor, steps: Tensor) -> Tensor:
        """(B, T, J) → (B, T, width): where the joints are, and how far from where they are now."""
        norm = self.norm
        where = (joints - norm.joint_mean) / norm.joint_std
        moved = (joints - now[:, None]) / norm.move_std
        tokens: Tensor = self.joints(torch.cat([where, moved], -1))
        return tokens + positions(steps, self.config.transformer.width) + self.kind[1]

    def _states(self, seen: Observation) -> Tensor:
        """A state is `state_tokens` tokens that share a time; a missing one is the learned token for absence."""
        config, norm = self.config, self.norm
        assert seen.state is not None and seen.state_pad is not None
        state = self.state((seen.state - norm.state_mean) / norm.state_std) + self.slot
        state = torch.where(seen.state_pad[:, :, None, None], self.absent_state, state)
        back = -torch.as_tensor(config.token_history[::-1], device=state.device)
        placed: Tensor = state + positions(back, config.transformer.width)[:, None] + self.kind[2]
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


class PolicyHead(nn.Module):
    """What acts: context encoder, then a decoder whose learnable queries become the chunk, or the flow expert."""

    def __init__(self, config: PolicyModelConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.transformer
        width, joints = sizes.width, len(config.joint_names)
        self.context = ContextEncoder(config)
        self.expert: FlowExpert | None = None
        if config.decoder == "flow":
            self.expert = FlowExpert(config)
        else:
            self.queries = nn.Parameter(torch.randn(config.chunk_steps, width) * 0.02)
            layer = nn.TransformerDecoderLayer(
                width, sizes.heads, sizes.feedforward, sizes.dropout, "gelu", batch_first=True, norm_first=True
            )
            self.decoder = nn.TransformerDecoder(layer, sizes.decoder_layers, nn.LayerNorm(width))
            self.action = nn.Linear(width, joints)
        # A linear path from the history of joints: inertia needs no attention.
        self.inertia = nn.Linear(2 * joints * config.joint_history, config.chunk_steps * joints)
        for layer_out in (self.inertia, *(() if self.expert is not None else (self.action,))):
            nn.init.zeros_(layer_out.weight)
            nn.init.zeros_(layer_out.bias)

    def forward(self, seen: Observation) -> Tensor:
        """→ chunk (B, chunk_steps, J), absolute; of a flow the one that noise 0 leads to."""
        context, pad = self.context(seen)
        return self.decode(seen, context, pad)

    def decode(
        self, seen: Observation, context: Tensor, pad: Tensor, noise: Tensor | None = None, steer: Steer = unsteered
    ) -> Tensor:
        """Context → chunk (B, chunk_steps, J), absolute.

        Args:
            noise: (B, chunk_steps, J) that a flow starts from, 0 where not given.
            steer: changes the velocity field of a flow: `wm_ros.policy.realtime.guide`.
        """
        config = self.config
        if self.expert is not None:
            velocity = steer(self.expert.given(context, pad))
            start = torch.zeros(len(context), config.chunk_steps, len(config.joint_names), device=context.device)
            change = follow(velocity, start if noise is None else noise, config.flow_steps)
        else:
            steps = torch.arange(1, config.chunk_steps + 1, device=context.device)
            queries = (self.queries + positions(steps, config.transformer.width)).expand(len(context), -1, -1)
            change = self.action(self.decoder(queries, context, memory_key_padding_mask=pad))
        return self.absolute(seen.joints[:, -1:], change + self._inertia(seen))

    def action_loss(
        self, seen: Observation, context: Tensor, pad: Tensor, commands: Tensor, unknown: Tensor, balanced: bool
    ) -> Tensor:
        """L1 of the chunk, or the flow-matching loss, over what is known.

        Args:
            commands: (B, F, J). unknown: (B, F) bool. balanced: as in `PolicyTrainConfig`.
        """
        scale = self.context.norm.action_std
        relative = torch.ones_like(scale) if balanced else scale / scale.mean()
        if self.expert is None:
            error = (self.decode(seen, context, pad) - commands) / scale * relative
            return masked_l1(error, unknown)
        clean = self.change(seen, commands)
        known = (~unknown)[..., None].to(clean)
        share = known.mean().clamp_min(1e-6)
        return velocity_loss(self.expert.given(context, pad, unknown), clean, weight=relative * known / share)

    def absolute(self, now: Tensor, normalised: Tensor) -> Tensor:
        """Normalised actions (B, F, J) → commands, where the joints are `now` (B, 1, J)."""
        norm = self.context.norm
        chunk = norm.action_mean + normalised * norm.action_std
        return now + chunk if self.config.relative else chunk

    def normalised(self, now: Tensor, commands: Tensor) -> Tensor:
        """The inverse of `absolute`."""
        norm = self.context.norm
        return (commands - (now if self.config.relative else 0.0) - norm.action_mean) / norm.action_std

    def change(self, seen: Observation, commands: Tensor) -> Tensor:
        """Commands (B, F, J) as the decoder has them: normalised, without what the linear path says."""
        return self.normalised(seen.joints[:, -1:], commands) - self._inertia(seen)

    @torch.no_grad()
    def start_from(self, coefficients: Tensor) -> None:
        """Set the linear path to a linear model of the chunk, so that training starts at its quality.

        Args:
            coefficients: (1 + H·J, F·J) of `wm_ros.policy.baselines.fit_ridge`: one, joints now, and how far from now
                they were at the H - 1 steps before → commands minus joints now, rad.
        """
        norm, config = self.context.norm, self.config
        past, joints, steps = config.joint_history - 1, len(config.joint_names), config.chunk_steps
        if not config.relative:
            raise ValueError("a linear model of the change starts a head of changes: relative")
        scaled = coefficients.view(-1, steps, joints).clone()
        scaled[0] -= norm.action_mean
        scaled = scaled / norm.action_std
        now, before = scaled[1 : 1 + joints], scaled[1 + joints :].view(past, joints, steps, joints)
        weight = torch.zeros(steps, joints, past + 1, 2, joints)  # output, history, (where, moved), input
        weight[:, :, -1, 0] = (now * norm.joint_std[:, None, None]).permute(1, 2, 0)
        weight[:, :, :-1, 1] = (before * norm.move_std[None, :, None, None]).permute(2, 3, 0, 1)
        bias = scaled[0] + (now * norm.joint_mean[:, None, None]).sum(0)
        self.inertia.weight.copy_(weight.flatten(2).flatten(0, 1))
        self.inertia.bias.copy_(bias.flatten())

    def _inertia(self, seen: Observation) -> Tensor:
        norm, now = self.context.norm, seen.joints[:, -1:]
        # Padded steps repeat the first measurement, as `moved` they are as far from now as that was: set them to 0.
        moved = ((seen.joints - now) / norm.move_std).masked_fill(seen.joints_pad[..., None], 0.0)
        where = ((seen.joints - norm.joint_mean) / norm.joint_std).masked_fill(seen.joints_pad[..., None], 0.0)
        flat: Tensor = self.inertia(torch.cat([where, moved], -1).flatten(1))
        return flat.unflatten(1, (self.config.chunk_steps, -1))


def masked_l1(error: Tensor, pad: Tensor) -> Tensor:
    """Mean absolute error over what is not padded. error (B, F, C), pad (B, F) bool, True = leave out."""
    keep = (~pad)[..., None].to(error.dtype)
    return (error.abs() * keep).sum() / (keep.sum() * error.shape[-1]).clamp_min(1.0)
