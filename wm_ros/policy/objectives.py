"""The parts that are only trained with: from the context to what comes next, in latent space.

A target encoder (a moving average of the context encoder, without gradients) reads what came. All of this is dropped at
run time, so it costs nothing there.

    latent            the joints to come, as the target encoder sees them: ACT-JEPA (arXiv 2501.14622)
    self_prediction   what is seen some steps later, foreseen step by step from the actions: SPR (arXiv 2007.05929)
    bisimulation      two moments are as far apart as their actions and what follows: DBC (arXiv 2006.10742), with
                      actions in the place of rewards as in PSM (arXiv 2101.05265)
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.context import ContextEncoder, Observation, positions
from wm_ros.policy.head import masked_l1

DISCOUNT = 0.9


class Future(NamedTuple):
    """What came after an observation.

    Attributes:
        joints: (B, F, J). actions: (B, F, J), as the head normalises them. pad: (B, F) bool, True after the episode.
        later: what was seen later, in order; empty where no objective asks for it.
    """

    joints: Tensor
    actions: Tensor
    pad: Tensor
    later: tuple[Observation, ...] = ()


class Objective(nn.Module, ABC):
    """An auxiliary loss on the context, with the target encoder that it needs.

    Args:
        context: the encoder that the target follows. momentum: of the moving average at the first step; it rises
            linearly to 1 at the last.
    """

    def __init__(self, context: ContextEncoder, momentum: float = 0.996) -> None:
        super().__init__()
        self.momentum = momentum
        self.target = copy.deepcopy(context).requires_grad_(False)

    @abstractmethod
    def forward(self, context: Tensor, pad: Tensor, seen: Observation, future: Future) -> Tensor:
        """Context tokens (B, K, width), their mask (B, K), what was seen and what came → scalar."""

    def train(self, mode: bool = True) -> Objective:
        """The target has no dropout, ever."""
        super().train(mode)
        self.target.eval()
        return self

    @torch.no_grad()
    def follow(self, context: ContextEncoder, progress: float) -> None:
        """Move the target towards `context`; `progress` goes from 0 to 1 over training."""
        momentum = self.momentum + (1.0 - self.momentum) * progress
        for ours, theirs in zip(self.target.parameters(), context.parameters(), strict=True):
            ours.lerp_(theirs, 1.0 - momentum)


class LatentObjective(Objective):
    """A narrow predictor guesses the latent tokens of the joints to come. `width`, `layers`: of the predictor."""

    def __init__(
        self,
        config: PolicyModelConfig,
        context: ContextEncoder,
        horizon_steps: int = 0,
        momentum: float = 0.996,
        width: int = 64,
        layers: int = 1,
    ) -> None:
        super().__init__(context, momentum)
        sizes = config.transformer
        self.width, self.steps = width, min(horizon_steps or config.chunk_steps, config.chunk_steps)
        self.narrow = nn.Linear(sizes.width, width)
        self.queries = nn.Parameter(torch.randn(self.steps, width) * 0.02)
        layer = nn.TransformerDecoderLayer(
            width, sizes.heads, 4 * width, sizes.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.predictor = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.widen = nn.Linear(width, sizes.width)

    def forward(self, context: Tensor, pad: Tensor, seen: Observation, future: Future) -> Tensor:
        padded = future.pad[:, : self.steps]
        target = self.targets(seen.text, future.joints[:, : self.steps], seen.joints[:, -1], padded)
        return masked_l1(self.predict(context, pad) - target, padded)

    def predict(self, context: Tensor, pad: Tensor) -> Tensor:
        """Context (B, K, width) → latent states to come (B, steps, width)."""
        steps = torch.arange(1, self.steps + 1, device=context.device)
        queries = (self.queries + positions(steps, self.width)).expand(len(context), -1, -1)
        latent: Tensor = self.widen(self.predictor(queries, self.narrow(context), memory_key_padding_mask=pad))
        return latent

    @torch.no_grad()
    def targets(self, text: Tensor, joints: Tensor, now: Tensor, pad: Tensor) -> Tensor:
        """What the target encoder makes of the joints that followed: (B, F, width)."""
        return self.target.future(text, joints, now, pad)


class SelfPrediction(Objective):
    """From one latent and the actions up to the next look, that look's latent; `later`: the steps of the looks."""

    def __init__(self, config: PolicyModelConfig, context: ContextEncoder, later: tuple[int, ...]) -> None:
        super().__init__(context)
        width, joints = config.transformer.width, len(config.joint_names)
        self.borders = tuple(zip((0, *later), later, strict=False))
        longest = max(end - begin for begin, end in self.borders)
        self.longest = longest
        self.transition = nn.Sequential(
            nn.Linear(width + longest * joints, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.predict = nn.Linear(width, width)

    def forward(self, context: Tensor, pad: Tensor, seen: Observation, future: Future) -> Tensor:
        latent, losses = pooled(context, pad), []
        for (begin, end), look in zip(self.borders, future.later, strict=True):
            actions = future.actions[:, begin:end].flatten(1)
            actions = functional.pad(actions, (0, self.longest * future.actions.shape[2] - actions.shape[1]))
            latent = latent + self.transition(torch.cat([latent, actions], 1))
            with torch.no_grad():
                target = pooled(*self.target(look))
            apart = 1.0 - functional.cosine_similarity(self.predict(latent), target, dim=1)
            real = (~future.pad[:, end - 1]).float()
            losses.append((apart * real).sum() / real.sum().clamp_min(1.0))
        return torch.stack(losses).mean()


class Bisimulation(Objective):
    """Distances of latents between the moments of a batch and others of it, drawn anew each time."""

    def forward(self, context: Tensor, pad: Tensor, seen: Observation, future: Future) -> Tensor:
        latent = pooled(context, pad)
        with torch.no_grad():
            after = pooled(*self.target(future.later[0]))
        other = torch.randperm(len(latent), device=latent.device)
        apart = (latent - latent[other]).abs().mean(1)
        real = (~future.pad).float()
        both = real * real[other]
        acted = ((future.actions - future.actions[other]).abs().mean(2) * both).sum(1) / both.sum(1).clamp_min(1.0)
        target = acted + DISCOUNT * (after - after[other]).abs().mean(1)
        return functional.smooth_l1_loss(apart, target)


def make_objective(
    kind: str, config: PolicyModelConfig, context: ContextEncoder, horizon_steps: int, later: tuple[int, ...]
) -> Objective | None:
    """The objective of a name above; None for `none`."""
    if kind == "latent":
        return LatentObjective(config, context, horizon_steps)
    if kind == "self_prediction":
        return SelfPrediction(config, context, later)
    return Bisimulation(context) if kind == "bisimulation" else None


def pooled(context: Tensor, pad: Tensor) -> Tensor:
    """Context tokens (B, K, width) → one latent (B, width), the mean of those that are there."""
    keep = (~pad)[..., None].to(context.dtype)
    mean: Tensor = (context * keep).sum(1) / keep.sum(1)
    return mean
