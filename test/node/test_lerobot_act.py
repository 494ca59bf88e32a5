"""LeRobot's ACT, trained by LeRobot on our demonstrations, drives our robot: every command, as a user gives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from wm_ros.evaluation.lerobot_peer import VARIABLE

if find_spec("metaworld") is None:
    pytest.skip("Meta-World is not installed: pip install 'wm_ros[sim]'", allow_module_level=True)
if not os.environ.get(VARIABLE):
    pytest.skip(f"set {VARIABLE} to the Python of a virtual environment with lerobot", allow_module_level=True)

from wm_ros.data.simulator.metaworld_arm import TASKS, MetaWorldArm
from wm_ros.data.simulator.metaworld_view import View
from wm_ros.errors import UserError

ROOT = Path(__file__).parents[2]


def run(*command, environment=os.environ):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wm(*arguments):
    return run(sys.executable, "-m", "wm_ros.cli", *arguments)


@pytest.mark.timeout(1800)
def test_from_demonstrations_to_a_rollout(tmp_path):
    try:
        View(MetaWorldArm("reach")).close()
    except UserError as error:
        pytest.skip(str(error))
    wm("simulate", "metaworld", "--task", "reach", "--episodes", 1, "--out", tmp_path / "bags" / "reach")
    cameras = ("--camera", "camera=image", "--camera", "wrist_camera=wrist_image")
    wm("convert", "bag", tmp_path / "bags", tmp_path / "set", "--rate", 80, *cameras)

    crossing = ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH")
    theirs = {k: v for k, v in os.environ.items() if k not in crossing} | {"PYTHONPATH": str(ROOT)}
    train = ("train", tmp_path / "set", "--out", tmp_path / "act", "--minutes", 0.02, "--batch", 4)
    small = ("--parameters", 300_000, "--norm", "group", "--lr", 1e-3, "--judge", tmp_path / "set")
    said = run(os.environ[VARIABLE], ROOT / "tools" / "lerobot_act.py", *train, *small, environment=theirs)
    assert "of 1 episodes" in said
    notes = json.loads((tmp_path / "act" / "peer.json").read_text())
    assert notes["shape"]["tasks"] == [TASKS["reach"].text] and notes["shape"]["cameras"] == ["camera", "wrist_camera"]
    assert notes["shape"]["rate_hz"] == 80 and notes["curve"][-1]["step"] >= 1
    assert len(notes["judged"]["act@0.2s"]) == 1 and notes["judged"]["act@0.2s"] != notes["judged"]["hold@0.2s"]

    node = subprocess.Popen([sys.executable, str(ROOT / "tools" / "lerobot_act_node.py"), str(tmp_path / "act")])
    try:
        wm("rollout", "--task", "reach", "--episodes", 1, "--timeout-s", 60, "--out", tmp_path / "rollout")
    finally:
        node.terminate()
        node.wait(30)
    (episode,) = json.loads((tmp_path / "rollout" / "rollout.json").read_text())["tasks"]["reach"]["episodes"]
    assert episode["chunks"] >= episode["waits"] > 5
    assert episode["timeouts"] == 0 and episode["refused"] == {}
