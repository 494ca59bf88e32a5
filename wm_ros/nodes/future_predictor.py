"""`image`, `state/tokens`, `joint_states`, `instruction` → `future/…`: hands and joints to come, and the frames.

A planner asks by `future/query` what the camera would see on a motion of its own; the frames come by `future/answer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from wm_ros.capability import Capability
from wm_ros.future.capability import FutureCapability
from wm_ros.future.memory import RefusedError
from wm_ros.messages.predictions import encode_strip
from wm_ros.nodes.base import CapabilityNode
from wm_ros.nodes.runner import run
from wm_ros.topics import FRAME_HORIZONS_S, JOINT_COMMANDS, QUERY, Topic, millis
from wm_ros.types import Frame, Instruction, JointCommand, MotionQuery, Sample


class FuturePredictor(CapabilityNode):
    name = "future_predictor"
    capability_name = "future"
    optional_inputs = (Frame, Instruction, MotionQuery, JointCommand)
    lazy_outputs: ClassVar[dict[str, tuple[str, ...]]] = {
        "frames": (*(f"future/image/t_{millis(h)}" for h in FRAME_HORIZONS_S), "future/strip"),
        "samples": ("future/samples",),
    }

    def wanted_inputs(self) -> tuple[Topic, ...]:
        commands = (JOINT_COMMANDS,) if self._parameter("use_commands") else ()
        return (*super().wanted_inputs(), *commands, QUERY)

    def load(self) -> Capability:
        capability = super().load()
        assert isinstance(capability, FutureCapability)
        capability.with_commands = bool(self._parameter("use_commands"))
        return capability

    def is_stamped(self, sample: Sample) -> bool:
        return not isinstance(sample, MotionQuery) and super().is_stamped(sample)  # a question is of no time

    def on_sample(self, topic: Topic, sample: Sample, received_s: float) -> None:
        if not isinstance(sample, MotionQuery):
            super().on_sample(topic, sample, received_s)
            return
        assert isinstance(self.capability, FutureCapability)
        try:
            frames = self.capability.answer(sample)
        except RefusedError as error:
            self.refuse(QUERY.name, f"not answered: {error}")
            return
        self.publish("future/answer", encode_strip(frames))


def main(args: Sequence[str] | None = None) -> None:
    run(FuturePredictor, args)


if __name__ == "__main__":
    main()
