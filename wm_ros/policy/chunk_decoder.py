"""The action decoder's layers, which need not work out again what no observation changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_ros.policy.config import TransformerConfig


class ChunkDecoder(nn.TransformerDecoder):
    """Queries, one for each step of the chunk → what the action is read from, by looking at the context.

    The queries are the same for every observation, and so is what they tell each other before they first look at the
    context: `settle` keeps it. Training forgets it.
    """

    def __init__(self, sizes: TransformerConfig) -> None:
        layer = nn.TransformerDecoderLayer(
            sizes.width, sizes.heads, sizes.feedforward, sizes.dropout, "gelu", batch_first=True, norm_first=True
        )
        super().__init__(layer, sizes.decoder_layers, nn.LayerNorm(sizes.width))
        self._settled: tuple[Tensor, Tensor] | None = None

    def decode(self, queries: Tensor, context: Tensor, pad: Tensor) -> Tensor:
        """queries (F, width), context (B, K, width) and its padding mask (B, K) → (B, F, width)."""
        if self._settled is None:
            out: Tensor = self(queries.expand(len(context), -1, -1), context, memory_key_padding_mask=pad)
            return out
        # The first layer, without its self-attention.
        first, *others = self.layers
        x, asking = self._settled
        x = x + self._look(asking, context, pad)
        x = x + first.linear2(first.activation(first.linear1(first.norm3(x))))
        for layer in others:
            x = layer(x, context, memory_key_padding_mask=pad)
        assert self.norm is not None
        return self.norm(x)

    def _look(self, asking: Tensor, context: Tensor, pad: Tensor) -> Tensor:
        """Attention of the first layer to the context, for queries (1, heads, F, width / heads) that are kept."""
        attention = self.layers[0].multihead_attn
        weight, bias = _projection(attention, slice(context.shape[-1], None))
        both = functional.linear(context, weight, bias).chunk(2, -1)
        key, value = (_by_head(part, attention.num_heads) for part in both)
        asking = asking.expand(len(context), -1, -1, -1)
        found = functional.scaled_dot_product_attention(asking, key, value, attn_mask=~pad[:, None, None])
        out: Tensor = attention.out_proj(found.transpose(1, 2).flatten(2))
        return out

    @torch.no_grad()
    def settle(self, queries: Tensor) -> None:
        """Keep what `queries` (F, width) come to; weights must stay as they are from now on. In evaluation mode."""
        first, x = self.layers[0], queries[None]
        asked = first.norm1(x)
        x = x + first.self_attn(asked, asked, asked, need_weights=False)[0]
        weight, bias = _projection(first.multihead_attn, slice(None, x.shape[-1]))
        self._settled = x, _by_head(functional.linear(first.norm2(x), weight, bias), first.multihead_attn.num_heads)

    def train(self, mode: bool = True) -> ChunkDecoder:
        """Back to learning: nothing is kept."""
        self._settled = None if mode else self._settled
        super().train(mode)
        return self


def _projection(attention: nn.MultiheadAttention, rows: slice) -> tuple[Tensor, Tensor]:
    """Some rows of what makes queries, keys and values, one below the other."""
    assert attention.in_proj_weight is not None and attention.in_proj_bias is not None
    return attention.in_proj_weight[rows], attention.in_proj_bias[rows]


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(B, N, width) → (B, heads, N, width / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
