"""`wm rollout` as a user runs it: the robot a process, whoever commands it another one, and DDS between them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("metaworld") is None:
    pytest.skip("Meta-World is not installed: pip install 'wm_ros[sim]'", allow_module_level=True)

from wm_ros.data.simulator.metaworld_arm import MetaWorldArm
from wm_ros.data.simulator.metaworld_view import View
from wm_ros.data.video import every_picture
from wm_ros.errors import UserError

EXPERT = Path(__file__).parent / "expert_policy.py"


@pytest.fixture(scope="module", autouse=True)
def drawing():
    try:
        View(MetaWorldArm("reach")).close()
    except UserError as error:
        pytest.skip(str(error))


def rollout(*arguments, timeout_s=240):
    command = [sys.executable, "-m", "wm_ros.cli", "rollout", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)


@pytest.fixture
def expert():
    """Starts the scripted expert as the process that publishes `action_chunk`."""
    started = []

    def start(task, steps=1):
        started.append(subprocess.Popen([sys.executable, str(EXPERT), task, str(steps)]))

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def test_an_expert_that_only_messages_connect_with_the_robot_solves_its_task(expert, tmp_path):
    expert("push", 4)
    ran = rollout("--task", "push", "--episodes", 2, "--seed", 11, "--true-state", "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "out" / "rollout.json").read_text())
    push = report["tasks"]["push"]
    assert push["success"]["hits"] == push["success"]["n"] == 2 and report["mean_success"] == 1.0
    assert [episode["seed"] for episode in push["episodes"]] == [11, 12]
    for episode in push["episodes"]:
        assert episode["chunks"] >= episode["waits"] > 5 and episode["timeouts"] == 0 and episode["refused"] == {}
        assert episode["round_trip_ms"]["median"] > 0 and episode["return"] > 0
    images = sum(episode["waits"] for episode in push["episodes"])
    pictures = [picture for _, picture in every_picture(tmp_path / "out" / "rollout.mp4")]
    # An image on its way when an episode ends may be missed; none is shown twice.
    assert images - 4 <= len(pictures) <= images + 2
    assert pictures[0].shape == (408, 768, 3) and len(np.unique(pictures[0].reshape(-1, 3), axis=0)) > 100
    assert "2 / 2" in ran.stdout


def test_an_expert_of_another_task_is_told_to_have_failed(expert, tmp_path):
    expert("reach", 4)
    ran = rollout("--task", "button-press-topdown", "--episodes", 1, "--true-state", "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    (episode,) = json.loads((tmp_path / "out" / "rollout.json").read_text())["tasks"]["button-press-topdown"][
        "episodes"
    ]
    assert not episode["success"] and episode["steps"] == 250


def test_a_mute_policy_is_one_line_and_leaves_nothing_behind(expert, tmp_path):
    expert("push")  # it answers only what it knows the true state of
    ran = rollout("--task", "push", "--episodes", 3, "--timeout-s", 0.5, "--out", tmp_path / "out")
    assert ran.returncode == 2
    lines = [line for line in ran.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "no action_chunk that the robot can use (none came" in lines[0]
    assert "Traceback" not in ran.stderr and not (tmp_path / "out").exists()


def test_the_shipped_policy_opens_a_drawer_it_has_not_seen_also_when_a_camera_fails(tmp_path):
    common = ("--task", "drawer-open", "--policy", "policy-metaworld", "--episodes", 2, "--seed", 100_000)
    for name, more in (("whole", ()), ("off", ("--off", "wrist_image", "--off-after-s", 0.2))):
        ran = rollout(*common, "--image-every", 12, *more, "--out", tmp_path / name)
        assert ran.returncode == 0, ran.stderr
        found = json.loads((tmp_path / name / "rollout.json").read_text())["tasks"]["drawer-open"]
        assert found["timeouts"] == 0 and found["refused"] == 0
        if name == "whole":
            assert found["success"]["hits"] == 2
    blind = rollout(*common, "--image-every", 12, "--blind", "--out", tmp_path / "blind")
    assert blind.returncode == 0, blind.stderr
