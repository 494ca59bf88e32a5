"""`wm robot`: a simulated robot on the wire. It publishes what it senses and does what `action_chunk` says.

Topics, relative: `joint_states`, `joint_commands`, `image`, `wrist_image`, `instruction`, and `/clock`. Services:
`robot/reset` and `robot/result` (std_srvs/Trigger; the message is JSON). The parameter `seed` says where things are in
the episode that the next `reset` begins.

By the clock, every episode begins EPISODE_S earlier than the one before: whoever follows it sees the clock jump back
and clears its history, and a trajectory that was meant for an earlier episode is ahead of the clock, and refused.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import rclpy
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from wm_ros import messages, topics
from wm_ros.data.simulator.metaworld_arm import MetaWorldArm
from wm_ros.data.simulator.metaworld_view import View
from wm_ros.errors import MessageError
from wm_ros.messages.status import OK, WARN, Status
from wm_ros.nodes.bag_qos import message_class
from wm_ros.nodes.intake import Streaks
from wm_ros.nodes.qos import publisher_qos, subscription_qos
from wm_ros.nodes.stopping import stop_event
from wm_ros.robot.episode import TICK_NS, Episode
from wm_ros.topics import Topic
from wm_ros.types import ActionChunk, Sample

NAME = "robot"
CLOCK = Topic("/clock", "rosgraph_msgs/msg/Clock")
CHUNK = topics.OUTPUTS["policy"][0]
SAYS = (CLOCK, topics.JOINT_STATES, topics.JOINT_COMMANDS, topics.IMAGE, topics.WRIST_IMAGE, topics.INSTRUCTION)
FIRST_NS = 10**18
EPISODE_S = 10
SETTLE_S = 0.1
"""After a reset the clock is told for so long before anything else, so that nobody takes what follows for stale."""
AGAIN_S = 0.5
"""The first images of an episode are taken again after so long without an answer: a reset elsewhere may lose them."""
IDLE_S = 0.1


@dataclass(frozen=True)
class RobotOptions:
    """How the robot runs.

    Attributes:
        seed: of the first episode. image_every: control ticks between images. cameras: 1 or 2. blind: black images.
        lock_step: wait after each image for the trajectory that answers it, `timeout_s` at most; else keep real time.
        rate: of real time. delay_s: a trajectory takes effect so long after its stamp, in simulated time.
        on_reset: begin episodes only when asked to; else with the next seed whenever one has ended.
        off: topics of sensors that fail `off_after_s` after the beginning of an episode.
        true_state: publish it too, for experts and tests. namespace: of node, topics and services.
    """

    seed: int = 0
    image_every: int = 4
    cameras: int = 2
    blind: bool = False
    lock_step: bool = False
    timeout_s: float = 5.0
    rate: float = 1.0
    delay_s: float = 0.0
    off: tuple[str, ...] = ()
    off_after_s: float = 0.0
    on_reset: bool = False
    true_state: bool = False
    namespace: str = ""


def run_robot(task: str, options: RobotOptions, stop: threading.Event | None = None) -> None:
    """Run until SIGINT, SIGTERM or `stop`. Raises UserError where Meta-World or drawing is missing."""
    arm = MetaWorldArm(task)
    context = Context()
    with View(arm) as view, stop_event(stop) as stopped:
        rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
        try:
            Robot(arm, view, options, context, stopped).run()
        finally:
            rclpy.shutdown(context=context)


class Robot:
    """The node, and the loop that drives the episode. One thread: messages are taken between ticks and in waits."""

    def __init__(
        self, arm: MetaWorldArm, view: View, options: RobotOptions, context: Context, stopped: threading.Event
    ) -> None:
        self._arm, self._view, self._options, self._stopped = arm, view, options, stopped
        self._streaks = Streaks()
        self._episodes = 0
        self._sent_s: dict[int, float] = {}
        self.node = rclpy.create_node(NAME, context=context, namespace=options.namespace or None)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        seed = ParameterDescriptor(
            description="Where things are in the episode that the next reset begins.",
            integer_range=[IntegerRange(from_value=0, to_value=2**31 - 1, step=0)],
        )
        self.node.declare_parameter("seed", options.seed, seed)
        says = (*SAYS, *((topics.TRUE_STATE,) if options.true_state else ()), topics.DIAGNOSTICS)
        self._publishers = {t.name: self._publisher(t) for t in says}
        self._chunks = self.node.create_subscription(
            message_class(CHUNK.type), CHUNK.name, self._on_chunk, subscription_qos(CHUNK, False), raw=True
        )
        self.node.create_service(Trigger, f"{NAME}/reset", self._on_reset)
        self.node.create_service(Trigger, f"{NAME}/result", self._on_result)
        self._diagnosed_s = 0.0
        self.episode = self._new_episode(options.seed)
        self._idle = options.on_reset

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Episode after episode."""
        while not self._stopped.is_set():
            if self._idle:
                self._publish_clock()
                self._spin(IDLE_S)
            else:
                self._run_episode(self.episode)
            if self.episode.ended and not self._idle:
                self._idle = True
                if not self._options.on_reset:
                    self._begin(self.episode.seed + 1)
        self.node.destroy_node()

    def _run_episode(self, episode: Episode) -> None:
        """Until it ends, another one begins, or we are to stop."""
        if self._options.lock_step:
            self._await_listeners(episode)
        self._publish_clock()
        self._say(episode.instruction())
        self._spin(SETTLE_S)
        due_s = time.monotonic()
        while episode is self.episode and not episode.ended and not self._stopped.is_set():
            self._tick(episode)
            if not self._options.lock_step:
                due_s = max(due_s + TICK_NS / 1e9 / self._options.rate, time.monotonic() - 0.1)
                self._spin(max(0.0, due_s - time.monotonic()))
            if episode is self.episode:
                episode.advance()
        if episode is self.episode and episode.ended:
            self._publish_clock()
            self._sense(episode)
            self.node.get_logger().info(json.dumps(episode.result()))

    def _tick(self, episode: Episode) -> None:
        self._diagnose()
        self._publish_clock()
        self._sense(episode)
        if episode.looks:
            self._look(episode)
            if self._options.lock_step:
                self._await_chunk(episode)
        self._spin(0.0)

    def _await_listeners(self, episode: Episode) -> None:
        """Take messages until somebody who sees could be heard, for the time of a wait at most."""
        end_s = time.monotonic() + self._options.timeout_s
        image = self._publishers[topics.IMAGE.name]
        while episode is self.episode and not self._stopped.is_set() and time.monotonic() < end_s:
            if self._chunks.get_publisher_count() and image.get_subscription_count():
                return
            self._executor.spin_once(timeout_sec=0.05)

    def _await_chunk(self, episode: Episode) -> None:
        """Take messages until a trajectory answers the image of now.

        At the beginning the clock goes on by a tick when the images are taken again, while the robot stands: whoever
        saw the first ones would refuse a repetition.
        """
        began_s = said_s = time.monotonic()
        asked_ns = episode.now_ns
        episode.waits += 1
        while episode is self.episode and not self._stopped.is_set():
            if episode.controller.newest_ns >= asked_ns:
                return
            now_s = time.monotonic()
            if now_s - began_s >= self._options.timeout_s:
                episode.timeouts += 1
                self._complain("lock-step", f"no answer: to the image of {now_s - began_s:.1f} s ago; going on without")
                return
            if episode.step == 0 and now_s - said_s >= AGAIN_S:
                said_s = now_s
                episode.start_ns += TICK_NS
                self._publish_clock()
                self._sense(episode)
                self._look(episode)
            self._executor.spin_once(timeout_sec=0.05)

    def _spin(self, seconds: float) -> None:
        """Take messages for so long, and at least those that wait."""
        end_s = time.monotonic() + seconds
        while True:
            self._executor.spin_once(timeout_sec=max(0.0, end_s - time.monotonic()))
            if time.monotonic() >= end_s:
                return

    # ------------------------------------------------------------------ out

    def _publisher(self, topic: Topic) -> Any:
        return self.node.create_publisher(message_class(topic.type), topic.name, publisher_qos(topic))

    def _publish_clock(self) -> None:
        self._publishers[CLOCK.name].publish(messages.encode_clock(self.episode.now_ns))

    def _sense(self, episode: Episode) -> None:
        if self._options.true_state:
            state = messages.encode_sample(episode.true_state())[0][1]
            self._publishers[topics.TRUE_STATE.name].publish(state)
        self._say(episode.command())
        if episode.works(topics.JOINT_STATES.name):
            self._say(episode.joints())

    def _look(self, episode: Episode) -> None:
        # Drawing takes longer than a message on its way: joints of this moment are there before the image of it.
        for sample in list(episode.images()):
            self._say(sample)
        self._sent_s = {episode.now_ns: time.monotonic()} | dict(list(self._sent_s.items())[:50])

    def _say(self, sample: Sample) -> None:
        for topic, cdr in messages.encode_sample(sample):
            self._publishers[topic.name].publish(cdr)

    def _diagnose(self) -> None:
        now_s = time.monotonic()
        if now_s - self._diagnosed_s < 1.0:
            return
        self._diagnosed_s = now_s
        values = {key: str(value) for key, value in self.episode.result().items()}
        wrong = "; ".join(sorted(f"'{source}' {kind}" for source, kind in self._streaks.running))
        status = Status(f"{NAME}: episode", WARN if wrong else OK, wrong or "in order", values)
        self._publishers[topics.DIAGNOSTICS.name].publish(messages.encode_diagnostics(self.episode.now_ns, [status]))

    def _complain(self, source: str, reason: str) -> None:
        """Log the first of a streak."""
        if self._streaks.bad(source, reason.partition(":")[0]):
            self.node.get_logger().warning(f"'{source}' {reason}")

    # ------------------------------------------------------------------ in

    def _on_chunk(self, cdr: bytes) -> None:
        """A trajectory. Nothing that it holds takes the robot down, or changes what it does if it is refused."""
        episode = self.episode
        try:
            chunk = messages.decode(CHUNK.type, cdr, episode.now_ns, ActionChunk, CHUNK.name)
            assert isinstance(chunk, ActionChunk)
        except MessageError as error:
            episode.refused["malformed"] += 1
            self._complain(CHUNK.name, f"refused, malformed: {error}")
            return
        reason = episode.offer(chunk)
        if reason:
            self._complain(CHUNK.name, f"refused, {reason}")
            return
        self._streaks.good(CHUNK.name)
        self._streaks.good("lock-step")
        if chunk.stamp_ns in self._sent_s:
            episode.round_trips_ms.append((time.monotonic() - self._sent_s.pop(chunk.stamp_ns)) * 1e3)

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        seed = int(self.node.get_parameter("seed").value)
        self._begin(seed)
        response.success = True
        response.message = json.dumps({"task": self._arm.task, "seed": seed, "start_ns": self.episode.start_ns})
        return response

    def _on_result(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = True
        response.message = json.dumps(self.episode.result())
        return response

    # ------------------------------------------------------------------ episodes

    def _begin(self, seed: int) -> None:
        self.episode = self._new_episode(seed)
        self._sent_s.clear()
        self._idle = False

    def _new_episode(self, seed: int) -> Episode:
        options = self._options
        start_ns = FIRST_NS - self._episodes * EPISODE_S * 1_000_000_000
        self._episodes += 1
        return Episode(
            self._arm,
            self._view,
            seed,
            start_ns,
            image_every=options.image_every,
            cameras=options.cameras,
            blind=options.blind,
            delay_s=options.delay_s,
            off=options.off,
            off_after_s=options.off_after_s,
        )
