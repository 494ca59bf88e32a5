"""Pre-norm transformer block with optional cross-attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

FEW = 16  # heads narrower than this train slowly with the fused attention of a CPU


class Attention(nn.Module):
    """Multi-head attention of (B, N, dim) to (B, M, context_dim); `heads` must divide `dim`."""

    def __init__(self, dim: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(context_dim or dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        source = x if context is None else context
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(source).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if query.shape[-1] < FEW:
            attended = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1) @ value
        else:
            attended = functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention (where `context_dim` is given), MLP; each on a residual path.

    Args:
        dim: width of the stream. heads: of both attentions. context_dim: width of what is attended to, or None.
    """

    def __init__(
        self, dim: int, heads: int, context_dim: int | None = None, mlp_ratio: float = 4.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        hidden = max(8, int(dim * mlp_ratio))
        self.norm_self, self.self_attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm_cross = nn.LayerNorm(dim) if context_dim else None
        self.cross_attention = Attention(dim, heads, context_dim) if context_dim else None
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, N, dim), context (B, M, context_dim) → (B, N, dim)."""
        x = x + self.dropout(self.self_attention(self.norm_self(x)))
        if self.cross_attention is not None and self.norm_cross is not None:
            if context is None:
                raise ValueError("this block attends to a context: give one")
            x = x + self.dropout(self.cross_attention(self.norm_cross(x), context))
        out: torch.Tensor = x + self.dropout(self.mlp(self.norm_mlp(x)))
        return out
