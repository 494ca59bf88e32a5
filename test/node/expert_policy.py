"""A process that stands in for the policy: the scripted expert, from what `wm robot --true-state` says, over real DDS.

    python expert_policy.py TASK [STEPS]

To each image it answers with an `action_chunk`: the set point that the expert asks for now, for STEPS control ticks.
Only messages connect it with the robot; it has a world of its own from which it takes nothing but the expert.
"""

from __future__ import annotations

import sys

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

from wm_ros import messages, topics
from wm_ros.data.simulator.metaworld_arm import NAMES, RATE_HZ, MetaWorldArm, set_point_of
from wm_ros.nodes.bag_qos import message_class
from wm_ros.nodes.qos import publisher_qos, subscription_qos
from wm_ros.nodes.stopping import stop_event
from wm_ros.types import ActionChunk, Frame, Joints, PolicyPrediction

CHUNK = topics.OUTPUTS["policy"][0]


def main() -> None:
    task, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    arm = MetaWorldArm(task)
    states: dict[int, Joints] = {}
    asked: set[int] = set()
    rclpy.init()
    node = rclpy.create_node("expert")
    publisher = node.create_publisher(message_class(CHUNK.type), CHUNK.name, publisher_qos(CHUNK))

    def know(cdr: bytes) -> None:
        state = messages.decode(topics.TRUE_STATE.type, cdr, 0, Joints)
        states.clear()
        states[state.stamp_ns] = state
        answer()

    def see(cdr: bytes) -> None:
        frame = messages.decode(topics.IMAGE.type, cdr, 0, Frame)
        asked.clear()
        asked.add(frame.stamp_ns)
        answer()

    def answer() -> None:
        """Once the state and the image of one moment are there; which of them is taken first nobody knows."""
        for stamp_ns in asked & states.keys():
            state = states[stamp_ns].position_rad
            points = np.repeat(set_point_of(state, arm.expert_action(state))[None], steps, 0).astype(np.float32)
            chunk = ActionChunk(stamp_ns, "", NAMES, np.arange(1, steps + 1) / RATE_HZ, points)
            for _, _, out in messages.encode_prediction(PolicyPrediction(stamp_ns, "", chunk)):
                publisher.publish(out)
        asked.difference_update(states)

    for topic, heard in ((topics.TRUE_STATE, know), (topics.IMAGE, see)):
        profile = subscription_qos(topic, trigger=topic is topics.IMAGE)
        node.create_subscription(message_class(topic.type), topic.name, heard, profile, raw=True)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with stop_event() as stop:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)


if __name__ == "__main__":
    main()
