"""What every node of the stack is: a lifecycle node with checked parameters, raw topics, and diagnostics."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

from rclpy.clock import Clock, JumpThreshold
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.subscription import Subscription

from wm_ros import messages, topics
from wm_ros.errors import MessageError, UserError
from wm_ros.messages.status import Status
from wm_ros.nodes.bag_qos import message_class
from wm_ros.nodes.declare import declare
from wm_ros.nodes.diagnostics import CycleBudget, Window
from wm_ros.nodes.health import statuses
from wm_ros.nodes.intake import Intake, Streaks
from wm_ros.nodes.qos import FAST_DEPTH, publisher_qos, subscription_qos
from wm_ros.topics import Topic
from wm_ros.types import Instruction, Sample

WATCH_PERIOD_S = 0.1


def channel(topic: str) -> str:
    """Topics that carry the same measurements: `image/compressed` is `image`."""
    return topic.removesuffix("/compressed")


class ManagedNode(LifecycleNode, ABC):
    """Parameters, topics, refusal of bad input, and diagnostics. Subclasses say what a sample is for.

    Attributes:
        name: the node's name and its row in `wm_ros.topics`.
        heard_s: steady time at which a usable sample last came, by topic name.
        ended_s: steady time at which the last cycle ended.
        silent: topics that are past their timeout.
        withheld: why the last input gave no (or not the whole) output.
        problem: why the node could not be configured, the line for the user; "" if it could.
    """

    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        super().__init__(self.name, **options)
        self._declaration_problem = self.problem = declare(self, self.name)
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.intake = Intake(0.0)
        self.streaks = Streaks()
        self.budget = CycleBudget(1.0, 1.0)
        self.ages_ms = Window()
        self.heard_s: dict[str, float] = {}
        self.heard_count: dict[str, int] = {}
        self.ended_s = 0.0
        self.silent: set[str] = set()
        self.published = 0
        self.withheld = ""
        self.active = False
        self._began_s = 0.0
        self._inputs: dict[str, tuple[Topic, Subscription]] = {}
        self._outputs: dict[str, Any] = {}
        self._timers_active: list[Any] = []
        self._jump_handle: Any = None
        kind = message_class(topics.DIAGNOSTICS.type)
        self._diagnostics = self.create_publisher(kind, topics.DIAGNOSTICS.name, 10)
        self.create_timer(self._parameter("diagnostics_period_s"), self._publish_diagnostics, clock=self.steady)

    # ------------------------------------------------------------------ for subclasses

    def configure(self) -> None:
        """Load what is needed. Raises UserError with the line for the user."""

    def clean_up(self) -> None:
        """Let go of what `configure` loaded."""

    def wanted_inputs(self) -> tuple[Topic, ...]:
        """The topics to subscribe to."""
        return topics.INPUTS[self.name]

    def sample_type(self, topic: Topic) -> type[Sample] | None:
        """What a message of `topic` becomes."""
        return topic.sample

    def is_stamped(self, sample: Sample) -> bool:
        """Whether its stamp is that of a measurement. Words are said once and hold until others are said."""
        return not isinstance(sample, Instruction)

    def is_trigger(self, topic: Topic) -> bool:
        """Whether only the newest message of `topic` matters."""
        return False

    def watched(self) -> list[str]:
        """Inputs that are expected to come again and again."""
        return [
            name
            for name, (topic, _) in self._inputs.items()
            if topic.quality != "latched" and (channel(name) == name or channel(name) not in self._inputs)
        ]

    @abstractmethod
    def on_sample(self, topic: Topic, sample: Sample, received_s: float) -> None:
        """Take a sample that passed all checks. `received_s`: steady time of arrival."""

    def on_silence(self, topic: str) -> None:
        """`topic` has just passed its timeout."""

    def on_reset(self) -> None:
        """Forget all history: the clock jumped back, or the node begins anew."""

    def on_fault(self, why: str) -> None:
        """A cycle failed; history may be half written."""
        self.on_reset()

    def before_deactivation(self) -> None:
        """The last moment at which the node may publish."""

    def checks(self) -> list[Status]:
        """More lines of diagnostics."""
        return []

    def publish(self, topic: str, cdr: bytes) -> None:
        """Publish CDR bytes on an output of this node; nothing unless active."""
        self._outputs[topic].publish(cdr)
        self.published += 1

    def listened(self, topic: str) -> bool:
        """Whether anybody subscribes to an output."""
        return bool(self._outputs[topic].get_subscription_count() > 0)

    def now_ns(self) -> int:
        """The node's clock: 0 where simulated time has not begun."""
        return int(self.get_clock().now().nanoseconds)

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    # ------------------------------------------------------------------ lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            if self._declaration_problem:
                raise UserError(self._declaration_problem)
            self.intake = Intake(self._parameter("max_age_s"))
            self.budget = CycleBudget(self._parameter("cycle_warn_ms"), self._parameter("cycle_error_ms"))
            self.configure()
            for topic in (*topics.INPUTS[self.name], *topics.OUTPUTS[self.name]):
                messages.TYPESTORE.get_msgdef(topic.type)  # compiles its codec, which the first message would pay for
            self.problem = ""
        except UserError as error:
            self.problem = str(error)
            self.get_logger().error(f"configure refused: {error}")
            self._publish_diagnostics()  # `wm up` reads the reason there
            return TransitionCallbackReturn.FAILURE
        for topic in topics.OUTPUTS[self.name]:
            self._outputs[topic.name] = self.create_lifecycle_publisher(
                message_class(topic.type), topic.name, publisher_qos(topic)
            )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_activate(state)
        self._began_s = time.monotonic()
        self.heard_s, self.heard_count, self.silent, self.withheld = {}, {}, set(), ""
        self._forget()
        for topic in self.wanted_inputs():
            subscription = self.create_subscription(
                message_class(topic.type),
                topic.name,
                partial(self._receive, topic),
                subscription_qos(topic, self.is_trigger(topic)),
                raw=True,
            )
            self._inputs[topic.name] = (topic, subscription)
        self._timers_active = [self.create_timer(WATCH_PERIOD_S, self._watch, clock=self.steady)]
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._clock_jumped)
        self.active = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._close_inputs()
        self.before_deactivation()
        for publisher in self._outputs.values():
            publisher.wait_for_all_acked(Duration(seconds=0.2))
        super().on_deactivate(state)
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.active:
            self.on_deactivate(state)
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._close_inputs()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _close_inputs(self) -> None:
        self.active = False
        for timer in self._timers_active:
            self.destroy_timer(timer)
        for _, subscription in self._inputs.values():
            self.destroy_subscription(subscription)
        if self._jump_handle is not None:
            self._jump_handle.unregister()
        self._timers_active, self._inputs, self._jump_handle = [], {}, None

    def _release(self) -> None:
        for publisher in self._outputs.values():
            self.destroy_lifecycle_publisher(publisher)
        self._outputs.clear()
        self._forget()
        self.clean_up()

    @property
    def label(self) -> str:
        """The lifecycle state."""
        return str(self._state_machine.current_state[1])

    @property
    def finished(self) -> bool:
        """Whether a shutdown transition has ended the node."""
        return self.label == "finalized"

    def finish(self) -> None:
        """Shut down from any state; the last command goes out first."""
        if not self.finished:
            self.trigger_shutdown()

    # ------------------------------------------------------------------ input

    def drain(self) -> None:
        """Take the waiting messages of the inputs that do not trigger: none is older than the trigger's, and a node
        that was busy does not mistake for silence what it had no time to hear."""
        for topic, subscription in list(self._inputs.values()):
            if self.is_trigger(topic):
                continue
            for _ in range(FAST_DEPTH):
                with subscription.handle:
                    taken = subscription.handle.take_message(subscription.msg_type, True)
                if taken is None:
                    break
                self._receive(topic, taken[0])

    def refuse(self, source: str, reason: str) -> None:
        """Count a bad input or output under the words before ':' and log the first of a streak."""
        if self.streaks.bad(source, reason.partition(":")[0]):
            self.get_logger().warning(f"'{source}' refused, {reason}")

    def _receive(self, topic: Topic, cdr: bytes) -> None:
        """One message: bytes → sample → checks → `on_sample`. Nothing that a message holds takes the node down."""
        received_s = time.monotonic()
        try:
            sample = messages.decode(topic.type, cdr, self.now_ns(), self.sample_type(topic), topic.name)
        except MessageError as error:
            self.refuse(topic.name, f"malformed: {error}")
            return
        if self.is_stamped(sample):
            source = channel(topic.name)
            reason = self.intake.refusal(source, sample.stamp_ns, self.now_ns())
            if reason:
                self.refuse(topic.name, reason)
                return
            if self.intake.jumped_back(source, sample.stamp_ns):
                self.get_logger().warning(f"'{topic.name}': stamps jumped back; history is cleared")
                self._forget()
            self.intake.accept(source, sample.stamp_ns)
        self.streaks.good(topic.name)
        self.heard_s[topic.name] = received_s
        self.heard_count[topic.name] = self.heard_count.get(topic.name, 0) + 1
        try:
            self.on_sample(topic, sample, received_s)
        except Exception as error:  # the firewall of the node: a fault of one cycle must not end all of them
            self.refuse(topic.name, f"failed: {type(error).__name__}: {error}")
            self.on_fault(f"{type(error).__name__} in a cycle")

    def _forget(self) -> None:
        self.intake.reset()
        self.on_reset()

    def _clock_jumped(self, _jump: Any) -> None:
        if self.active:
            self.get_logger().warning("the clock jumped back; history is cleared")
            self._forget()

    # ------------------------------------------------------------------ watching

    def quiet_s(self, topic: str) -> float:
        """Seconds since `topic` (or its compressed twin) gave a usable sample, or since activation."""
        names = [name for name in self._inputs if channel(name) == channel(topic)]
        heard_s = max(self.heard_s.get(name, self._began_s) for name in names)
        if self.is_trigger(self._inputs[topic][0]):
            heard_s = max(heard_s, self.ended_s)  # while it was worked on, the next one could not be heard
        return time.monotonic() - heard_s

    def _watch(self) -> None:
        self.drain()
        timeout_s = self._parameter("input_timeout_s")
        for name in self.watched():
            if self.quiet_s(name) <= timeout_s:
                self.silent.discard(name)
            elif name not in self.silent:
                self.silent.add(name)
                self.on_silence(name)

    def _publish_diagnostics(self) -> None:
        self._diagnostics.publish(messages.encode_diagnostics(self.now_ns(), statuses(self)))
