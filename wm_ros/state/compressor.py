"""Patch features → two tokens: the staged reduction of StaMo (arXiv 2510.05057 and its released renderer).

1. Transformer blocks refine the features by self-attention and cross-attention to the raw ones.
2. A linear layer splits them into a query (width of a token) and a key/value half.
3. The query is transposed: its channels become the sequence, the patch axis becomes the feature.
4. Stages shrink that axis by powers of two down to the number of tokens; in each, a transformer block attends to the
   key/value half before a linear layer reduces the width.
5. Transposed back: (tokens, token width).

All channels share the same few mixtures of patches on the way, so without a large frozen backbone it is slow to learn
where something is. `shortcut` adds a linear map from all features to all numbers of the tokens.
"""

from __future__ import annotations

import torch
from torch import nn

from wm_ros.nn.attention import TransformerBlock
from wm_ros.state.config import CompressorConfig


class Compressor(nn.Module):
    """(B, patches, width) → (B, stages[-1], token_width).

    Args:
        start_at_zero: the output is zero until trained, for use beside a linear path.
    """

    def __init__(
        self, config: CompressorConfig, patches: int, width: int, token_width: int, start_at_zero: bool = False
    ) -> None:
        super().__init__()
        stages, context = config.stages, config.context_width
        self.token_width = token_width
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, width, dropout=config.dropout) for _ in range(config.blocks)
        )
        self.split = nn.Linear(width, token_width + context)
        self.enter = nn.Linear(patches, stages[0])
        self.stages = nn.ModuleList(
            TransformerBlock(axis, min(config.heads, axis), context, dropout=config.dropout) for axis in stages
        )
        following = (*stages[1:], stages[-1])
        self.shrink = nn.ModuleList(nn.Linear(axis, after) for axis, after in zip(stages, following, strict=True))
        self.shortcut = None
        if config.shortcut:
            narrow, numbers = config.shortcut, stages[-1] * token_width
            self.shortcut = nn.Sequential(nn.Linear(width, narrow), nn.Flatten(), nn.Linear(patches * narrow, numbers))
        if start_at_zero:
            for last in (self.shrink[-1], *([self.shortcut[-1]] if self.shortcut else [])):
                nn.init.zeros_(last.weight)  # type: ignore[arg-type]
                nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features
        for block in self.blocks:
            x = block(x, features)
        split = self.split(x)
        query, context = split[..., : self.token_width], split[..., self.token_width :]
        axis = self.enter(query.transpose(1, 2))
        for block, shrink in zip(self.stages, self.shrink, strict=True):
            axis = shrink(block(axis, context))
        out: torch.Tensor = axis.transpose(1, 2)
        return out if self.shortcut is None else out + self.shortcut(features).view_as(out)
