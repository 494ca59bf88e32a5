"""The monitor hears predictions and the world over DDS and says how wrong they were."""

from __future__ import annotations

import numpy as np
import pytest
from workbench import joints

from wm_ros import messages
from wm_ros.kinematics import G1_JOINTS
from wm_ros.messages.motion import encode_joint_trajectory
from wm_ros.nodes.monitor import Monitor
from wm_ros.types import ActionChunk

PERIOD_NS = 10**9 // 15


def test_a_chunk_is_scored_once_its_time_has_come(bench):
    bench.listen("monitor/surprise", "/diagnostics")
    node = bench.active(Monitor, max_age_s=0.0, score_images=False)
    bench.connect(node, "joint_states", "action_chunk")
    start = 100 * 10**9
    offsets = np.arange(1, 16) / 15
    chunk = ActionChunk(start, "", G1_JOINTS, offsets, np.full((15, 26), 0.35, np.float32))
    bench.publish_bytes("action_chunk", encode_joint_trajectory(chunk))
    bench.until(lambda: node.heard_count.get("action_chunk"), "the chunk is there")
    for step in range(-5, 16):
        bench.publish(joints(start + step * PERIOD_NS, 0.1))
        bench.spin(0.02)
        if step == 6:
            assert not bench.heard["monitor/surprise"], "before its time nothing is known"
    bench.until(lambda: bench.heard["monitor/surprise"], "the error of the chunk")
    (name, (last, running)), *others = messages.decode_numbers(bench.heard["monitor/surprise"][-1])
    assert (name, others) == ("actions", [])
    assert last == running == pytest.approx(0.25 / 0.01, rel=1e-3), "0.25 rad, where holding errs by less than 0.01"
    bench.until(lambda: bench.status("monitor: action 0.5s").name, "the diagnostics have a line for it")
    assert float(bench.status("monitor: action 0.5s").values["mean"]) == pytest.approx(0.25, rel=1e-3)


def test_predicted_images_are_not_asked_for_where_they_are_not_to_be_scored(bench):
    node = bench.active(Monitor, score_images=False)
    assert not [name for name in node._inputs if name.startswith("future/image")]
