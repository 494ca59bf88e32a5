"""The part of ACT-JEPA that is only trained with: latent states to come are predicted, not reconstructed.

A target encoder (a moving average of the context encoder, without gradients) reads the joints that followed; a narrow
predictor guesses its latent tokens from the context. Both are dropped at run time, so they cost nothing there.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.head import ContextEncoder, positions


class LatentObjective(nn.Module):
    """Predictor and target encoder.

    Args:
        context: the encoder that the target follows. momentum: of the moving average at the first step; it rises
            linearly to 1 at the last. width, layers: of the predictor, narrower than the encoder.
    """

    def __init__(
        self,
        config: PolicyModelConfig,
        context: ContextEncoder,
        momentum: float = 0.996,
        width: int = 64,
        layers: int = 1,
    ) -> None:
        super().__init__()
        sizes = config.transformer
        self.momentum, self.width = momentum, width
        self.target = copy.deepcopy(context).requires_grad_(False)
        self.narrow = nn.Linear(sizes.width, width)
        self.queries = nn.Parameter(torch.randn(config.chunk_steps, width) * 0.02)
        layer = nn.TransformerDecoderLayer(
            width, sizes.heads, 4 * width, sizes.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.predictor = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.widen = nn.Linear(width, sizes.width)

    def train(self, mode: bool = True) -> LatentObjective:
        """The target has no dropout, ever."""
        super().train(mode)
        self.target.eval()
        return self

    def predict(self, context: Tensor, pad: Tensor) -> Tensor:
        """Context (B, K, width) → latent states to come (B, chunk_steps, width)."""
        steps = torch.arange(1, len(self.queries) + 1, device=context.device)
        queries = (self.queries + positions(steps, self.width)).expand(len(context), -1, -1)
        latent: Tensor = self.widen(self.predictor(queries, self.narrow(context), memory_key_padding_mask=pad))
        return latent

    @torch.no_grad()
    def targets(self, text: Tensor, joints: Tensor, now: Tensor, pad: Tensor) -> Tensor:
        """What the target encoder makes of the joints that followed: (B, F, width)."""
        return self.target.future(text, joints, now, pad)

    @torch.no_grad()
    def follow(self, context: ContextEncoder, progress: float) -> None:
        """Move the target towards `context`; `progress` goes from 0 to 1 over training."""
        momentum = self.momentum + (1.0 - self.momentum) * progress
        for ours, theirs in zip(self.target.parameters(), context.parameters(), strict=True):
            ours.lerp_(theirs, 1.0 - momentum)


def masked_l1(error: Tensor, pad: Tensor) -> Tensor:
    """Mean absolute error over what is not padded. error (B, F, C), pad (B, F) bool, True = leave out."""
    keep = (~pad)[..., None].to(error.dtype)
    return (error.abs() * keep).sum() / (keep.sum() * error.shape[-1]).clamp_min(1.0)
