"""The stack on a ROS 2 machine: five lifecycle nodes, configured and activated; a bag and RViz where asked for.

    ros2 launch wm_ros wm.launch.py                                     live, everything from config/wm.yaml
    ros2 launch wm_ros wm.launch.py bagfile:=/path/to/bag visualize:=true
    ros2 launch wm_ros wm.launch.py params_file:=my.yaml namespace:=robot1 log_level:=debug

The parameter file says everything about the nodes. Arguments are for what changes from one launch to the next; one
that is given wins over the file.

Large best-effort messages are lost with the defaults of Fast DDS. Where everything runs on one machine:

    export FASTRTPS_DEFAULT_PROFILES_FILE=$(ros2 pkg prefix --share wm_ros)/config/fastdds.xml
"""

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

SHARE = Path(__file__).resolve().parents[1]
NODES = ("lidar_encoder", "state_tokenizer", "future_predictor", "policy", "monitor")


def generate_launch_description() -> LaunchDescription:
    """Arguments, and the actions that depend on their values."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=str(SHARE / "config" / "wm.yaml"),
                description="ROS parameter file of all nodes.",
            ),
            DeclareLaunchArgument(
                "bagfile", default_value="", description="Bag to play with /clock; empty: the inputs are live."
            ),
            DeclareLaunchArgument(
                "visualize", default_value="false", choices=["true", "false"], description="Start RViz on all outputs."
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of all nodes and of their relative topics."
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="",
                choices=["", "true", "false"],
                description="Follow /clock; empty: as in the parameter file, and true while a bag is played.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Least severe messages that the nodes log.",
            ),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The actions, now that the arguments have values."""
    given = {
        name: LaunchConfiguration(name).perform(context)
        for name in ("params_file", "bagfile", "visualize", "namespace", "use_sim_time", "log_level")
    }
    sim_time = given["use_sim_time"] or ("true" if given["bagfile"] else "")
    overrides = [{"use_sim_time": sim_time == "true"}] if sim_time else []
    actions: list[LaunchDescriptionEntity] = []
    for name in NODES:
        node = LifecycleNode(
            package="wm_ros",
            executable=name,
            name=name,
            namespace=given["namespace"],
            parameters=[given["params_file"], *overrides],
            arguments=["--ros-args", "--log-level", given["log_level"]],
            output="screen",
        )
        actions += [*bring_up(node), node]
    if given["bagfile"]:
        actions.append(ExecuteProcess(cmd=["ros2", "bag", "play", given["bagfile"], "--clock", "100"], output="screen"))
    if given["visualize"] == "true":
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=given["namespace"],
                arguments=["-d", str(SHARE / "config" / "wm.rviz")],
                parameters=overrides,
                output="screen",
            )
        )
    return actions


def bring_up(node: LifecycleNode) -> list[RegisterEventHandler]:
    """Configure a node when its process has started, activate it when it is configured."""
    this = matches_action(node)
    configure = EmitEvent(event=ChangeState(lifecycle_node_matcher=this, transition_id=Transition.TRANSITION_CONFIGURE))
    activate = EmitEvent(event=ChangeState(lifecycle_node_matcher=this, transition_id=Transition.TRANSITION_ACTIVATE))
    return [
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=[configure])),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node, start_state="configuring", goal_state="inactive", entities=[activate]
            )
        ),
    ]
