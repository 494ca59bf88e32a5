"""The part of the policy node that executes chunks: the model in a thread and the executor.

All but the model's steps happens in the node's own thread: an answer wakes its executor by a guard condition.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wm_ros.capability import Capability
from wm_ros.errors import UserError
from wm_ros.messages.status import OK, WARN, Status
from wm_ros.nodes.background import Answer, Background
from wm_ros.policy.capability import Policy as PolicyCapability
from wm_ros.policy.execution import ExecutionConfig
from wm_ros.policy.executor import Command, Executor
from wm_ros.policy.limit_files import limits_of
from wm_ros.topics import JOINT_STATES
from wm_ros.types import ActionChunk, Instruction, JointCommand, Joints, Sample

if TYPE_CHECKING:
    from wm_ros.nodes.policy import Policy

LIMITS = ("urdf", "joint_limits", "max_velocity_radps", "max_acceleration_radps2")
SOURCE = "execution"  # in the log and the counts of what was refused


def make_executor(capability: Capability, parameter: Callable[[str], Any]) -> Executor:
    """The executor that the parameters ask for. Raises UserError naming the parameter that does not fit."""
    assert isinstance(capability, PolicyCapability)
    model = capability.config
    config = ExecutionConfig(
        strategy=parameter("execution"),
        schedule=parameter("fade_schedule"),
        joints_timeout_s=parameter("input_timeout_s"),
        **{
            name: parameter(name)
            for name in ExecutionConfig.model_fields
            if name not in ("strategy", "schedule", "joints_timeout_s")
        },
    )
    try:
        limits = limits_of(model.joint_names, **{name: parameter(name) for name in LIMITS})
        return Executor(config, model.joint_names, model.chunk_steps, model.rate_hz, limits)
    except UserError as error:
        raise UserError(f"parameters: policy: {error}") from None


class Control:
    """`period_s`: of the control rate; whoever owns the timer calls `tick` so often."""

    def __init__(self, node: Policy, capability: Capability, parameter: Callable[[str], Any]) -> None:
        assert isinstance(capability, PolicyCapability)
        self.node, self.model = node, capability
        self.executor = make_executor(capability, parameter)
        self.period_s = self.executor.period_s
        self._woken = node.create_guard_condition(self._answered)
        self.background = Background(capability, self._woken.trigger)

    def close(self) -> None:
        """End the thread of the model, which may hang."""
        self.background.close()
        self.node.destroy_guard_condition(self._woken)

    def reset(self, instruction: Instruction | None) -> None:
        """Forget all but the words, which are latched: nobody would say them again."""
        self.executor.reset()
        self.background.reset()
        if instruction is not None:
            self.background.put(replace(instruction, stamp_ns=self.node.now_ns()))

    def take(self, sample: Sample) -> None:
        """A sample that passed the node's checks."""
        if isinstance(sample, Joints) and not isinstance(sample, JointCommand):
            self._judge(self.executor.observe(sample, self.node.now_ns(), time.monotonic()), JOINT_STATES.name)
        self.background.put(sample)

    def execute(self, chunk: ActionChunk) -> None:
        """A chunk that was published."""
        refused = self.executor.add(chunk, self.node.now_ns(), time.monotonic())
        self._judge(refused, "chunk")
        if not refused and self.executor.config.strategy == "real_time":
            self.model.running = chunk, self.executor.strategy.delay_ns

    def halt(self, why: str) -> Command | None:
        """Drop the queue; the safe command where the robot moves by ours."""
        return self._safe(self.executor.halt(why, time.monotonic()))

    def void(self) -> None:
        """What the model is at will not be executed: it was asked something else."""
        self.background.void()

    def tick(self) -> Command | None:
        """The command of this control period."""
        return self._safe(self.executor.tick(self.node.now_ns(), time.monotonic()))

    def watch(self) -> Command | None:
        """The safe command, if it is due."""
        return self._safe(self.executor.watch(time.monotonic()))

    def status(self) -> Status:
        """One line of diagnostics."""
        warning = self.executor.warning()
        words = warning or self.executor.waiting or "executing"
        figures = self.executor.figures(self.node.now_ns(), time.monotonic())
        return Status(f"{self.node.name}: execution", WARN if warning else OK, words, figures)

    def _safe(self, command: Command | None) -> Command | None:
        """After a safe command no chunk runs that a next one would have to go on from."""
        if command is not None and command.why:
            self.model.running = None
        return command

    def _judge(self, refused: str, what: str) -> None:
        if refused:
            self.node.refuse(f"{SOURCE} ({what})", refused)
        else:
            self.node.streaks.good(f"{SOURCE} ({what})")

    def _answered(self) -> None:
        for answer in self.background.answers():
            if self.node.active:
                self._settle(answer)

    def _settle(self, answer: Answer) -> None:
        node = self.node
        if answer.failure:
            node.refuse(SOURCE, f"failed: {answer.failure}")
            node.on_fault(f"{answer.failure.partition(':')[0]} in a cycle")
            return
        node.streaks.good(SOURCE)
        node.withheld = answer.withheld
        node.answer(answer.prediction, node.silent_inputs(), set())
        node.ended_s = time.monotonic()
        node.budget.add(answer.received_s, node.ended_s, answer.timings_ms)
        if answer.prediction is not None and node.now_ns() > 0:
            node.ages_ms.add((node.now_ns() - answer.sample.stamp_ns) / 1e6)
