"""The other side of `wm robot`: begins episodes, reads their results, keeps what was seen and what was planned."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from wm_ros import messages, topics
from wm_ros.errors import MessageError, UserError
from wm_ros.nodes.bag_qos import message_class
from wm_ros.nodes.qos import subscription_qos
from wm_ros.nodes.robot import CHUNK, NAME
from wm_ros.topics import Topic
from wm_ros.types import ActionChunk, Frame, Joints, Sample, WristFrame

ANSWER_S = 30.0
GIVE_UP = 2
"""An episode is given up when the robot has waited so often, and no trajectory came at all."""


class RobotClient:
    """A context manager.

    Args:
        alive: called while waiting; raises UserError where waiting has become useless.

    Attributes:
        heard: samples of the episode by stamp, for `Frame`, `WristFrame`, `Joints`, `ActionChunk`.
    """

    def __init__(self, alive: Callable[[], None]) -> None:
        self.heard: dict[type[Sample], dict[int, Sample]] = {}
        self._alive, self._since_ns, self._until_ns = alive, 0, 0
        self.context = Context()
        rclpy.init(args=[], context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("rollout", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self._node)
        for topic, kind in (
            (topics.IMAGE, Frame),
            (topics.WRIST_IMAGE, WristFrame),
            (topics.JOINT_STATES, Joints),
            (CHUNK, ActionChunk),
        ):
            self._listen(topic, kind)
        self._seed = self._node.create_client(SetParameters, f"{NAME}/set_parameters")
        self._reset = self._node.create_client(Trigger, f"{NAME}/reset")
        self._result = self._node.create_client(Trigger, f"{NAME}/result")

    def __enter__(self) -> RobotClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(timeout_sec=0.5)
        self._node.destroy_node()
        self.context.try_shutdown()

    # ------------------------------------------------------------------ asking

    def wait_for_robot(self, timeout_s: float) -> None:
        """Until its services are there. Raises UserError."""
        self._until(
            lambda: all(client.service_is_ready() for client in (self._seed, self._reset, self._result)),
            f"no robot within {timeout_s:g} s: start `wm robot`, in the same ROS domain",
            timeout_s,
        )

    def wait_for_policy(self, timeout_s: float) -> None:
        """Until somebody publishes trajectories. Raises UserError."""
        self._until(
            lambda: self._node.count_publishers(CHUNK.name) > 0,
            f"nobody publishes '{CHUNK.name}' within {timeout_s:g} s: give --policy, or start one, in the same domain",
            timeout_s,
        )

    def run_episode(self, seed: int, timeout_s: float) -> dict[str, Any]:
        """Begin an episode and wait for its end; what `robot/result` says of it. Raises UserError."""
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        (answer,) = self._call(
            self._seed, SetParameters.Request(parameters=[Parameter(name="seed", value=value)])
        ).results
        if not answer.successful:
            raise UserError(f"the robot refuses seed {seed}: {answer.reason}; give 0 to {2**31 - 1}")
        self.heard = {}
        begun = json.loads(self._call(self._reset, Trigger.Request()).message)
        self._since_ns, self._until_ns = begun["start_ns"], begun["start_ns"] + 9_000_000_000
        end_s = time.monotonic() + timeout_s
        while True:
            result: dict[str, Any] = json.loads(self._call(self._result, Trigger.Request()).message)
            if not result["chunks"] and (result["ended"] or result["timeouts"] >= GIVE_UP):
                refused = ", ".join(f"{count} {kind}" for kind, count in result["refused"].items())
                why = (
                    f"refused: {refused}; robot's log says why" if refused else "none came; see /diagnostics of policy"
                )
                raise UserError(f"{result['task']}, seed {seed}: no action_chunk that the robot can use ({why})")
            if result["ended"]:
                self.spin(0.1)  # what is still on its way
                return result
            if time.monotonic() > end_s:
                raise UserError(f"the episode of seed {seed} did not end within {timeout_s:g} s; run `wm doctor`")
            self.spin(0.1)

    def spin(self, seconds: float) -> None:
        """Take messages for so long."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)
        self._alive()

    def _call(self, client: Any, request: Any) -> Any:
        future = client.call_async(request)
        self._until(future.done, f"the robot does not answer '{client.srv_name}' within {ANSWER_S:g} s", ANSWER_S)
        return future.result()

    def _until(self, condition: Callable[[], bool], else_: str, timeout_s: float) -> None:
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                raise UserError(else_)
            self._executor.spin_once(timeout_sec=0.05)
            self._alive()

    # ------------------------------------------------------------------ hearing

    def _listen(self, topic: Topic, kind: type[Sample]) -> None:
        def keep(cdr: bytes) -> None:
            try:
                sample = messages.decode(topic.type, cdr, 0, kind, topic.name)
            except MessageError:
                return  # the robot refuses it too, and counts it
            if self._since_ns <= sample.stamp_ns < self._until_ns:
                self.heard.setdefault(kind, {})[sample.stamp_ns] = sample

        self._node.create_subscription(
            message_class(topic.type), topic.name, keep, subscription_qos(topic, False), raw=True
        )
