"""`config.json` of a checkpoint in LeRobot's layout, and the keys of LeRobot's batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from wm_ros.bundle import StrictModel
from wm_ros.errors import UserError
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.normalise import Feature, Kind, Mode

KEYS = {"image": "camera", "wrist_image": "wrist_camera"}
STATE, ACTION, TASK, IMAGES = "observation.state", "action", "task", "observation.images."
IDENTITY: Mapping[Kind, Mode] = MappingProxyType({"STATE": "IDENTITY", "VISUAL": "IDENTITY", "ACTION": "IDENTITY"})
TYPE: Literal["wm_act_jepa"] = "wm_act_jepa"


class LeRobotConfig(StrictModel):
    """`config.json` of a checkpoint.

    Attributes:
        type: LeRobot's name for an architecture. n_obs_steps: observations that the head sees, the last one now.
        normalization_mapping: type of feature → mode. The head of a bundle takes radians: IDENTITY.
        n_action_steps: of a chunk, that `select_action` gives before it asks for the next one.
        model: the head's own configuration.
    """

    type: Literal["wm_act_jepa"] = TYPE
    n_obs_steps: int
    input_features: dict[str, Feature]
    output_features: dict[str, Feature]
    normalization_mapping: dict[Kind, Mode]
    chunk_size: int
    n_action_steps: int
    model: PolicyModelConfig

    @classmethod
    def of(
        cls,
        model: PolicyModelConfig,
        camera: str | Sequence[str] = (),
        image_size: tuple[int, int] = (96, 128),
        n_action_steps: int = 0,
        normalization_mapping: Mapping[Kind, Mode] = IDENTITY,
    ) -> LeRobotConfig:
        """For a head.

        Args:
            camera: names of the cameras, in the order of `model.cameras`; "camera" and "wrist_camera" where not given.
            image_size: height, width of what they give. n_action_steps: 0 for the whole chunk.
        """
        joints, seen = len(model.joint_names), model.cameras.names or ("image",)
        named = (camera,) if isinstance(camera, str) else tuple(camera) or tuple(KEYS[name] for name in seen)
        return cls(
            n_obs_steps=max(model.joint_history, max(model.token_history, default=0) + 1),
            input_features={
                STATE: Feature(type="STATE", shape=(joints,)),
                **{IMAGES + name: Feature(type="VISUAL", shape=(3, *image_size)) for name in named},
            },
            output_features={ACTION: Feature(type="ACTION", shape=(joints,))},
            chunk_size=model.chunk_steps,
            n_action_steps=n_action_steps or model.chunk_steps,
            normalization_mapping=dict(normalization_mapping),
            model=model,
        )

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the cameras, as many as the head sees. Raises UserError."""
        keys = tuple(key for key, feature in self.input_features.items() if feature.type == "VISUAL")
        wanted = len(self.model.cameras.names) or 1
        if len(keys) != wanted:
            raise UserError(f"input_features: {len(keys)} camera(s), but this head sees {wanted}; name so many")
        return keys

    @property
    def observation_delta_indices(self) -> list[int]:
        """Steps of the observations of a training batch, 0 = now."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """Steps of its actions."""
        return list(range(1, self.chunk_size + 1))
