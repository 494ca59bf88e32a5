"""`image`, `state/tokens`, `joint_states`, `instruction` → `future/…`: hands and joints to come, and the frames.

A planner asks by `future/query` what the camera would see on a motion of its own; the frames come by `future/answer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from wm_ros.capability import Capability
from wm_ros.errors import RefusedError, UserError
from wm_ros.future.budget import Limits
from wm_ros.future.capability import FutureCapability
from wm_ros.messages.predictions import encode_strip
from wm_ros.messages.status import OK, WARN, Status
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

    def load(self) -> Capability:
        """The capability, limited as the parameters say. Raises UserError where the bundle has less."""
        capability = super().load()
        assert isinstance(capability, FutureCapability)
        capability.with_commands = bool(self._parameter("use_commands"))
        limits = Limits(
            **{name: self._parameter(name) for name in ("samples", "frame_steps", "horizon_s", "budget_ms")}
        )
        try:
            capability.limit(limits)
        except UserError as error:
            raise UserError(f"parameters: {self.name}: {error}") from None
        return capability

    def checks(self) -> list[Status]:
        """What was planned for the last frames, and whether the hand is where it should be in them."""
        capability = self.capability
        if not isinstance(capability, FutureCapability) or capability.planned is None:
            return super().checks()
        planned = capability.planned
        values = {"frames": str(planned.frames), "steps": str(planned.steps)}
        if planned.left_ms is not None:
            values["left_ms"] = f"{planned.left_ms:.1f}"
        if capability.hand_error_m:
            values["hand_error_mm"] = ", ".join(f"{1e3 * error:.0f}" for error in capability.hand_error_m)
            values["reader_error_mm"] = f"{1e3 * (capability.reader_error_m or 0.0):.0f}"
        level = WARN if planned.reason else OK
        return [*super().checks(), Status(f"{self.name}: frames", level, planned.reason or "as asked for", values)]

    def wanted_inputs(self) -> tuple[Topic, ...]:
        commands = (JOINT_COMMANDS,) if self._parameter("use_commands") else ()
        return (*super().wanted_inputs(), *commands, QUERY)

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
