"""The action decoder's layers, which need not work out again what no observation changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
        x, asking = (part.expand(len(context), -1, -1) for part in self._settled)
        x = x + first.multihead_attn(asking, context, context, key_padding_mask=pad, need_weights=False)[0]
        x = x + first.linear2(first.activation(first.linear1(first.norm3(x))))
        for layer in others:
            x = layer(x, context, memory_key_padding_mask=pad)
        assert self.norm is not None
        return self.norm(x)

    @torch.no_grad()
    def settle(self, queries: Tensor) -> None:
        """Keep what `queries` (F, width) come to; weights must stay as they are from now on. In evaluation mode."""
        first, x = self.layers[0], queries[None]
        asked = first.norm1(x)
        x = x + first.self_attn(asked, asked, asked, need_weights=False)[0]
        self._settled = x, first.norm2(x)

    def train(self, mode: bool = True) -> ChunkDecoder:
        """Back to learning: nothing is kept."""
        self._settled = None if mode else self._settled
        super().train(mode)
        return self
