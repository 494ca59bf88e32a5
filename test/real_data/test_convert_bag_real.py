"""Real recordings through a bag into a LeRobot v3.0 dataset, and both layouts as data for a policy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from wm_ros.cli_recordings import convert_lerobot
from wm_ros.data.bag_demonstrations import BagChoice
from wm_ros.data.bags import find_bags
from wm_ros.data.lerobot_convert import ConvertOptions, write_dataset
from wm_ros.data.sources import episodes
from wm_ros.errors import UserError
from wm_ros.kinematics import G1_JOINTS
from wm_ros.training.windows import Windows, align
from wm_ros.types import Frame, Joints

DATA = Path(__file__).parents[2] / os.environ.get("WM_DATA", "../shared/data")
ROBOT = DATA / "robot"
pytestmark = pytest.mark.skipif(not ROBOT.is_dir(), reason=f"no recordings in {ROBOT}; set WM_DATA")
G1 = f"{ROBOT / 'g1_bottle_15hz'}?episodes=36-37"
SO101 = ROBOT / "so101_record_test"


@pytest.fixture(scope="module")
def g1(tmp_path_factory) -> Path:
    """Two episodes of a G1: v2.1 → a bag of each → one v3.0 dataset."""
    folder = tmp_path_factory.mktemp("g1")
    convert_lerobot(f"{ROBOT / 'g1_bottle_15hz'}?licence=MIT", folder / "bags", "36-37")
    options = ConvertOptions(bags=BagChoice(cameras={"cam_high": "image"}))
    done = write_dataset(str(folder / "bags"), folder / "set", options)
    assert (done.episodes, done.steps, done.licence, done.form.state) == (2, 415, "MIT", G1_JOINTS)
    return folder


def test_both_layouts_give_a_policy_the_same_windows(g1, tmp_path):
    """The same episodes as recorded (v2.1) and as written (v3.0), through the path that training takes."""
    old, new = (align(s, G1_JOINTS, tmp_path, width=256, height=192) for s in (G1, str(g1 / "set")))
    assert old.texts == new.texts and list(old.starts) == list(new.starts) == [0, 199, 415]
    for field in ("joints", "commands", "hands", "text", "phase"):
        np.testing.assert_array_equal(new[field], old[field], err_msg=field)
    error = np.square(new["frames"].astype(np.float32) - old["frames"]).mean((1, 2, 3))
    assert (10 * np.log10(255**2 / error)).min() > 33
    cut = [Windows([(a, [0, 1])], history=8, future=15, past=("joints",))[300] for a in (old, new)]
    assert all((cut[0][name] == cut[1][name]).all() for name in ("joints", "commands_future", "pad_future"))


def test_a_policy_takes_the_written_dataset(g1, tmp_path):
    """A few steps only: that it begins, learns something finite, and names the licence that the bags carried."""
    from wm_ros.training.loop import train

    bundle = train("policy", [str(g1 / "set")], tmp_path / "run", steps=2)
    assert json.loads((bundle / "config.json").read_text())["training"]["data_licence"] == "MIT"
    last = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[-1])
    assert all(np.isfinite(value) for value in last.values() if isinstance(value, float))


def test_a_bag_at_another_rate_holds_the_last_sample(g1, tmp_path):
    done = write_dataset(str(find_bags(g1 / "bags")[0]), tmp_path / "set", ConvertOptions(rate_hz=10))
    (recorded,) = episodes(G1.replace("36-37", "36"))
    joints = [s for s in recorded.samples() if type(s) is Joints]
    (read,) = episodes(str(tmp_path / "set"))
    for step, sample in enumerate(s for s in read.samples() if type(s) is Joints):
        held = [s for s in joints if s.stamp_ns <= joints[0].stamp_ns + round(step * 1e8) + 2_000_000][-1]
        np.testing.assert_array_equal(sample.position_rad, held.position_rad)
    assert done.steps == 133


def test_a_v3_dataset_is_written_again_as_lerobot_wrote_it(tmp_path):
    """Tables, schemas and statistics of an SO-101 beside those of LeRobot (whose quantiles are binned)."""
    done = write_dataset(str(SO101), tmp_path / "set", ConvertOptions(rate_hz=30, robot_type="so101_follower"))
    assert (done.episodes, done.steps, done.form.cameras) == (4, 1492, ())
    of = "data/chunk-000/file-000.parquet"
    ours, theirs = (pq.read_table(root / of) for root in (tmp_path / "set", SO101))
    assert {f.name: f.type for f in ours.schema} == {f.name: f.type for f in theirs.schema}
    for name in ("observation.state", "action", "frame_index", "episode_index", "index", "task_index"):
        assert ours.column(name).to_pylist() == theirs.column(name).to_pylist(), name
    np.testing.assert_allclose(ours.column("timestamp"), theirs.column("timestamp"), atol=1e-6)
    of = "meta/episodes/chunk-000/file-000.parquet"
    ours, theirs = (pq.read_table(root / of) for root in (tmp_path / "set", SO101))
    types = {f.name: str(f.type) for f in theirs.schema}
    assert {f.name: str(f.type) for f in ours.schema} == {
        n: t for n, t in types.items() if "observation.images" not in n
    }
    assert (
        pq.read_schema(tmp_path / "set/meta/tasks.parquet").names == pq.read_schema(SO101 / "meta/tasks.parquet").names
    )
    stats, wanted = (json.loads((root / "meta/stats.json").read_text()) for root in (tmp_path / "set", SO101))
    for key in ("observation.state", "action", "timestamp", "frame_index", "index"):
        for name in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(
                stats[key][name], wanted[key][name], rtol=1e-4, atol=1e-4, err_msg=f"{key} {name}"
            )
    for key in ("observation.state", "action"):
        spread = np.subtract(wanted[key]["max"], wanted[key]["min"])
        for row in range(4):
            for level in ("q01", "q10", "q50", "q90", "q99"):
                one, other = (t.column(f"stats/{key}/{level}")[row].as_py() for t in (ours, theirs))
                assert (np.abs(np.subtract(one, other)) <= 0.02 * spread + 1e-6).all(), (key, row, level)


def test_a_v3_dataset_without_images_says_that_a_policy_needs_them(tmp_path):
    (names,) = {s.names for e in episodes(f"{SO101}?episodes=0") for s in e.samples() if type(s) is Joints}
    with pytest.raises(UserError, match="so101_record_test-000000' has no images with joints to learn from"):
        align(str(SO101), names, tmp_path)


def test_av1_at_30_hz_becomes_h264_at_15(tmp_path):
    source = f"{ROBOT / 'g1_bottle'}?episodes=29&end_s=2"
    done = write_dataset(source, tmp_path / "set", ConvertOptions(size=(320, 240)))
    assert (done.steps, done.form.cameras, done.licence) == (30, ("cam_high",), "MIT")
    (read,) = episodes(str(tmp_path / "set"))
    assert {s.rgb.shape for s in read.samples() if isinstance(s, Frame)} == {(240, 320, 3)}


@pytest.mark.parametrize("name", ["gps_nav_bag", "nebula_vlp16"])
def test_bags_of_other_robots_are_refused_in_one_line(name, tmp_path):
    with pytest.raises(UserError, match=r"no topic joint_states; record it \(JointState\) too") as error:
        write_dataset(str(DATA / "rosbag" / name), tmp_path / "set", replace(ConvertOptions(), task="drive"))
    assert "\n" not in str(error.value)


@pytest.mark.timeout(900)
def test_lerobot_itself_reads_the_dataset(g1):
    """In the virtual environment of WM_LEROBOT, see tools/check_lerobot.py."""
    python = os.environ.get("WM_LEROBOT", "")
    if not python:
        pytest.skip("set WM_LEROBOT to the Python of a virtual environment with lerobot (see tools/check_lerobot.py)")
    crossing = ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH")  # the ROS wheels set them for this Python
    environment = {k: v for k, v in os.environ.items() if k not in crossing}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [python, root / "tools/check_lerobot.py", g1 / "set", "--source", g1 / "bags"],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(root)},
    )
    print(done.stdout, file=sys.stderr)
    assert done.returncode == 0 and "all checks passed" in done.stdout, done.stdout + done.stderr
