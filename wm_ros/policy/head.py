"""The policy head: action decoder of ACT-JEPA (arXiv 2501.14622, section 4.1 of its method) on a context encoder.

What differs from the paper: images enter as a token of each camera, or as the tokens of `state`, instead of
a ResNet's feature map; BEV tokens of `lidar` may join them; the task is words instead of a number; the context may hold
a short history of joints and states, because one state says nothing of speed; and what the decoder says is added to a
linear path from the joints, or to what was fitted on the past alone before (`wm_ros.policy.past`). An untrained head
holds still. The part that predicts latent states is in `wm_ros.policy.objectives` and not needed to act.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wm_ros.nn.flow import Velocity, follow, velocity_loss
from wm_ros.policy.chunk_decoder import ChunkDecoder
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.context import ContextEncoder, Observation, positions
from wm_ros.policy.flow_expert import FlowExpert
from wm_ros.policy.past import Pasts

Steer = Callable[[Velocity], Velocity]


def unsteered(velocity: Velocity) -> Velocity:
    """A flow that is left as it is."""
    return velocity


class PolicyHead(nn.Module):
    """What acts: context encoder, then a decoder whose learnable queries become the chunk, or the flow expert."""

    times: Tensor

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
            steps = torch.arange(1, config.chunk_steps + 1)
            self.register_buffer("times", positions(steps, width), persistent=False)
            self.decoder = ChunkDecoder(sizes)
            self.action = nn.Linear(width, joints)
            nn.init.zeros_(self.action.weight)
            nn.init.zeros_(self.action.bias)
        self.past: Pasts | None = None
        if config.past is not None:
            self.past = Pasts(config, config.past)
        else:  # inertia needs no attention
            self.inertia = nn.Linear(2 * joints * config.joint_history, config.chunk_steps * joints)
            nn.init.zeros_(self.inertia.weight)
            nn.init.zeros_(self.inertia.bias)

    def settle(self) -> PolicyHead:
        """Get ready to act: in evaluation mode, weights stay as they are, and what they alone decide is kept."""
        self.eval().requires_grad_(False)
        # One picture at a time, convolutions are quicker where channels lie together.
        self.context.cameras.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.context.settle()
        if self.expert is None:
            self.decoder.settle(self.queries + self.times)
        return self

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
            change = self.action(self.decoder.decode(self.queries + self.times, context, pad))
        now = seen.joints[:, -1:]
        if self.past is None:
            return self.absolute(now, change + self._inertia(seen))
        path, heed = self.past(seen)
        return now + path + heed * change * self.context.norm.action_std

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
        """Commands (B, F, J) as a flow has them: normalised, without what the linear path says."""
        return self.normalised(seen.joints[:, -1:], commands) - self._inertia(seen)

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
