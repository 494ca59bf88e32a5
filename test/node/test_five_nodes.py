"""The five nodes with the bundles that ship, on simulated sensors: every output comes, with the stamp of its source."""

from __future__ import annotations

import numpy as np

from wm_ros import messages, topics
from wm_ros.data.simulator import drive_samples, tabletop_samples
from wm_ros.nodes.future_predictor import FuturePredictor
from wm_ros.nodes.lidar_encoder import LidarEncoder
from wm_ros.nodes.monitor import Monitor
from wm_ros.nodes.policy import Policy
from wm_ros.nodes.state_tokenizer import StateTokenizer
from wm_ros.types import ActionChunk, Boxes, Frame, HandTrajectory, JointForecast, MotionQuery, Sweep

NODES = (LidarEncoder, StateTokenizer, FuturePredictor, Policy, Monitor)


def feed(bench, samples, trigger, last):
    """Publish samples in order; after each `trigger` wait until `last` has been heard. Returns the triggers' stamps."""
    stamps = []
    for sample in (s for s in samples if not isinstance(s, Boxes | HandTrajectory)):  # nobody subscribes to the truth
        bench.publish(sample)
        if isinstance(sample, trigger):
            stamps.append(sample.stamp_ns)
            heard = len(bench.heard[last])
            bench.until(lambda h=heard: len(bench.heard[last]) > h, f"{last} for sample {len(stamps)}", 20.0)
    return stamps


def test_every_topic_of_every_node_speaks_and_carries_the_stamp_of_what_it_saw(bench):
    outputs = {t.name: t for node in NODES for t in topics.OUTPUTS[node.name]}
    bench.listen(*outputs, "/diagnostics")
    nodes = {kind.name: bench.active(kind, max_age_s=0.0, input_timeout_s=60.0) for kind in NODES}
    for name, inputs in (
        ("lidar_encoder", ("points", "odom")),
        ("state_tokenizer", ("image",)),
        ("future_predictor", ("image", "joint_states", "instruction", "future/query")),
        ("policy", ("joint_states", "instruction")),
        ("monitor", ("points", "odom", "image", "joint_states", "joint_commands")),
    ):
        bench.connect(nodes[name], *inputs)
    cloud_stamps = feed(bench, drive_samples(7, 0.8, beams=32, azimuths=600), Sweep, "bev/occupancy/t_2000")
    image_stamps = feed(bench, tabletop_samples(7, 1.2), Frame, "action_chunk")
    bench.until(lambda: bench.heard["future/strip"], "frames to come", 20.0)
    bench.until(lambda: bench.heard["monitor/surprise"], "the first error", 20.0)
    bench.publish(MotionQuery(0, "", ("kRightElbow",), np.array([1.0]), np.array([[0.3]], np.float32)))
    bench.until(lambda: bench.heard["future/answer"], "the answer to a question", 20.0)
    model = nodes["lidar_encoder"].capability.model
    silent = [] if model.detector is not None else ["bev/detections"]  # a bundle may lack the head
    silent.append("action_step")  # only while the policy executes its chunks
    if not nodes["future_predictor"].capability.config.subtasks:
        silent.append("future/subtask")
    assert {name for name in outputs if not bench.heard[name]} == set(silent)

    for name in ("bev/tokens", "bev/embedding", "bev/view", "bev/occupancy/t_1000"):
        assert {stamp(bench, name, cdr) for cdr in bench.heard[name]} <= set(cloud_stamps), name
    for name in (
        "state/tokens",
        "state/motion",
        "state/reconstruction",
        "future/strip",
        "future/answer",
        "future/hand_right",
    ):
        assert {stamp(bench, name, cdr) for cdr in bench.heard[name]} <= set(image_stamps), name
    assert {t.stamp_ns for t in bench.decoded("action_chunk", ActionChunk)} <= set(image_stamps)
    assert {t.stamp_ns for t in bench.decoded("future/joints", JointForecast)} <= set(image_stamps)
    rows = dict(messages.decode_numbers(bench.heard["monitor/surprise"][-1]))
    assert {"occupancy", "actions"} <= set(rows)
    for node in topics.NODES:
        bench.until(lambda n=node: bench.status(f"{n}: cycle").name, f"diagnostics of {node}")
        assert bench.status(f"{node}: refused").values == {}


def stamp(bench, name, cdr):
    """Stamp of the header with which every output but the monitor's begins."""
    type_name = next(t.type for row in topics.OUTPUTS.values() for t in row if t.name == name)
    header = messages.TYPESTORE.deserialize_cdr(cdr, type_name).header.stamp
    return header.sec * 10**9 + header.nanosec
