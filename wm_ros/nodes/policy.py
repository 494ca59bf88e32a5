"""Images or `state/tokens`, `bev/tokens`, `joint_states`, `instruction` → `action_chunk`; while chunks are executed
also `action_step`, what to do now; and the command that is safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from wm_ros import capability as capabilities
from wm_ros import messages
from wm_ros.capability import Capability
from wm_ros.errors import UserError
from wm_ros.future.capability import FutureCapability
from wm_ros.messages.motion import encode_joint_trajectory
from wm_ros.messages.status import OK, WARN, Status
from wm_ros.nodes.base import CapabilityNode
from wm_ros.nodes.control import Control
from wm_ros.nodes.managed import channel
from wm_ros.nodes.runner import run
from wm_ros.paths import bundle_path
from wm_ros.policy.capability import Policy as PolicyCapability
from wm_ros.policy.executor import Command
from wm_ros.policy.imagination import Imagination, ImaginationConfig
from wm_ros.topics import ACTION_CHUNK, ACTION_STEP, BEV_TOKENS, JOINT_COMMANDS, Topic
from wm_ros.types import (
    ActionChunk,
    BevTokens,
    Frame,
    Instruction,
    JointCommand,
    Joints,
    PolicyPrediction,
    Prediction,
    Sample,
    WristFrame,
)


class Policy(CapabilityNode):
    """Armed by its first chunk, or where it executes chunks by its first command. Armed, it says the safe command once
    when an input falls silent or the model fails, and as the last thing when it is deactivated; then it is not armed.

    Without execution the safe command holds the measured joints. With it the model runs in a thread of its own
    (`wm_ros.nodes.control`), so that commands go out while it thinks and the watchdog when it never answers.
    """

    name = "policy"
    capability_name = "policy"
    optional_inputs = (BevTokens, Instruction, JointCommand)

    def __init__(self, **options: Any) -> None:
        self._joints: Joints | None = None
        self._commanded: tuple[str, ...] = ()
        self._control: Control | None = None
        super().__init__(**options)

    # ------------------------------------------------------------------ lifecycle

    def load(self) -> Capability:
        """The capability, with the imagination that the parameters ask for. Raises UserError where it cannot."""
        capability = super().load()
        if self._parameter("imagine"):
            assert isinstance(capability, PolicyCapability)
            try:
                self._imagine(capability)
            except UserError as error:
                raise UserError(f"parameters: {self.name}: {error}") from None
        return capability

    def _imagine(self, capability: PolicyCapability) -> None:
        if self._parameter("imagine") == 1:
            raise UserError("imagine = 1 leaves nothing to choose; give 2 or more, or 0 for off")
        future = capabilities.load(
            "future", bundle_path(str(self._parameter("imagine_future"))), str(capability.device)
        )
        assert isinstance(future, FutureCapability)
        config = ImaginationConfig(
            samples=self._parameter("imagine"),
            **{
                name: self._parameter(f"imagine_{name}") for name in ImaginationConfig.model_fields if name != "samples"
            },
        )
        future.warm_up()
        capability.imagine(Imagination(config, capability.config.joint_names, future))

    def configure(self) -> None:
        super().configure()
        if self._parameter("execution") != "off":
            assert self.capability is not None
            self._control = Control(self, self.capability, self._parameter)

    def clean_up(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None
        super().clean_up()

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        if self._control is not None:
            clock = self.get_clock() if self._parameter("use_sim_time") else self.steady
            self._timers_active.append(self.create_timer(self._control.period_s, self._tick, clock=clock))
        return result

    def before_deactivation(self) -> None:
        self.hold("deactivated")

    def on_reset(self) -> None:
        self._joints, self._commanded = None, ()
        if self._control is None:
            super().on_reset()
        else:
            self._control.reset(self._instruction)

    # ------------------------------------------------------------------ input

    def watched(self) -> list[str]:
        """A robot without a LiDAR has no BEV tokens; once they have come they are expected again. Commands need not
        come: who executes chunks says them, or nobody does."""
        names = [name for name in super().watched() if name != JOINT_COMMANDS.name]
        return [name for name in names if name != BEV_TOKENS.name or name in self.heard_s]

    def on_sample(self, topic: Topic, sample: Sample, received_s: float) -> None:
        measured = None if isinstance(sample, JointCommand) else sample  # a command is a kind of Joints
        if isinstance(measured, Joints) and np.isfinite(measured.position_rad).all():
            self._joints = measured
        if self._control is None:
            super().on_sample(topic, sample, received_s)
            return
        if isinstance(sample, Instruction):
            if self._instruction is not None and sample.text != self._instruction.text:
                self._control.void()
                self.hold("a new instruction")
            self._instruction = sample
        if self.is_trigger(topic):
            self.drain()
        self._control.take(sample)

    def _watch(self) -> None:
        super()._watch()
        if self._control is not None:  # the control timer stands still where simulated time does
            self._send(self._control.watch())

    # ------------------------------------------------------------------ output

    def on_published(self, prediction: Prediction) -> None:
        if isinstance(prediction, PolicyPrediction):
            self._commanded = prediction.chunk.names
            if self._control is not None:
                self._control.execute(prediction.chunk)

    def on_withheld(self) -> None:
        self.hold(self.withheld)

    def on_silence(self, topic: str) -> None:
        cameras = {channel(name) for name, (t, _) in self._inputs.items() if t.sample in (Frame, WristFrame)}
        if self.required(topic) or (topic in cameras and cameras <= self.silent):
            self.hold(f"'{topic}' is silent")

    def on_fault(self, why: str) -> None:
        self.hold(why)
        super().on_fault(why)

    def hold(self, why: str) -> None:
        """Say the safe command, once."""
        safe = self._control.halt(why) if self._control is not None else None
        if safe is not None:
            self._send(safe)
        else:
            self._hold_measured(why)

    def _tick(self) -> None:
        assert self._control is not None
        self._send(self._control.tick())

    def _send(self, command: Command | None) -> None:
        """Publish a command; a safe one also to those who follow chunks."""
        if command is None:
            return
        if command.why:
            self._commanded = ()
            self.get_logger().warning(f"safe command: {command.why}")
            self.publish(ACTION_CHUNK.name, encode_joint_trajectory(command.rest))
        self.publish(ACTION_STEP.name, encode_joint_trajectory(command.chunk))

    def _hold_measured(self, why: str) -> None:
        """Ask the joints that were commanded to stay where they were measured last.

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

    def checks(self) -> list[Status]:
        """What it acts without; strategy, queue, delay, clipped and safe commands, while chunks are executed; which
        samples were chosen, where it imagines."""
        lacking = ", ".join(getattr(self.capability, "lacking", ()))
        sensors = Status(f"{self.name}: sensors", WARN if lacking else OK, f"without {lacking}" if lacking else "all")
        more = [] if self._control is None else [self._control.status()]
        imagination = getattr(self.capability, "imagination", None)
        if imagination is not None:
            record = imagination.record
            words = f"not judged: {record.why}" if record.why else "chosen by imagination"
            more.append(Status(f"{self.name}: imagination", WARN if record.why else OK, words, record.figures()))
        return [*super().checks(), sensors, *more]


def main(args: Sequence[str] | None = None) -> None:
    run(Policy, args)


if __name__ == "__main__":
    main()
