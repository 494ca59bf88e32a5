"""Launch file, parameter file, RViz view and `wm_ros.topics` say the same about nodes, topics and types."""

from __future__ import annotations

import ast
import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import launch_double
import pytest
import yaml

from wm_ros import topics
from wm_ros.nodes.parameters import BUILT_IN, PARAMETERS, read_file
from wm_ros.paths import CONFIG, SHARE

LAUNCH = SHARE / "launch" / "wm.launch.py"
TYPES = {t.name: t.type for row in (*topics.INPUTS.values(), *topics.OUTPUTS.values()) for t in row} | {
    t.name: t.type for t in (topics.BOXES, *topics.HANDS)
}
QUALITY = {t.name: t.quality for row in (*topics.INPUTS.values(), *topics.OUTPUTS.values()) for t in row}
OUTPUTS = {t.name: t for row in topics.OUTPUTS.values() for t in row}

# ---------------------------------------------------------------- launch


@pytest.fixture
def launched(monkeypatch):
    """Runs the launch file with arguments → (declared arguments, what it starts)."""
    launch_double.install(monkeypatch)
    spec = importlib.util.spec_from_file_location("wm_launch", LAUNCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda **arguments: launch_double.run(module.generate_launch_description(), **arguments)


def of_kind(started, kind):
    return [entity for entity in started if type(entity) is kind]


def test_launch_starts_the_five_nodes_with_the_shipped_parameter_file(launched):
    _, started = launched()
    nodes = of_kind(started, launch_double.LifecycleNode)
    assert tuple(node.name for node in nodes) == topics.NODES
    assert [node.executable for node in nodes] == [node.name for node in nodes]
    assert {node.package for node in nodes} == {"wm_ros"}
    assert all(node.parameters == [str(CONFIG / "wm.yaml")] for node in nodes)
    assert not of_kind(started, launch_double.ExecuteProcess) + of_kind(started, launch_double.Node)


def test_each_node_is_configured_when_it_starts_and_activated_when_configured(launched):
    _, started = launched()
    handlers = [entity.event_handler for entity in of_kind(started, launch_double.RegisterEventHandler)]
    for node in of_kind(started, launch_double.LifecycleNode):
        starts = [h for h in handlers if getattr(h, "target_action", None) is node]
        becomes = [h for h in handlers if getattr(h, "target_lifecycle_node", None) is node]
        assert [h.on_start[0].event.transition_id for h in starts] == [1], "TRANSITION_CONFIGURE"
        assert [(h.goal_state, h.entities[0].event.transition_id) for h in becomes] == [("inactive", 3)], "…_ACTIVATE"
        assert starts[0].on_start[0].event.lifecycle_node_matcher(node)


def test_arguments_are_those_documented_and_each_has_a_description(launched):
    declared, _ = launched()
    assert set(declared) == {"params_file", "bagfile", "visualize", "namespace", "use_sim_time", "log_level"}
    assert all(argument.description for argument in declared.values())


def test_what_is_given_on_the_command_line_wins_over_the_file(launched):
    _, started = launched(use_sim_time="true", namespace="robot1", params_file="my.yaml", log_level="debug")
    for node in of_kind(started, launch_double.LifecycleNode):
        assert node.parameters == ["my.yaml", {"use_sim_time": True}], "later parameters win"
        assert node.namespace == "robot1"
        assert node.arguments == ["--ros-args", "--log-level", "debug"]


def test_a_bag_is_played_with_the_clock_that_the_nodes_follow(launched):
    _, started = launched(bagfile="/bags/drive")
    (player,) = of_kind(started, launch_double.ExecuteProcess)
    assert player.cmd[:4] == ["ros2", "bag", "play", "/bags/drive"] and "--clock" in player.cmd
    assert all(node.parameters[-1] == {"use_sim_time": True} for node in of_kind(started, launch_double.LifecycleNode))


def test_rviz_shows_the_shipped_view(launched):
    _, started = launched(visualize="true", use_sim_time="true")
    (rviz,) = of_kind(started, launch_double.Node)
    assert (rviz.package, rviz.arguments) == ("rviz2", ["-d", str(CONFIG / "wm.rviz")])
    assert rviz.parameters == [{"use_sim_time": True}]


# ---------------------------------------------------------------- parameter file


def test_parameter_file_gives_every_parameter_of_every_node_its_default():
    values = read_file(CONFIG / "wm.yaml")
    for node, rows in PARAMETERS.items():
        given = {name: value for name, value in values[node].items() if name not in BUILT_IN}
        assert given == {row.name: row.default for row in rows}


def test_every_parameter_line_has_a_comment():
    lines = (CONFIG / "wm.yaml").read_text().splitlines()
    bare = [line for line in lines if line.startswith("    ") and "#" not in line]
    assert bare == []


def test_nodes_parameters_and_topics_have_the_same_names():
    assert tuple(PARAMETERS) == topics.NODES
    assert set(topics.INPUTS) == set(topics.OUTPUTS) == set(topics.NODES)
    for node in topics.NODES:
        assert (SHARE / "wm_ros" / "nodes" / f"{node}.py").is_file()


# ---------------------------------------------------------------- Fast DDS profile


def test_fast_dds_profile_is_large_shared_memory_and_loopback_only():
    space = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"
    root = ET.parse(CONFIG / "fastdds.xml").getroot()
    transports = {t.find(f"{space}type").text: t for t in root.iter(f"{space}transport_descriptor") if len(t)}
    assert int(transports["SHM"].find(f"{space}segment_size").text) == 32 * 2**20
    assert int(transports["UDPv4"].find(f"{space}receiveBufferSize").text) == 4 * 2**20
    assert [a.text for a in transports["UDPv4"].iter(f"{space}address")] == ["127.0.0.1"]


# ---------------------------------------------------------------- RViz

RVIZ = yaml.safe_load((CONFIG / "wm.rviz").read_text())
MANAGER = RVIZ["Visualization Manager"]
TOPIC_KEYS = {"Depth", "History Policy", "Reliability Policy", "Durability Policy", "Value"}
FILTERED = {"PointCloud2", "Path", "Odometry", "Map"}
COMMON = {"Class", "Name", "Enabled", "Value"}
# Keys of each display of rviz_default_plugins: an unknown one would be ignored in silence.
DISPLAYS = {
    "PointCloud2": (
        "sensor_msgs/msg/PointCloud2",
        {
            "Alpha", "Selectable", "Style", "Size (m)", "Size (Pixels)", "Decay Time", "Position Transformer",
            "Color Transformer", "Channel Name", "Use rainbow", "Invert Rainbow", "Autocompute Intensity Bounds",
            "Axis",
            "Autocompute Value Bounds", "Use Fixed Frame",
        },
    ),
    "MarkerArray": ("visualization_msgs/msg/MarkerArray", {"Namespaces"}),
    "Image": ("sensor_msgs/msg/Image", {"Normalize Range", "Min Value", "Max Value", "Median window"}),
    "Path": (
        "nav_msgs/msg/Path", {"Alpha", "Buffer Length", "Color", "Line Style", "Line Width", "Offset", "Pose Style"}
    ),
    "Map": (
        "nav_msgs/msg/OccupancyGrid",
        {
            "Alpha", "Color Scheme", "Draw Behind", "Binary representation", "Binary threshold", "Use Timestamp",
            "Update Topic",
        },
    ),
    "Odometry": ("nav_msgs/msg/Odometry", {"Angle Tolerance", "Position Tolerance", "Keep", "Covariance", "Shape"}),
    "TF": (
        None,
        {
            "Frame Timeout", "Frames", "Marker Scale", "Show Arrows", "Show Axes", "Show Names", "Tree",
            "Update Interval",
        },
    ),
    "Grid": (
        None,
        {
            "Alpha", "Cell Size", "Color", "Line Style", "Normal Cell Count", "Offset", "Plane", "Plane Cell Count",
            "Reference Frame",
        },
    ),
}  # fmt: skip
CHOICES = {
    "History Policy": {"System Default", "Keep Last", "Keep All"},
    "Reliability Policy": {"System Default", "Reliable", "Best Effort"},
    "Durability Policy": {"System Default", "Transient Local", "Volatile"},
    "Color Scheme": {"map", "costmap", "raw"},
    "Style": {"Points", "Squares", "Flat Squares", "Spheres", "Boxes", "Tiles"},
    "Color Transformer": {"Intensity", "RGB8", "RGBF32", "AxisColor", "FlatColor"},
    "Pose Style": {"None", "Axes", "Arrows"},
    "Plane": {"XY", "XZ", "YZ"},
}


def displays(rows):
    for row in rows:
        if row["Class"] == "rviz_common/Group":
            assert set(row) == {"Class", "Name", "Enabled", "Displays"}
            yield from displays(row["Displays"])
        else:
            yield row


SHOWN = list(displays(MANAGER["Displays"]))


@pytest.mark.parametrize("display", SHOWN, ids=lambda display: display["Name"])
def test_rviz_display_has_known_class_keys_values_and_a_topic_of_its_type(display):
    package, _, kind = display["Class"].partition("/")
    assert package == "rviz_default_plugins"
    message_type, keys = DISPLAYS[kind]
    expected = COMMON | keys | ({"Topic"} if message_type else set())
    assert set(display) == expected
    for key, allowed in CHOICES.items():
        assert display.get(key, next(iter(allowed))) in allowed
    if message_type is None:
        return
    topic = display["Topic"]
    assert set(topic) == TOPIC_KEYS | ({"Filter size"} if kind in FILTERED else set())
    assert topic["Depth"] >= 1 and all(topic[key] in CHOICES[key] for key in CHOICES if key in topic)
    assert TYPES[topic["Value"]] == message_type
    if QUALITY.get(topic["Value"]) == "sensor":
        assert topic["Reliability Policy"] == "Best Effort", "a reliable display never hears a best-effort publisher"
    assert topic["Durability Policy"] == "Volatile", "streams are volatile"
    if kind == "Map":
        assert set(display["Update Topic"]) == TOPIC_KEYS
        assert display["Update Topic"]["Value"] == topic["Value"] + "_updates"


def test_rviz_shows_every_output_that_it_can_show():
    shown = {display["Topic"]["Value"] for display in SHOWN if "Topic" in display}
    viewable = {kind for kind, _ in DISPLAYS.values() if kind}
    many_channels = {"bev/embedding"}  # a float image of many channels: bev/view is its picture
    assert {name for name, t in OUTPUTS.items() if t.type in viewable} - many_channels <= shown


def test_rviz_file_has_the_parts_that_its_loader_reads():
    assert set(RVIZ) == {"Panels", "Visualization Manager", "Window Geometry"}
    assert set(MANAGER) == {
        "Class", "Displays", "Enabled", "Global Options", "Name", "Tools", "Transformation", "Value", "Views"
    }  # fmt: skip
    assert set(MANAGER["Global Options"]) == {"Background Color", "Fixed Frame", "Frame Rate"}
    assert MANAGER["Transformation"] == {"Current": {"Class": "rviz_default_plugins/TF"}}
    assert all(panel["Class"].startswith("rviz_common/") and panel["Name"] for panel in RVIZ["Panels"])
    tools = {"Interact", "MoveCamera", "Select", "FocusCamera", "Measure", "SetInitialPose", "SetGoal", "PublishPoint"}
    assert {tool["Class"].rpartition("/")[2] for tool in MANAGER["Tools"]} <= tools
    views = {"Orbit", "TopDownOrtho", "XYOrbit", "ThirdPersonFollower", "FPS"}
    for view in (MANAGER["Views"]["Current"], *MANAGER["Views"]["Saved"]):
        assert view["Class"].rpartition("/")[2] in views
    pictures = {display["Name"] for display in SHOWN if display["Class"].endswith("/Image")}
    assert pictures <= set(RVIZ["Window Geometry"])


# ---------------------------------------------------------------- names


def test_nodes_name_no_absolute_topic_but_clock_and_diagnostics():
    allowed = {"/diagnostics", "/clock"}
    for file in (SHARE / "wm_ros" / "nodes").glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in (
                "create_publisher",
                "create_subscription",
            ):
                literals = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                assert {name for name in literals if name.startswith("/")} <= allowed, Path(file).name
