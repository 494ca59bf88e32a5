"""Bags as demonstrations: header stamps, not receipt; several cameras; borders from a topic; refusals in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from demonstration_parts import RATE_HZ, SECOND, at, command, frame, grey, joints, steps

from wm_ros.data.bag_demonstrations import BagChoice, bag_demonstration, camera_name
from wm_ros.data.bags import BagWriter, write_bag
from wm_ros.data.demonstrations import Demonstrations, Form
from wm_ros.errors import BagError
from wm_ros.messages import encode_sample
from wm_ros.messages.cdr import make, serialise
from wm_ros.types import EpisodeMark, Frame, Instruction, JointCommand, Joints, Sample

FORM = Form(RATE_HZ, ("a", "b"), ("a", "b"), ("camera",))
WALL = 1_700_000_000 * SECOND  # of a computer whose robot lives in simulated time


def write(path: Path, messages: list[tuple[tuple[str, str] | None, int, Sample | bytes]], licence: str = "") -> Path:
    """A bag of (topic and type, or None for the one of the stack; time of receipt; sample or bytes)."""
    with BagWriter(path, licence=licence) as writer:
        for topic, t_ns, content in messages:
            ours, cdr = encode_sample(content)[0] if isinstance(content, Sample) else (None, content)
            writer.write(topic or ours, t_ns, cdr)
    return path


def std(kind: str, *data) -> bytes:
    """A message of std_msgs."""
    return serialise(
        make(f"std_msgs/{kind}", **({"data": data[0]} if data else {"structure_needs_at_least_one_member": 0}))
    )


def read(path: Path, form: Form = FORM, **choice):
    found = Demonstrations(form)
    return [list(rows) for _, rows in found.episodes(bag_demonstration(path, BagChoice(**choice)).samples())]


def counted(rows):
    return [int(row.state[0]) for row in rows]


def test_header_stamps_decide_and_not_the_time_of_receipt(tmp_path):
    """Images come 0.3 s late, words have no stamp, and the clock of the recorder is not that of the robot."""
    messages = []
    for sample in steps(0, 20, ""):
        delay = 0.3 if isinstance(sample, Frame) else 0.001
        messages.append((None, WALL + sample.stamp_ns - at(0) + round(delay * SECOND), sample))
    messages.append((None, WALL + at(10) - at(0) + SECOND // 100, Instruction(0, "", "now")))
    messages.append((None, WALL - SECOND, Instruction(0, "", "first")))
    bag = write(tmp_path / "bag", sorted(messages, key=lambda m: m[1]))
    (rows,) = read(bag)
    assert counted(rows) == list(range(21))
    assert [int(row.images["camera"][0, 0, 0]) for row in rows] == [20 + 5 * k for k in range(21)]
    assert [row.task for row in rows] == ["first"] * 10 + ["now"] * 11


def test_a_command_without_stamp_counts_when_it_came(tmp_path):
    messages = [(None, WALL + s.stamp_ns, s) for s in steps(0, 9) if not isinstance(s, JointCommand)]
    messages += [
        (None, WALL + at(k) + 1, JointCommand(0, "", ("a", "b"), command(k).position_rad)) for k in range(0, 10, 3)
    ]
    (rows,) = read(write(tmp_path / "bag", sorted(messages, key=lambda m: m[1])))
    assert [int(row.action[0]) - 100 for row in rows] == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]


def test_a_bag_without_any_stamps_goes_by_receipt(tmp_path):
    messages = [(None, s.stamp_ns, type(s)(0, *list(vars(s).values())[1:])) for s in steps(0, 9)]
    (rows,) = read(write(tmp_path / "bag", messages))
    assert counted(rows) == list(range(10)) and {row.task for row in rows} == {"go"}


def two_cameras(path: Path) -> Path:
    image = "sensor_msgs/msg/Image"
    messages = []
    for step in range(6):
        messages += [(None, at(step), joints(step)), (None, at(step), command(step))]
        for number, topic in enumerate(("/head/color/image_raw", "/wrist/image_raw", "/state/reconstruction")):
            messages.append(((topic, image), at(step), frame(step, "optical", grey(step) // (number + 1))))
    return write(path, messages)


def test_cameras_are_named_and_read_apart(tmp_path):
    bag = two_cameras(tmp_path / "bag")
    cameras = {"wrist": "wrist/image_raw", "head": "/head/color/image_raw"}
    assert bag_demonstration(bag, BagChoice(cameras=cameras)).cameras == ("wrist", "head")
    (rows,) = read(bag, Form(RATE_HZ, ("a",), ("a",), ("wrist", "head")), cameras=cameras)
    assert [int(row.images["head"].mean()) for row in rows] == [20 + 5 * k for k in range(6)]
    assert [int(row.images["wrist"].mean()) for row in rows] == [(20 + 5 * k) // 2 for k in range(6)]


def test_which_images_are_cameras_is_asked_where_it_is_not_clear(tmp_path):
    with pytest.raises(BagError, match=r"NAME=TOPIC for each of them: /head/color/image_raw, /wrist/image_raw$"):
        bag_demonstration(two_cameras(tmp_path / "bag"), BagChoice())


@pytest.mark.parametrize(
    ("topic", "name"),
    [("/head/color/image_raw", "head"), ("image", "camera"), ("/robot/left_eye/compressed", "robot_left_eye")],
)
def test_a_camera_is_named_by_its_topic(topic, name):
    assert camera_name(topic) == name


def test_the_raw_image_goes_before_the_compressed_one(tmp_path, caplog):
    from cv2 import imencode

    jpeg = imencode(".jpg", grey(0))[1].ravel()
    head = make("std_msgs/Header", stamp=make("builtin_interfaces/Time", sec=1000, nanosec=0), frame_id="")
    compressed = serialise(make("sensor_msgs/CompressedImage", header=head, format="jpeg", data=jpeg))
    twin = [(("image/compressed", "sensor_msgs/msg/CompressedImage"), at(0), compressed)]
    both = write(tmp_path / "both", [(None, s.stamp_ns, s) for s in steps(0, 3)] + twin)
    assert bag_demonstration(both, BagChoice()).cameras == ("camera",)
    assert counted(read(both)[0]) == [0, 1, 2, 3] and not caplog.records
    one = [(None, s.stamp_ns, s) for s in steps(0, 3) if not isinstance(s, Frame)]
    assert [type(s) for s in bag_demonstration(write(tmp_path / "one", one + twin), BagChoice()).samples()].count(
        Frame
    ) == 1


def test_topics_of_other_names_are_mapped(tmp_path):
    state = "sensor_msgs/msg/JointState"
    messages = []
    for step in range(4):
        messages += [
            (("/arm/is", state), at(step), joints(step)),
            (("/arm/want", state), at(step), joints(step, step + 1)),
        ]
        messages.append((None, at(step), frame(step)))
    bag = write(tmp_path / "bag", messages)
    with pytest.raises(BagError, match=r"no topic joint_states; say which it is: --topic /arm/is=joint_states$"):
        bag_demonstration(bag, BagChoice())
    with pytest.raises(BagError, match=r"no topic joint_commands; say which it is: --topic /arm/want=joint_commands$"):
        bag_demonstration(bag, BagChoice({"/arm/is": "joint_states"}))
    (rows,) = read(bag, topics={"/arm/is": "joint_states", "arm/want": "joint_commands"})
    assert [(int(row.state[0]), int(row.action[0])) for row in rows] == [(k, k + 1) for k in range(4)]


BORDERS = {
    "Bool": ([(1, False), (3, True), (4, True), (7, False), (9, True)], [[3, 4, 5, 6], [9, 10, 11]]),
    "Int32": ([(0, 0), (4, 0), (5, 1), (8, -1), (10, 2)], [[0, 1, 2, 3, 4], [5, 6, 7], [10, 11]]),
    "String": ([(2, "lift"), (5, ""), (7, "lift")], [[2, 3, 4], [7, 8, 9, 10, 11]]),
    "Empty": ([(4, None), (9, None)], [[0, 1, 2, 3], [4, 5, 6, 7, 8], [9, 10, 11]]),
}


@pytest.mark.parametrize("kind", BORDERS)
def test_borders_come_from_a_topic(tmp_path, kind):
    said, episodes = BORDERS[kind]
    marks = [
        (("/episode", f"std_msgs/msg/{kind}"), at(k) - 1, std(kind, *(() if value is None else (value,))))
        for k, value in said
    ]
    messages = [(None, s.stamp_ns, s) for s in steps(0, 11)] + marks
    bag = write(tmp_path / "bag", sorted(messages, key=lambda m: m[1]))
    assert [counted(rows) for rows in read(bag, borders="episode")] == episodes
    assert counted(read(bag)[0]) == list(range(12)), "without the option the topic says nothing"


def test_each_new_instruction_may_begin_an_episode(tmp_path):
    said = [Instruction(0, "", text) for text in ("lift", "lift", "put")]
    messages = [(None, s.stamp_ns, s) for s in steps(0, 11, "")]
    messages += [(None, at(k) - 1, words) for k, words in zip((0, 3, 7), said, strict=True)]
    found = read(write(tmp_path / "bag", sorted(messages, key=lambda m: m[1])), borders="instruction")
    assert [[(int(row.state[0]), row.task) for row in rows][:: len(rows) - 1] for rows in found] == [
        [(0, "lift"), (6, "lift")],
        [(7, "put"), (11, "put")],
    ]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"cameras": {"head": "/none"}}, "--camera names the topic '/none', which is not there; it has /image"),
        (
            {"cameras": {"head": "/joint_states"}},
            "--camera takes Image or CompressedImage; '/joint_states' is sensor_msgs",
        ),
        ({"borders": "/none"}, "--episodes-from names the topic '/none'"),
        ({"borders": "image"}, "--episodes-from takes Empty, Bool, String .*; '/image' is sensor_msgs/msg/Image"),
        ({"topics": {"/none": "joint_states"}}, "--topic names the topic '/none'"),
        ({"topics": {"/image": "joint_states"}}, "'joint_states' takes sensor_msgs/msg/JointState"),
    ],
)
def test_a_choice_that_does_not_fit_is_one_line(tmp_path, choice, said):
    bag = tmp_path / "bag"
    write_bag(bag, steps(0, 3))
    with pytest.raises(BagError, match=said) as error:
        bag_demonstration(bag, BagChoice(**choice))
    assert "\n" not in str(error.value)


def test_an_empty_bag_is_refused(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic(("/joint_states", "sensor_msgs/msg/JointState"))
    with pytest.raises(BagError, match="holds no message; leave it out"):
        bag_demonstration(tmp_path / "bag", BagChoice())


def test_joints_that_are_not_finite_are_left_out_with_a_warning(tmp_path, caplog):
    broken = make(
        "sensor_msgs/JointState",
        header=make("std_msgs/Header", stamp=make("builtin_interfaces/Time", sec=1000, nanosec=5), frame_id=""),
        name=["a", "b"],
        position=np.array([np.nan, 0.0]),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )
    messages = [(None, s.stamp_ns, s) for s in steps(0, 3)]
    messages.insert(4, (("joint_states", "sensor_msgs/msg/JointState"), at(0), serialise(broken)))
    (rows,) = read(write(tmp_path / "bag", messages, "CC0-1.0"))
    assert counted(rows) == [0, 1, 2, 3]
    assert "1 messages on /joint_states left out (JointState.position: 1 of 2 values are not finite)" in caplog.text
    assert bag_demonstration(tmp_path / "bag", BagChoice()).licence == "CC0-1.0"


def test_marks_come_before_samples_of_their_stamp(tmp_path):
    write_bag(tmp_path / "bag", steps(0, 3))
    first = next(bag_demonstration(tmp_path / "bag", BagChoice(borders="instruction")).samples())
    assert first == EpisodeMark(at(0), "", begins=False) and Joints is not type(first)
