"""A policy node that sees images itself: sensors fail one after another, and diagnostics say what it acts without."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from wm_ros.nodes.policy import Policy
from wm_ros.types import ActionChunk, Frame, Joints, WristFrame

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from policy_parts import NAMES, write_bundle
from test_policy_images import CONFIG


def picture(seed):
    return np.random.default_rng(seed).integers(0, 255, (40, 48, 3), dtype=np.uint8)


@pytest.fixture
def policy(bench, tmp_path):
    bench.listen("action_chunk", "/diagnostics")
    node = bench.active(Policy, bundle=str(write_bundle(tmp_path / "bundle", CONFIG)), input_timeout_s=0.4)
    bench.connect(node, "image", "wrist_image", "joint_states")
    return node


def feed(bench, seconds, *sensors):
    """Publish what still works at 20 Hz; how many chunks came of it, and the last one."""
    before = len(bench.heard["action_chunk"])
    for number in range(round(seconds * 20)):
        now = bench.now_ns()
        if "joints" in sensors:
            bench.publish(Joints(now, "", NAMES, np.full(3, 0.1)))
        if "wrist_image" in sensors:
            bench.publish(WristFrame(now, "wrist_camera", picture(number)))
        if "image" in sensors:
            bench.publish(Frame(now, "camera", picture(100 + number)))
        bench.spin(0.05)
    chunks = bench.decoded("action_chunk", ActionChunk)
    return len(chunks) - before, chunks[-1] if chunks else None


def test_it_acts_on_what_is_left_and_says_what_is_missing(bench, policy):
    said, chunk = feed(bench, 1.0, "joints", "wrist_image", "image")
    assert said >= 10 and len(chunk.offsets_s) == CONFIG.chunk_steps
    assert bench.status("policy: sensors").message == "all"
    # The wrist's camera fails, then comes back and the other one fails, then the joints.
    for gone in ("wrist_image", "image", "joints"):
        left = [name for name in ("joints", "wrist_image", "image") if name != gone]
        said, chunk = feed(bench, 1.5, *left)
        assert said >= 10 and len(chunk.offsets_s) == CONFIG.chunk_steps, gone
        status = bench.status("policy: sensors")
        assert status.message == f"without {gone}" and status.level == 1
        if gone != "joints":
            assert f"'{gone}'" in bench.status("policy: inputs").message
    said, _ = feed(bench, 0.6, "joints", "wrist_image", "image")
    assert said >= 5 and bench.status("policy: sensors").message == "all"


def test_without_any_image_the_safe_command_comes(bench, policy):
    feed(bench, 0.5, "joints", "wrist_image", "image")
    _, chunk = feed(bench, 1.2, "joints")
    assert len(chunk.offsets_s) == 1 and np.allclose(chunk.position_rad, 0.1)
