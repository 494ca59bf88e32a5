"""The only place where ROS messages become samples, and samples and predictions messages.

It works on CDR bytes through the type store of `rosbags`, with and without ROS, so a bag and a live topic go through
the same code. Arrays of a decoded sample are read-only views of the bytes where the layout allows.
"""

from __future__ import annotations

from collections.abc import Callable

from wm_ros.errors import MessageError
from wm_ros.messages import grids, images, markers, motion, points
from wm_ros.messages.cdr import TYPESTORE, header_stamp, short, topic_horizon
from wm_ros.messages.predictions import encode_prediction
from wm_ros.messages.status import (
    Status,
    decode_clock,
    decode_diagnostics,
    decode_numbers,
    encode_clock,
    encode_diagnostics,
    encode_numbers,
)
from wm_ros.topics import (
    BEV_TOKENS,
    BOXES,
    HAND_BOXES,
    HAND_POSES,
    HANDS,
    IMAGE,
    INSTRUCTION,
    JOINT_COMMANDS,
    JOINT_STATES,
    ODOM,
    POINTS,
    QUERY,
    SIDES,
    STATE_TOKENS,
    WRIST_IMAGE,
    Topic,
)
from wm_ros.types import (
    ActionChunk,
    BevTokens,
    Boxes,
    Detections,
    EgoPose,
    Frame,
    FutureFrames,
    HandTrajectory,
    Instruction,
    JointCommand,
    JointForecast,
    Joints,
    MotionQuery,
    OccupancyForecast,
    Sample,
    StateTokens,
    Sweep,
    WristFrame,
)

__all__ = [
    "TYPESTORE",
    "Status",
    "decode",
    "decode_clock",
    "decode_diagnostics",
    "decode_numbers",
    "encode_clock",
    "encode_diagnostics",
    "encode_numbers",
    "encode_prediction",
    "encode_sample",
    "header_stamp",
]

# type → the samples that a message of it may mean (the first where the caller does not say) and their decoders
_Decoder = Callable[[bytes | memoryview, int, str], Sample]
_DECODERS: dict[str, dict[type[Sample], _Decoder]] = {
    points.TYPE: {Sweep: lambda cdr, ns, topic: points.decode_points(cdr, ns)},
    motion.ODOMETRY: {EgoPose: lambda cdr, ns, topic: motion.decode_odometry(cdr, ns)},
    images.TYPE: {
        Frame: lambda cdr, ns, topic: images.decode_frame(cdr, ns),
        WristFrame: lambda cdr, ns, topic: images.decode_wrist_frame(cdr, ns),
        StateTokens: lambda cdr, ns, topic: images.decode_state_tokens(cdr, ns),
        BevTokens: lambda cdr, ns, topic: images.decode_bev_tokens(cdr, ns),
        FutureFrames: lambda cdr, ns, topic: images.decode_future_frame(cdr, topic_horizon(topic), ns),
    },
    images.COMPRESSED: {Frame: lambda cdr, ns, topic: images.decode_compressed(cdr, ns)},
    motion.JOINT_STATE: {
        Joints: lambda cdr, ns, topic: motion.decode_joints(cdr, Joints, ns),
        JointCommand: lambda cdr, ns, topic: motion.decode_joints(cdr, JointCommand, ns),
    },
    motion.STRING: {Instruction: lambda cdr, ns, topic: motion.decode_instruction(cdr, ns)},
    markers.TYPE: {
        Boxes: lambda cdr, ns, topic: markers.decode_boxes(cdr, ns),
        Detections: lambda cdr, ns, topic: markers.decode_detections(cdr, ns),
        HandTrajectory: lambda cdr, ns, topic: markers.decode_hand_boxes(cdr, topic, ns),
    },
    motion.PATH: {HandTrajectory: lambda cdr, ns, topic: motion.decode_path(cdr, topic, ns)},
    motion.JOINT_TRAJECTORY: {
        JointForecast: lambda cdr, ns, topic: motion.decode_joint_trajectory(cdr, JointForecast, ns),
        ActionChunk: lambda cdr, ns, topic: motion.decode_joint_trajectory(cdr, ActionChunk, ns),
        MotionQuery: lambda cdr, ns, topic: motion.decode_joint_trajectory(cdr, MotionQuery, ns),
    },
    grids.TYPE: {OccupancyForecast: lambda cdr, ns, topic: grids.decode_grid(cdr, topic_horizon(topic), ns)},
}


def decode(
    type_name: str,
    cdr: bytes | memoryview,
    stamp_ns: int = 0,
    sample: type[Sample] | None = None,
    topic: str = "",
) -> Sample:
    """A message as a sample.

    Args:
        type_name: e.g. "sensor_msgs/msg/Image". cdr: the bytes as recorded or received.
        stamp_ns: time of receipt, the stamp of messages without a header or with a zero one.
        sample: which sample is wanted where a type may mean several (Image: Frame, WristFrame, StateTokens, BevTokens
            or FutureFrames; JointState: Joints or JointCommand; JointTrajectory: JointForecast, ActionChunk or
            MotionQuery).
        topic: its name says which hand a Path is of and of which kind (`…/hand_<side>` wrists, `…/hand_pose_<side>`
            poses; boxes are a MarkerArray, `…/hand_box_<side>`), and the horizon of a grid (`…/t_<ms>`).

    Raises:
        MessageError: unknown type, or malformed; the message names type and field.
    """
    meanings = _DECODERS.get(type_name)
    if meanings is None:
        raise MessageError(f"message type '{type_name}' is not one that this stack reads")
    decoder = meanings.get(sample) if sample is not None else next(iter(meanings.values()))
    if decoder is None:
        raise MessageError(f"a message of type {short(type_name)} is no {sample.__name__ if sample else 'sample'}")
    return decoder(cdr, stamp_ns, topic)


_ENCODERS: dict[type[Sample], tuple[Topic, Callable[..., bytes]]] = {
    Sweep: (POINTS, points.encode_points),
    EgoPose: (ODOM, motion.encode_odometry),
    Frame: (IMAGE, lambda s: images.encode_rgb(s.stamp_ns, s.frame_id, s.rgb)),
    WristFrame: (WRIST_IMAGE, lambda s: images.encode_rgb(s.stamp_ns, s.frame_id, s.rgb)),
    Joints: (JOINT_STATES, motion.encode_joints),
    JointCommand: (JOINT_COMMANDS, motion.encode_joints),
    Instruction: (INSTRUCTION, motion.encode_instruction),
    Boxes: (BOXES, markers.encode_boxes),
    StateTokens: (STATE_TOKENS, lambda s: images.encode_tokens(s.stamp_ns, s.frame_id, s.tokens)),
    MotionQuery: (QUERY, motion.encode_joint_trajectory),
    BevTokens: (BEV_TOKENS, lambda s: images.encode_tokens(s.stamp_ns, s.frame_id, s.tokens)),
}


_HANDS: dict[str, tuple[tuple[Topic, ...], Callable[[HandTrajectory], bytes]]] = {
    "wrist_m": (HANDS, motion.encode_path),
    "pose": (HAND_POSES, motion.encode_path),
    "box": (HAND_BOXES, markers.encode_hand_boxes),
}


def encode_sample(sample: Sample) -> list[tuple[Topic, bytes]]:
    """A sample as messages on the topics of the stack. Raises MessageError if it has a value that is not finite."""
    if isinstance(sample, HandTrajectory):  # the topic says side and kind
        topics, encode = _HANDS[sample.kind]
        return [(topics[SIDES.index(sample.side)], encode(sample))]
    if type(sample) not in _ENCODERS:
        raise MessageError(f"a sample of type {type(sample).__name__} has no topic")
    topic, encoder = _ENCODERS[type(sample)]
    return [(topic, encoder(sample))]
