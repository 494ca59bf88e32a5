"""`wm convert bag`: folders of bags and simulations to a dataset, refusals in one line, nothing overwritten."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from demonstration_parts import RATE_HZ, at, command, frame, joints, steps

from wm_ros.cli_recordings import convert_bag
from wm_ros.data.bag_demonstrations import BagChoice
from wm_ros.data.bags import BagWriter, write_bag
from wm_ros.data.lerobot import lerobot_episodes
from wm_ros.data.lerobot_convert import ConvertOptions, write_dataset
from wm_ros.data.sources import episodes
from wm_ros.errors import UserError
from wm_ros.messages import encode_sample
from wm_ros.training.aligned import align
from wm_ros.types import Frame, Instruction, JointCommand, Joints

OPTIONS = ConvertOptions(rate_hz=RATE_HZ)


def wm(*arguments):
    return subprocess.run([sys.executable, "-m", "wm_ros.cli", *map(str, arguments)], capture_output=True, text=True)


def values(source: str) -> list[list[float]]:
    """First joint of each step of each episode."""
    return [[s.position_rad[0] for s in e.samples() if type(s) is Joints] for e in episodes(source)]


def test_each_bag_of_a_folder_is_at_least_one_episode(tmp_path):
    write_bag(tmp_path / "bags/a", steps(0, 5, "lift"), licence="MIT")
    write_bag(tmp_path / "bags/b", steps(0, 3, "put") + steps(30, 34, "lift"), licence="CC0-1.0")
    done = write_dataset(str(tmp_path / "bags"), tmp_path / "set", OPTIONS)
    assert (done.episodes, done.steps, done.tasks, done.licence) == (3, 15, ("lift", "put"), "CC0-1.0; MIT")
    assert values(str(tmp_path / "set")) == [list(range(6)), list(range(4)), list(range(30, 35))]
    assert lerobot_episodes(tmp_path / "set", [], {})[0].licence == "CC0-1.0; MIT"
    card = (tmp_path / "set/README.md").read_text()
    assert "- a: episodes 0 to 0, MIT" in card and "- b: episodes 1 to 2, CC0-1.0" in card


def test_a_simulation_is_what_training_sees_of_it_directly(tmp_path):
    source = "sim:tabletop?seeds=3-4&seconds=1.5&width=64&height=48"
    done = write_dataset(source, tmp_path / "set", ConvertOptions(size=(64, 48)))
    assert done.licence == "Apache-2.0 (simulated)" and done.form.cameras == ("camera",)
    direct, read = (
        align(s, done.form.state, tmp_path / "cache", width=64, height=48) for s in (source, str(tmp_path / "set"))
    )
    assert len(direct) == len(read) == done.steps and list(direct.starts) == list(read.starts)
    for field in ("joints", "commands", "hands"):
        np.testing.assert_allclose(read[field], direct[field], atol=1e-6, err_msg=field)
    assert [read.texts[i] for i in read["text"]] == [direct.texts[i] for i in direct["text"]]
    assert np.abs(read["frames"].astype(int) - direct["frames"]).mean() < 6


def test_arms_of_two_topics_make_one_state(tmp_path):
    left = [s for k in range(5) for s in (joints(k, names=("a",)), command(k, names=("a",)), frame(k))]
    with BagWriter(tmp_path / "bag") as writer:
        for sample in left:
            ((topic, cdr),) = encode_sample(sample)
            writer.write(topic, sample.stamp_ns, cdr)
            if isinstance(sample, Joints):
                other = replace(sample, names=("g",), position_rad=sample.position_rad / 2)
                writer.write((f"right/{topic.name}", topic.type), sample.stamp_ns, encode_sample(other)[0][1])
    topics = {f"{side}joint_{kind}": f"joint_{kind}" for side in ("", "right/") for kind in ("states", "commands")}
    done = write_dataset(str(tmp_path / "bag"), tmp_path / "set", replace(OPTIONS, task="go", bags=BagChoice(topics)))
    assert done.form.state == done.form.action == ("a", "g") and done.steps == 5
    (episode,) = episodes(str(tmp_path / "set"))
    assert [list(s.position_rad) for s in episode.samples() if type(s) is Joints] == [[k, k / 2] for k in range(5)]


def no(kind):
    return [s for s in steps(0, 5) if type(s) is not kind]


@pytest.mark.parametrize(
    ("bags", "options", "said"),
    [
        ([no(Joints)], OPTIONS, "no topic joint_states; record it (JointState) too"),
        ([no(JointCommand)], OPTIONS, "no topic joint_commands; record it (JointState) too"),
        ([no(Instruction)], OPTIONS, "an episode without instruction; give one with --task"),
        ([steps(0, 5), no(Frame)], OPTIONS, "'1' has no camera 'camera', which '0' has"),
        ([steps(0, 5), []], OPTIONS, "holds no message"),
        ([steps(0, 0)], OPTIONS, "'0' has no two steps with joints (a, b, …), commands, images of camera"),
        ([steps(0, 5)], replace(OPTIONS, joints=("a", "q")), "'0' has no joint 'q' as --joints asks; it has a, b"),
        (
            [[*steps(0, 2), frame(3, rgb=np.zeros((16, 24, 3), np.uint8)), joints(4), frame(4)]],
            OPTIONS,
            "images of 24x16, before 48x32; scale all with --size 48x32",
        ),
    ],
)
def test_recordings_that_make_no_dataset_are_one_line(tmp_path, bags, options, said):
    for number, samples in enumerate(bags):
        write_bag(tmp_path / f"bags/{number}", samples)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        write_dataset(str(tmp_path / "bags"), tmp_path / "set", options)
    assert "\n" not in str(error.value)


def test_options_of_bags_are_refused_for_what_is_no_bag(tmp_path):
    with pytest.raises(UserError, match="are for bags, which it has none of"):
        write_dataset("sim:tabletop?seeds=1", tmp_path / "set", replace(OPTIONS, bags=BagChoice(borders="x")))


def test_what_is_left_out_is_said(tmp_path, caplog):
    far = replace(command(3), stamp_ns=at(3) + 10**12)
    write_bag(tmp_path / "bag", [*steps(0, 5), joints(40), command(40), frame(40)])
    with BagWriter(tmp_path / "bags/far") as writer:
        for sample in [*steps(0, 3), far, *steps(4, 5, "")]:
            ((topic, cdr),) = encode_sample(sample)
            writer.write(topic, at(0) if sample is far else sample.stamp_ns, cdr)
    assert write_dataset(str(tmp_path / "bag"), tmp_path / "one", OPTIONS).steps == 6
    assert "1 stretches of less than two steps left out" in caplog.text
    assert write_dataset(str(tmp_path / "bags"), tmp_path / "other", OPTIONS).steps == 6
    assert "1 commands whose stamps are far from those of joints and images left out" in caplog.text


def test_the_command_says_what_it_wrote_and_overwrites_nothing(tmp_path):
    write_bag(tmp_path / "bag", steps(0, 5), licence="MIT")
    write = ["convert", "bag", tmp_path / "bag", tmp_path / "set", "--rate", "10", "--camera", "head=image"]
    result = wm(*write, "--size", "32x24", "--joints", "b,a", "--robot-type", "arm")
    assert result.returncode == 0, result.stderr
    assert "1 episodes, 6 steps at 10 Hz, 1 tasks; cameras: head; licence: MIT" in result.stdout
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert info["fps"] == 10 and info["robot_type"] == "arm"
    assert info["features"]["observation.state"]["names"] == info["features"]["action"]["names"] == ["b", "a"]
    assert info["features"]["observation.images.head"]["shape"] == [24, 32, 3]
    before = (tmp_path / "set/README.md").stat().st_mtime_ns
    again = wm(*write)
    assert again.returncode == 2 and "--force" in again.stderr and "Traceback" not in again.stderr
    assert (tmp_path / "set/README.md").stat().st_mtime_ns == before
    assert wm(*write, "--force").returncode == 0
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["bag", "set"], "nothing half-written is left"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "big"}, "--size 'big' is not WIDTHxHEIGHT"),
        ({"topic": ["/arm"]}, "--topic '/arm': write each once, as in --topic /arm/state=joint_states"),
        ({"camera": ["a=/x", "a=/y"]}, "--camera 'a=/y': write each once"),
        ({"camera": ["a.b=/x"]}, "--camera 'a.b': name it with letters"),
        ({}, "no such file or folder"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, options, said):
    with pytest.raises(UserError, match=re.escape(said)):
        convert_bag(str(tmp_path / "none"), tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()
