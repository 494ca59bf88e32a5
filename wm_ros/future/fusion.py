"""Causal cross-attention: the action asks, what was seen and said answers.

Paper, section on stage II: the action embedding is the query, visual history and text are keys and values, and the
future is masked. Every entry of the context has a time (text: before everything); an action step attends to entries
that are older than it, so a frame to come may be in the context without informing the frames before it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

ALWAYS = -1e9  # time of what was known before everything, such as the instruction


def causal_mask(query_s: Tensor, context_s: Tensor) -> Tensor:
    """(Q, M) bool: may the action at `query_s` (Q,) see the entry of `context_s` (M,)? Only if that is earlier."""
    return context_s[None, :] < query_s[:, None] - 1e-6


class CausalCrossAttention(nn.Module):
    """One pre-norm layer: attention from (B, Q, width) to (B, M, width) under a mask, then an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_context, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, action: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """mask: (Q, M) or (B, Q, M) bool, True where the query may look; each query must see something."""
        mask = mask[:, None] if mask.dim() == 3 else mask
        query = self.query(self.norm_query(action)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        pair = self.key_value(self.norm_context(context)).unflatten(-1, (2, self.heads, -1))
        key, value = pair.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        action = action + self.out(seen.transpose(1, 2).flatten(2))
        fused: Tensor = action + self.mlp(self.norm_mlp(action))
        return fused


class Fusion(nn.Module):
    """A stack of the above; queries stay apart, so the mask of one layer is the mask of all."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CausalCrossAttention(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, action: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, Q, width), (B, M, width), mask → fused (B, Q, width)."""
        for layer in self.layers:
            action = layer(action, context, mask)
        fused: Tensor = self.norm(action)
        return fused


def entry(parts: list[tuple[Tensor, float]]) -> tuple[Tensor, Tensor]:
    """Join context parts ((B, m, width), time in s) into (B, M, width) and their times (M,)."""
    times = [torch.full((part.shape[1],), at, device=part.device) for part, at in parts]
    return torch.cat([part for part, _ in parts], 1), torch.cat(times)
