"""`config/train/policy*.yaml`: how `policy` is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wm_ros.bundle import StrictModel
from wm_ros.kinematics import G1_JOINTS
from wm_ros.nn.instruction import LanguageConfig
from wm_ros.policy.config import Camera, CameraConfig, PastConfig, TransformerConfig
from wm_ros.training.grid import RATE_HZ
from wm_ros.training.task import TrainConfig


class ObjectiveConfig(StrictModel):
    """The loss beside that on actions (`wm_ros.policy.objectives`).

    Attributes:
        kind: `latent`, states to come (ACT-JEPA); `self_prediction`, what will be seen after so many steps (SPR);
            `bisimulation`, as far apart as what follows; `none`.
        weight: 1 in the paper. horizon_steps: how far `latent` looks, 0: as far as the chunk.
        later: steps ahead at which the other two look.
        end_weight: of a further loss, L1 on where the joints are when the episode ends: what far away decides.
    """

    kind: Literal["none", "latent", "self_prediction", "bisimulation"] = "latent"
    weight: float = Field(default=1.0, ge=0)
    horizon_steps: int = Field(default=0, ge=0)
    later: tuple[int, ...] = (4, 8, 12)
    end_weight: float = Field(default=0.0, ge=0)


class DropoutConfig(StrictModel):
    """Shares of training windows that must do without something, and how what is left is disturbed.

    Attributes:
        state, bev, joints, commands: without it. camera: of each camera; where all would go, all stay.
        history: whose history begins later. joint_noise: added to measured joints, in their unit.
        colour: brightness and contrast of each channel are changed by up to this share. shift_px: images are moved by
            up to so many pixels.
    """

    state: float = Field(default=0.1, ge=0, le=1)
    bev: float = Field(default=0.5, ge=0, le=1)
    joints: float = Field(default=0.0, ge=0, le=1)
    commands: float = Field(default=0.5, ge=0, le=1)
    camera: float = Field(default=0.0, ge=0, le=1)
    history: float = Field(default=0.1, ge=0, le=1)
    joint_noise: float = Field(default=0.0, ge=0)
    colour: float = Field(default=0.0, ge=0, le=1)
    shift_px: int = Field(default=0, ge=0)


class PolicyTrainConfig(TrainConfig):
    """What `wm train policy` reads.

    Attributes:
        name: of the bundle.
        cameras: whose images the head sees itself; none: it sees the tokens of `state_bundle`.
        state_every: only every so manyth image is encoded, the slow part; windows in between are trained without
            state, and are as many as those with. `token_history` must be multiples of it.
        joint_names: of the robot, in the order of the chunk. rate_hz: of the grid and of the chunk.
        decoder, flow_steps, relative, does_without, stale_s: as in `PolicyModelConfig`.
        past: fitted on measured joints and commands alone, before the rest; none by default.
        balanced: each joint and step of the chunk counts alike in the loss; else each radian does.
        arithmetic: of the convolutions while training; bfloat16 takes half the time where the processor has it.
        validation: share of episodes held out, at least one of each source.
    """

    name: str = "policy-lite"
    state_bundle: str = "state-lite"
    state_every: int = Field(default=5, ge=1)
    cameras: CameraConfig = CameraConfig()
    joint_names: tuple[str, ...] = G1_JOINTS
    rate_hz: float = Field(default=RATE_HZ, gt=0)
    chunk_steps: int = 15
    joint_history: int = 8
    token_history: tuple[int, ...] = (0, 5, 10)
    decoder: Literal["regression", "flow"] = "regression"
    flow_steps: int = Field(default=5, ge=1)
    relative: bool = True
    past: PastConfig | None = None
    does_without: tuple[Camera | Literal["joints"], ...] = ()
    stale_s: float = Field(default=0.5, gt=0)
    transformer: TransformerConfig = TransformerConfig()
    language: LanguageConfig = LanguageConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    dropout: DropoutConfig = DropoutConfig()
    balanced: bool = False
    arithmetic: Literal["float32", "bfloat16"] = "float32"
    validation: float = Field(default=0.1, gt=0, lt=1)
