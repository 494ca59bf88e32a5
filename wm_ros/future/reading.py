"""How stage I reads its tokens: all of them with one transformer, or the past first, with a causal backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_ros.future.config import TrajectoryConfig
from wm_ros.nn.attention import TransformerBlock
from wm_ros.nn.sequence import Backbone

QUERIES = 2  # tokens that gather what the body's future needs


def make_reader(config: TrajectoryConfig, history_steps: int) -> nn.Module:
    """The reader of that `backbone`: tokens (B, S, width), of which the queries are the last, the past before them →
    (B, n, width), whose last `QUERIES` are what the queries found.
    """
    if config.backbone != "all_tokens":
        return PastFirst(config, history_steps)
    layer = nn.TransformerEncoderLayer(
        config.width, config.heads, 4 * config.width, config.dropout, "gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(config.width), enable_nested_tensor=False)


class PastFirst(nn.Module):
    """A causal backbone over the past; then the queries attend once to what it says, the states and the instruction.

    The reading is the same for every backbone and counts as one of the `layers`, so a comparison compares backbones.
    """

    def __init__(self, config: TrajectoryConfig, history_steps: int) -> None:
        super().__init__()
        if config.backbone == "all_tokens":
            raise ValueError("all tokens are read by one transformer: use make_reader")
        self.history_steps, width = history_steps, config.width
        self.backbone = Backbone(config.backbone, width, config.layers - 1, config.dropout)
        self.reading = TransformerBlock(width, config.heads, width, dropout=config.dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S, width) → (B, QUERIES, width)."""
        around = tokens.shape[1] - QUERIES - self.history_steps
        scene, past, queries = tokens.split([around, self.history_steps, QUERIES], 1)
        read: Tensor = self.reading(queries, torch.cat([scene, self.backbone(past)], 1))
        return self.norm(read)
