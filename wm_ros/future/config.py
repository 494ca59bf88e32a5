"""The typed part of a `future` bundle: grids, sizes, and which state encoder the model listens to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wm_ros.bundle import StrictModel
from wm_ros.kinematics import G1_JOINTS
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.nn.instruction import LanguageConfig
from wm_ros.topics import FRAME_HORIZONS_S

ReaderKind = Literal["all_tokens", "transformer", "gru", "s4d", "selective"]


class TrajectoryConfig(StrictModel):
    """Stage I: a small network over states, instruction and the past of joints and hands.

    Attributes:
        backbone: `all_tokens` is one transformer over everything; the others read the past with a causal sequence model
            of that kind and the rest with one layer of attention (see `wm_ros.future.reading`).
        layers: of all together. heads: of attention.
        past_width, past_dropout: of the MLP over the past (see `wm_ros.future.past`).
        image: `patches` also looks the instruction up in the image (see `wm_ros.future.look`).
    """

    backbone: ReaderKind = "all_tokens"
    width: int = 96
    layers: int = Field(default=3, ge=1)
    heads: int = 4
    dropout: float = 0.1
    ridge_states: int = Field(default=8, ge=2, description="states that the linear path sees")
    past_width: int = 256
    past_dropout: float = Field(default=0.3, ge=0, lt=1)
    image: Literal["none", "patches"] = "none"
    look_width: int = Field(default=64, ge=8, multiple_of=8, description="channels of a place of the image")
    look_queries: int = Field(default=4, ge=1, description="things looked for; the first is the object that is named")

    @model_validator(mode="after")
    def _past_and_reading(self) -> TrajectoryConfig:
        if self.backbone != "all_tokens" and self.layers < 2:
            raise ValueError(f"layers = {self.layers}: {self.backbone} needs one for the past and one for the reading")
        return self


class SamplesConfig(StrictModel):
    """Samples around the central estimate of stage I (`wm_ros.future.samples`).

    Attributes:
        count: samples of a fan. steps: of denoising at most. tolerance: fall of the mean energy below which they end.
        coefficients: numbers that describe a path. dropout: of the context too; few episodes are known by heart soon.
        widest: spread of the rivals that the energy learns to tell from the truth.
    """

    count: int = Field(default=24, ge=2)
    steps: int = Field(default=8, ge=1)
    tolerance: float = 0.01
    coefficients: int = Field(default=16, ge=1)
    width: int = 128
    dropout: float = Field(default=0.5, ge=0, lt=1)
    widest: float = Field(default=2.5, ge=1)
    seed: int = 0


class FramesConfig(StrictModel):
    """Stage II: causal cross-attention, then a diffusion U-Net over the change of the frame's latent."""

    width: int = 128
    channels: tuple[int, ...] = Field(default=(64, 128, 160), description="of the U-Net, each at half the size before")
    layers: int = 1
    heads: int = 4
    lift: int = Field(default=8, description="channels of the map that the condition is lifted to")
    fusion_layers: int = 2
    frame_tokens: int = Field(default=4, description="latent cells per context token edge")
    estimate: Literal["mean", "sample"] = Field(
        default="mean", description="what is shown: conditional mean or one sample"
    )
    sample_steps: int = Field(default=4, ge=1)
    guidance: float = Field(
        default=1.5, description="classifier-free guidance on the trajectory when sampling; 1 = off"
    )
    seed: int = 0
    detail_scales: tuple[float, ...] = Field(
        default=(0.08,),
        min_length=1,
        description="change of brightness (0..1) beyond which detail is not kept, of each kind of recording or of all",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="in the U-Net")
    objective: Literal["flow", "l1"] = Field(
        default="flow", description="flow: mean and samples; l1: the estimate alone, by absolute error, to compare with"
    )
    reader_width: int = Field(
        default=32, ge=0, multiple_of=8, description="of the reader of hands in frames; 0: there is none"
    )


class FutureConfig(StrictModel):
    """Everything but the weights.

    Attributes:
        joint_names: order of the joints in all tensors; live joints are matched by name.
        hands_kind, hands_frame_id: those of the `HandTrajectory` that the model takes and gives. Its windows have three
            columns for each hand, so there is one kind; samples of others are refused.
        rate_hz: grid onto which history is resampled by header stamps, and on which the future is predicted.
        state_bundle, state_tokens_sha256: the encoder whose tokens the model was trained on (its
            `tokens_sha256`); tokens of another one mean nothing to it.
        subtasks: phrases of what the robot may be about, of which stage I says one; () for a model without.
        mean_episode_s: mean length of the training episodes of each kind of recording (robot and camera, or simulator):
            the phase of an episode is time since its start over it. Kinds have linear paths of their own.
    """

    joint_names: tuple[str, ...] = G1_JOINTS
    hands_kind: Literal["wrist_m"] = "wrist_m"
    hands_frame_id: str = "torso"
    rate_hz: float = 15.0
    history_steps: int = 12
    horizon_steps: int = 30
    state_gap_steps: int = Field(default=5, ge=1, description="grid steps between the previous and the current state")
    state_tokens: int = 2
    state_width: int = 128
    image_height: int = 96
    image_width: int = 128
    frame_horizons_s: tuple[float, ...] = FRAME_HORIZONS_S
    trajectory: TrajectoryConfig = TrajectoryConfig()
    samples: SamplesConfig = SamplesConfig()
    frames: FramesConfig = FramesConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    language: LanguageConfig = LanguageConfig()
    subtasks: tuple[str, ...] = ()
    state_bundle: str = ""
    state_tokens_sha256: str = ""
    mean_episode_s: tuple[float, ...] = (6.0,)

    @property
    def frame_steps(self) -> tuple[int, ...]:
        """Grid step at which each frame is due: (5, 10, 15)."""
        return tuple(round(horizon * self.rate_hz) for horizon in self.frame_horizons_s)

    @property
    def kinds(self) -> int:
        """Kinds of recordings."""
        return len(self.mean_episode_s)

    @property
    def values(self) -> int:
        """Numbers per state of the body: two wrists and the joints."""
        return 6 + len(self.joint_names)
