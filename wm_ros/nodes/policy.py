"""`state/tokens`, `bev/tokens`, `joint_states`, `instruction` → `action_chunk`; and the command that is safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm_ros import messages
from wm_ros.nodes.base import CapabilityNode
from wm_ros.nodes.runner import run
from wm_ros.topics import BEV_TOKENS, Topic
from wm_ros.types import ActionChunk, BevTokens, Instruction, Joints, PolicyPrediction, Prediction, Sample


class Policy(CapabilityNode):
    """Armed by its first chunk. Armed, it holds the measured joints once when an input falls silent, and as the
    last thing it says when it is deactivated; then it is not armed."""

    name = "policy"
    capability_name = "policy"
    optional_inputs = (BevTokens, Instruction)

    def __init__(self, **options: Any) -> None:
        self._joints: Joints | None = None
        self._commanded: tuple[str, ...] = ()
        super().__init__(**options)

    def watched(self) -> list[str]:
        """A robot without a LiDAR has no BEV tokens; once they have come they are expected again."""
        return [name for name in super().watched() if name != BEV_TOKENS.name or name in self.heard_s]

    def on_sample(self, topic: Topic, sample: Sample, received_s: float) -> None:
        if isinstance(sample, Joints) and np.isfinite(sample.position_rad).all():
            self._joints = sample
        super().on_sample(topic, sample, received_s)

    def on_published(self, prediction: Prediction) -> None:
        if isinstance(prediction, PolicyPrediction):
            self._commanded = prediction.chunk.names

    def on_withheld(self) -> None:
        self.hold(self.withheld)

    def on_silence(self, topic: str) -> None:
        if self.required(topic):
            self.hold(f"'{topic}' is silent")

    def on_fault(self, why: str) -> None:
        self.hold(why)
        super().on_fault(why)

    def before_deactivation(self) -> None:
        self.hold("deactivated")

    def on_reset(self) -> None:
        self._joints, self._commanded = None, ()
        super().on_reset()

    def hold(self, why: str) -> None:
        """Ask the joints that were commanded to stay where they were measured last, once.

        The stamp is zero, which joint_trajectory_controller reads as "now": one in the past would be refused.
        """
        if not self._commanded or self._joints is None:
            return
        measured = dict(zip(self._joints.names, self._joints.position_rad, strict=True))
        names = tuple(name for name in self._commanded if name in measured)
        self._commanded = ()
        if not names:
            self.get_logger().error(f"no safe command ({why}): none of the commanded joints is measured")
            return
        chunk = ActionChunk(
            stamp_ns=0,
            frame_id="",
            names=names,
            offsets_s=np.array([self._parameter("hold_time_s")]),
            position_rad=np.array([[measured[name] for name in names]], dtype=np.float32),
        )
        for name, _, cdr in messages.encode_prediction(PolicyPrediction(0, "", chunk)):
            self.publish(name, cdr)
        self.get_logger().warning(f"holding the measured joints: {why}")


def main(args: Sequence[str] | None = None) -> None:
    run(Policy, args)


if __name__ == "__main__":
    main()
