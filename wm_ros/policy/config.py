"""What a policy bundle says of its model."""

from __future__ import annotations

from pydantic import Field

from wm_ros.bundle import StrictModel
from wm_ros.nn.instruction import LanguageConfig


class TransformerConfig(StrictModel):
    """Sizes of context encoder (`layers`) and action decoder (`decoder_layers`); the paper has 512, 8, 4, 1, 2048."""

    width: int = 128
    heads: int = 4
    layers: int = 3
    decoder_layers: int = 1
    feedforward: int = 384
    dropout: float = 0.1


class PolicyModelConfig(StrictModel):
    """Architecture and preprocessing of `policy`; ACT-JEPA (arXiv 2501.14622) at a small size.

    Attributes:
        joint_names: order of joints in all tensors and in the chunk; positions in rad.
        rate_hz: grid on which history is read and the chunk is written.
        chunk_steps: actions of a chunk, the first one step after the trigger.
        joint_history: steps of measured joints that the model sees, the last one now.
        token_history: which state tokens it sees, in steps back.
        state_tokens, state_width: shape of one state. bev_tokens, bev_width: of the BEV tokens; 0 = trained without.
        state_tokens_sha256: `tokens_sha256` of the state bundle whose tokens it was trained on.
        stale_s: joints this much older than the image are refused, and BEV tokens are left out.
    """

    joint_names: tuple[str, ...] = Field(min_length=1)
    rate_hz: float = Field(default=15.0, gt=0)
    chunk_steps: int = Field(default=15, ge=1)
    joint_history: int = Field(default=8, ge=1)
    token_history: tuple[int, ...] = (0, 3, 7)
    state_tokens: int = Field(default=2, ge=1)
    state_width: int = Field(default=128, ge=1)
    bev_tokens: int = Field(default=0, ge=0)
    bev_width: int = Field(default=0, ge=0)
    state_tokens_sha256: str = ""
    transformer: TransformerConfig = TransformerConfig()
    language: LanguageConfig = LanguageConfig()
    stale_s: float = Field(default=0.5, gt=0)
