"""Every topic of the stack, said once. Nodes, bags, launch file, RViz view and tests read this table.

Names are relative: a namespace or a remapping changes them. Types are ROS 2 names as in `ros2 topic info`.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Literal

from wm_ros import types

HORIZONS_S = (0.1, 0.5, 1.0, 2.0)
FRAME_HORIZONS_S = (0.33, 0.67, 1.0)
SIDES = ("left", "right")

Quality = Literal["sensor", "reliable", "latched"]


@dataclass(frozen=True)
class Topic:
    """One topic.

    Attributes:
        quality: "sensor" = best effort, newest only where it triggers; "reliable" = reliable, volatile;
            "latched" = reliable, transient local, depth 1.
        lazy: published, and computed, only while somebody subscribes.
        sample: the sample type that a message of it becomes (inputs), None for outputs.
    """

    name: str
    type: str
    quality: Quality = "reliable"
    lazy: bool = False
    sample: builtins.type[types.Sample] | None = None


# What robots, cars, bags and the simulator publish.
POINTS = Topic("points", "sensor_msgs/msg/PointCloud2", "sensor", sample=types.Sweep)
ODOM = Topic("odom", "nav_msgs/msg/Odometry", "sensor", sample=types.EgoPose)
IMAGE = Topic("image", "sensor_msgs/msg/Image", "sensor", sample=types.Frame)
IMAGE_COMPRESSED = Topic("image/compressed", "sensor_msgs/msg/CompressedImage", "sensor", sample=types.Frame)
WRIST_IMAGE = Topic("wrist_image", "sensor_msgs/msg/Image", "sensor", sample=types.WristFrame)
JOINT_STATES = Topic("joint_states", "sensor_msgs/msg/JointState", "sensor", sample=types.Joints)
JOINT_COMMANDS = Topic("joint_commands", "sensor_msgs/msg/JointState", "reliable", sample=types.JointCommand)
INSTRUCTION = Topic("instruction", "std_msgs/msg/String", "latched", sample=types.Instruction)
BOXES = Topic("boxes", "visualization_msgs/msg/MarkerArray", "reliable", sample=types.Boxes)
# What a simulated robot knows of its world beside what its sensors say; no capability takes it.
TRUE_STATE = Topic("true_state", "sensor_msgs/msg/JointState", sample=types.Joints)
QUERY = Topic("future/query", "trajectory_msgs/msg/JointTrajectory", sample=types.MotionQuery)
# A hand's topic says its side and its kind: wrist in metres, box in the image, pose of an end effector.
HANDS = tuple(Topic(f"hand_{s}", "nav_msgs/msg/Path", "reliable", sample=types.HandTrajectory) for s in SIDES)
HAND_POSES = tuple(Topic(f"hand_pose_{s}", "nav_msgs/msg/Path", sample=types.HandTrajectory) for s in SIDES)
HAND_BOXES = tuple(
    Topic(f"hand_box_{s}", "visualization_msgs/msg/MarkerArray", sample=types.HandTrajectory) for s in SIDES
)

# What the nodes say.
STATE_TOKENS = Topic("state/tokens", "sensor_msgs/msg/Image", sample=types.StateTokens)
BEV_TOKENS = Topic("bev/tokens", "sensor_msgs/msg/Image", sample=types.BevTokens)
ACTION_CHUNK = Topic("action_chunk", "trajectory_msgs/msg/JointTrajectory")
ACTION_STEP = Topic("action_step", "trajectory_msgs/msg/JointTrajectory")  # what to do now, while chunks are executed
DIAGNOSTICS = Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")


def millis(horizon_s: float) -> int:
    """0.5 → 500, the `<ms>` of a topic name."""
    return round(horizon_s * 1000)


INPUTS: dict[str, tuple[Topic, ...]] = {
    "lidar_encoder": (POINTS, ODOM),
    "state_tokenizer": (IMAGE, IMAGE_COMPRESSED),
    "future_predictor": (IMAGE, IMAGE_COMPRESSED, STATE_TOKENS, JOINT_STATES, INSTRUCTION, QUERY),
    "policy": (
        *(STATE_TOKENS, IMAGE, IMAGE_COMPRESSED, WRIST_IMAGE),
        *(BEV_TOKENS, JOINT_STATES, JOINT_COMMANDS, INSTRUCTION),
    ),
}

OUTPUTS: dict[str, tuple[Topic, ...]] = {
    "lidar_encoder": (
        BEV_TOKENS,
        Topic("bev/embedding", "sensor_msgs/msg/Image", lazy=True),
        *(Topic(f"bev/occupancy/t_{millis(h)}", "nav_msgs/msg/OccupancyGrid") for h in HORIZONS_S),
        Topic("bev/view", "sensor_msgs/msg/Image", lazy=True),
        Topic("bev/detections", "visualization_msgs/msg/MarkerArray", lazy=True),
    ),
    "state_tokenizer": (
        STATE_TOKENS,
        Topic("state/motion", "sensor_msgs/msg/Image"),
        Topic("state/reconstruction", "sensor_msgs/msg/Image", lazy=True),
    ),
    "future_predictor": (
        *(Topic(f"future/hand_{s}", "nav_msgs/msg/Path") for s in SIDES),
        Topic("future/joints", "trajectory_msgs/msg/JointTrajectory"),
        *(Topic(f"future/image/t_{millis(h)}", "sensor_msgs/msg/Image", lazy=True) for h in FRAME_HORIZONS_S),
        Topic("future/strip", "sensor_msgs/msg/Image", lazy=True),
        Topic("future/samples", "visualization_msgs/msg/MarkerArray", lazy=True),
        Topic("future/subtask", "std_msgs/msg/String", lazy=True),
        Topic("future/answer", "sensor_msgs/msg/Image"),
    ),
    "policy": (ACTION_CHUNK, ACTION_STEP),
    "monitor": (Topic("monitor/surprise", "std_msgs/msg/Float64MultiArray"),),
}

# The monitor hears the world and every prediction that it can score once its time has come.
INPUTS["monitor"] = (
    POINTS,
    ODOM,
    IMAGE,
    IMAGE_COMPRESSED,
    JOINT_STATES,
    JOINT_COMMANDS,
    *(t for t in OUTPUTS["lidar_encoder"] if t.name.startswith("bev/occupancy")),
    *(t for t in OUTPUTS["future_predictor"] if t.name.startswith("future/hand_")),
    *(t for t in OUTPUTS["future_predictor"] if t.name.startswith("future/image/")),
    ACTION_CHUNK,
)

NODES = tuple(OUTPUTS)
