"""LeRobot's ACT on the wire, in place of the policy node: it sees what the robot says and answers with `action_chunk`.

    export WM_LEROBOT=/path/to/venv/bin/python ROS_DOMAIN_ID=71
    python tools/lerobot_act_node.py runs/act &
    wm rollout --task all --out build/rollout_act

Runs in the environment of wm_ros; `lerobot_act.py` serves the policy in its own. To each `image` it answers once the
pictures of all cameras that the policy was trained with, and the joints, of this stamp are there: joints keep their
names, and the first set point is due one step after the picture, as in training.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

from wm_ros import messages, topics
from wm_ros.errors import MessageError, UserError
from wm_ros.evaluation.lerobot_peer import LerobotPeer
from wm_ros.nodes.bag_qos import message_class
from wm_ros.nodes.qos import publisher_qos, subscription_qos
from wm_ros.nodes.stopping import stop_event
from wm_ros.topics import Topic
from wm_ros.types import ActionChunk, Frame, Instruction, Joints, PolicyPrediction, Sample, WristFrame
from wm_ros.up import ros_environment

CHUNK = topics.OUTPUTS["policy"][0]
CAMERAS = {"camera": topics.IMAGE, "wrist_camera": topics.WRIST_IMAGE}  # as datasets and frames name them
MOMENTS = 50
Moment = dict[type[Sample], Sample]


def main() -> None:
    """Answer until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `lerobot_act.py train` wrote")
    given = parser.parse_args()
    os.environ |= ros_environment()
    try:
        with LerobotPeer(str(given.folder)) as peer:
            run(peer)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(peer: LerobotPeer) -> None:
    """The node. Raises UserError where the policy was trained with a camera that no topic has, or the peer ends."""
    about = peer.about
    if unknown := [camera for camera in about["cameras"] if camera not in CAMERAS]:
        raise UserError(f"the policy sees camera '{unknown[0]}'; the robot has {', '.join(CAMERAS)}")
    inputs = [*(CAMERAS[camera] for camera in about["cameras"]), topics.JOINT_STATES]
    needed = {topic.sample for topic in inputs}
    offsets_s = np.arange(1, about["chunk"] + 1) / about["rate_hz"]
    words = ""
    moments: dict[int, Moment] = {}  # by stamp: which message of a moment is taken first nobody knows

    def take(sample: Sample) -> None:
        nonlocal words
        if isinstance(sample, Instruction):
            words = sample.text
            return
        moment = moments.setdefault(sample.stamp_ns, {})
        moment[type(sample)] = sample
        if moment.keys() == needed and words:
            publisher.publish(answer(moments.pop(sample.stamp_ns)))
        elif len(moments) > MOMENTS:
            del moments[next(iter(moments))]

    def answer(moment: Moment) -> bytes:
        joints = moment[Joints]
        assert isinstance(joints, Joints)
        position = dict(zip(joints.names, joints.position_rad, strict=True))
        state = np.array([position[name] for name in about["state_names"]], np.float32)
        frames = (moment[CAMERAS[camera].sample or Frame] for camera in about["cameras"])
        images = {c: f.rgb for c, f in zip(about["cameras"], frames, strict=True) if isinstance(f, Frame | WristFrame)}
        points = peer.act(images, state, words)
        chunk = ActionChunk(joints.stamp_ns, "", tuple(about["action_names"]), offsets_s, points)
        return messages.encode_prediction(PolicyPrediction(joints.stamp_ns, "", chunk))[0][2]

    rclpy.init()
    node = rclpy.create_node("lerobot_act")
    publisher = node.create_publisher(message_class(CHUNK.type), CHUNK.name, publisher_qos(CHUNK))

    def listen(topic: Topic) -> None:
        def heard(cdr: bytes) -> None:
            try:
                take(messages.decode(topic.type, cdr, 0, topic.sample, topic.name))
            except (MessageError, KeyError) as error:
                node.get_logger().warning(f"'{topic.name}' refused: {error}")

        profile = subscription_qos(topic, trigger=topic is topics.IMAGE)
        node.create_subscription(message_class(topic.type), topic.name, heard, profile, raw=True)

    for topic in (*inputs, topics.INSTRUCTION):
        listen(topic)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with stop_event() as stop:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)


if __name__ == "__main__":
    main()
