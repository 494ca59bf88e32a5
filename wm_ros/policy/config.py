"""What a policy bundle says of its model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

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


Camera = Literal["image", "wrist_image"]


class CameraConfig(StrictModel):
    """Cameras whose images the head sees itself, without the capability `state`.

    Attributes:
        names: topics of the cameras, none by default. size: height and width of their images in pixels; others are
            resized. channels, features, dropout: of the encoder of each (`wm_ros.policy.image_encoder`).
    """

    names: tuple[Camera, ...] = ()
    size: tuple[int, int] = (96, 96)
    channels: int = Field(default=32, ge=1)
    features: int = Field(default=96, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class PastConfig(StrictModel):
    """What is said by the past alone, before anything else (`wm_ros.policy.past`).

    Attributes:
        commands: steps of commands that it hears where there are any, the last one in force now; 0 = hears none.
        members: MLPs of each path, at least two. width, dropout: of each.
        kinds: of recordings, told apart by where the joints are; training has one for each source.
    """

    commands: int = Field(default=0, ge=0)
    members: int = Field(default=5, ge=2)
    width: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    kinds: int = Field(default=1, ge=1)


class PolicyModelConfig(StrictModel):
    """Architecture and preprocessing of `policy`; ACT-JEPA (arXiv 2501.14622) at a small size.

    Attributes:
        joint_names: order of joints in all tensors and in the chunk; positions in rad.
        rate_hz: grid on which history is read and the chunk is written.
        chunk_steps: actions of a chunk, the first one step after the trigger.
        joint_history: steps of measured joints that the model sees, the last one now.
        decoder: `regression` gives the median chunk, `flow` draws one in `flow_steps` steps.
        relative: whether commands are learned as what is added to the measured joints, or as they are.
        token_history: which state tokens it sees, in steps back; none where it sees images itself.
        cameras: whose images it sees.
        past: what is fitted on measured joints and commands alone, before the rest; none where images say more.
        does_without: what may fall silent: joints, or a camera while another one sees. It was trained for that.
        state_tokens, state_width: shape of one state. bev_tokens, bev_width: of the BEV tokens; 0 = trained without.
        state_tokens_sha256: `tokens_sha256` of the state bundle whose tokens it was trained on.
        stale_s: joints this much older than the image are refused; BEV tokens and images of other cameras are left out.
    """

    joint_names: tuple[str, ...] = Field(min_length=1)
    rate_hz: float = Field(default=15.0, gt=0)
    chunk_steps: int = Field(default=15, ge=1)
    joint_history: int = Field(default=8, ge=1)
    decoder: Literal["regression", "flow"] = "regression"
    flow_steps: int = Field(default=5, ge=1)
    relative: bool = True
    token_history: tuple[int, ...] = (0, 3, 7)
    cameras: CameraConfig = CameraConfig()
    past: PastConfig | None = None
    does_without: tuple[Camera | Literal["joints"], ...] = ()
    state_tokens: int = Field(default=2, ge=1)
    state_width: int = Field(default=128, ge=1)
    bev_tokens: int = Field(default=0, ge=0)
    bev_width: int = Field(default=0, ge=0)
    state_tokens_sha256: str = ""
    transformer: TransformerConfig = TransformerConfig()
    language: LanguageConfig = LanguageConfig()
    stale_s: float = Field(default=0.5, gt=0)

    @model_validator(mode="after")
    def _sees(self) -> PolicyModelConfig:
        if bool(self.cameras.names) == bool(self.token_history):
            raise ValueError("it sees either images (cameras.names) or state tokens (token_history), and one of them")
        if self.relative and "joints" in self.does_without:
            raise ValueError("does_without: commands that are relative to the joints cannot do without joints")
        if self.past is not None and (self.decoder != "regression" or not self.relative):
            raise ValueError("past: goes with decoder: regression and relative: true, it says how far joints will go")
        return self
