"""Second decoder of the policy head: an action expert by flow matching, for demonstrations that differ at one moment.

A regression gives the middle of two ways around an obstacle; a flow draws one of them (Black et al. 2024, pi-0). The
context is encoded once, the few steps of the flow run through this small part only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_ros.nn.flow import Velocity
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.context import positions


class FlowExpert(nn.Module):
    """Velocity of a noisy chunk, given the context. Chunks are normalised as by `PolicyHead.change`."""

    def __init__(self, config: PolicyModelConfig) -> None:
        super().__init__()
        sizes, joints = config.transformer, len(config.joint_names)
        self.action = nn.Linear(joints, sizes.width)
        self.steps = nn.Parameter(torch.randn(config.chunk_steps, sizes.width) * 0.02)
        self.time = nn.Sequential(nn.Linear(sizes.width, sizes.width), nn.SiLU(), nn.Linear(sizes.width, sizes.width))
        layer = nn.TransformerDecoderLayer(
            sizes.width, sizes.heads, sizes.feedforward, sizes.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, sizes.decoder_layers, nn.LayerNorm(sizes.width))
        self.velocity = nn.Linear(sizes.width, joints)

    def given(self, context: Tensor, pad: Tensor, unknown: Tensor | None = None) -> Velocity:
        """The velocity field (z (B, F, J), σ (B,)) → (B, F, J), given context tokens and their padding mask.

        `unknown`: (B, F) bool, in training, steps without a command: the others do not look at them.
        """
        # Where nothing is known nothing is learned; attention still needs something to look at.
        hidden = None if unknown is None else unknown & ~unknown.all(1, keepdim=True)

        def velocity(z: Tensor, sigma: Tensor) -> Tensor:
            time = self.time(positions(1000.0 * sigma, self.steps.shape[1]))[:, None]
            decoded = self.decoder(
                self.action(z) + self.steps + time,
                context,
                tgt_key_padding_mask=hidden,
                memory_key_padding_mask=pad,
            )
            out: Tensor = self.velocity(decoded)
            return out

        return velocity
