"""Recordings cut into episodes and rows: the last sample by stamp, joints by name, borders by silence and by marks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from demonstration_parts import RATE_HZ, SECOND, at, command, frame, joints, steps

from wm_ros.data.demonstrations import Demonstrations, Form, form_of
from wm_ros.data.fixed_rate import at_rate
from wm_ros.errors import UserError
from wm_ros.types import EgoPose, EpisodeMark, Instruction, JointCommand, Joints

FORM = Form(RATE_HZ, ("a", "b"), ("a", "b"), ("camera",))


def cut(samples, form=FORM, **changes):
    """Rows of each episode, and the demonstrations."""
    found = Demonstrations(form, **changes)
    return [list(rows) for _, rows in found.episodes(samples)], found


def counted(rows):
    return [int(row.state[0]) for row in rows]


def test_each_step_holds_the_last_sample_by_stamp_and_never_a_later_one():
    fast = [joints(k / 4) for k in range(41)]  # four measurements in a step
    slow = [s for k in range(0, 11, 2) for s in (command(k), frame(k))]
    ((*rows,),), _ = cut(sorted(fast + slow, key=lambda s: s.stamp_ns))
    assert counted(rows) == list(range(11))
    assert [row.state[1] for row in rows] == [-row.state[0] for row in rows]
    assert [int(row.action[0]) - 100 for row in rows] == [k // 2 * 2 for k in range(11)]
    assert [int(row.images["camera"][0, 0, 0]) for row in rows] == [20 + 5 * (k // 2 * 2) for k in range(11)]


def test_rows_end_with_the_first_stream_that_ends_and_begin_when_all_are_there():
    late = [s for s in steps(0, 9) if not (isinstance(s, JointCommand) and s.stamp_ns < at(3))]
    late = [s for s in late if not (type(s) is Joints and s.stamp_ns > at(7))]
    ((*rows,),), _ = cut(late)
    assert counted(rows) == [3, 4, 5, 6, 7]


def test_a_sample_older_than_its_stream_is_left_out():
    late = replace(joints(1, 55.0), stamp_ns=at(0.5))
    streams = [("joints", s) for s in (joints(0), joints(1), late, joints(2))]
    assert [known["joints"].position_rad[0] for _, known in at_rate(streams, RATE_HZ, ["joints"], ["joints"])] == [
        0,
        1,
        2,
    ]


def test_joints_are_found_by_name_in_whatever_order_and_among_others():
    mixed = [
        replace(s, names=("x", "b", "a"), position_rad=np.array([9.0, *s.position_rad[::-1]]))
        if isinstance(s, Joints) and s.stamp_ns > at(2)
        else s
        for s in steps(0, 5)
    ]
    ((*rows,),), _ = cut(mixed)
    assert counted(rows) == list(range(6)) and all(row.state[1] == -row.state[0] for row in rows)


def test_drivers_that_share_a_topic_make_one_state():
    form = replace(FORM, state=("g", "a"), action=("a", "g"))
    arm = [s for k in range(8) for s in (joints(k, names=("a",)), command(k, names=("a",)), frame(k))]
    gripper = [joints(k, names=("g",)) for k in range(2, 8)] + [command(4, names=("g",))]
    ((*rows,),), _ = cut(sorted(arm + gripper, key=lambda s: s.stamp_ns), form)
    assert [list(row.state) for row in rows] == [[k / 2, k] for k in range(4, 8)]
    assert [list(row.action) for row in rows] == [[100 + k, 102] for k in range(4, 8)]


@pytest.mark.parametrize(
    ("silent", "again"), [(("camera",), 21), (("joints",), 20), (("camera", "joints", "commands"), 20)]
)
def test_a_silence_of_joints_or_camera_ends_an_episode(silent, again):
    """(An image that comes back begins the next episode; the joints of the same stamp came before it.)"""

    def heard(sample):
        name = {Joints: "joints", JointCommand: "commands"}.get(type(sample), "camera")
        return isinstance(sample, Instruction) or name not in silent or not at(5) < sample.stamp_ns < at(20)

    episodes, _ = cut([s for s in steps(0, 25) if heard(s)])
    assert [counted(rows) for rows in episodes if rows] == [list(range(6)), list(range(again, 26))]


def test_a_silence_shorter_than_the_gap_is_bridged_and_commands_may_be_silent():
    quiet = [s for s in steps(0, 25) if isinstance(s, Instruction) or not at(5) < s.stamp_ns < at(14)]
    quiet = [s for s in quiet if not (isinstance(s, JointCommand) and s.stamp_ns > at(2))]
    ((*rows,),), _ = cut(quiet)
    assert counted(rows) == [*range(6), *[5] * 8, *range(14, 26)]
    assert {int(row.action[0]) for row in rows[2:]} == {102}


def test_a_clock_that_jumps_back_begins_another_episode():
    episodes, _ = cut(steps(50, 55) + steps(0, 4))
    assert [counted(rows) for rows in episodes] == [list(range(50, 56)), list(range(5))]


def test_marks_begin_and_end_episodes():
    marks = [EpisodeMark(at(k) - 1, "", begins) for k, begins in ((0, False), (3, True), (8, True), (12, False))]
    samples = sorted(steps(0, 15) + marks, key=lambda s: s.stamp_ns)
    episodes, _ = cut(samples)
    assert [counted(rows) for rows in episodes] == [[3, 4, 5, 6, 7], [8, 9, 10, 11]]


def test_what_was_said_between_episodes_is_in_force_in_the_next():
    marks = [EpisodeMark(at(5) - 1, "", False), EpisodeMark(at(8) - 1, "", True)]
    other = [Instruction(at(6), "", "come back"), Instruction(at(12), "", "stop")]
    samples = sorted(steps(0, 15, "go") + marks + other, key=lambda s: s.stamp_ns)
    found = [(said, [row.task for row in rows]) for said, rows in Demonstrations(FORM).episodes(samples)]
    assert [said for said, _ in found] == ["go", "come back"]
    assert [tasks for _, tasks in found] == [["go"] * 5, [""] * 4 + ["stop"] * 4]
    assert {row.task for rows in cut(samples, task="mine")[0] for row in rows} == {"mine"}


def test_values_that_are_not_finite_are_left_out_and_counted():
    broken = [
        replace(s, position_rad=np.array([np.nan, 0.0]))
        if s is not None and s.stamp_ns == at(4) and type(s) is Joints
        else s
        for s in steps(0, 7)
    ]
    ((*rows,),), found = cut(broken)
    assert counted(rows) == [0, 1, 2, 3, 3, 5, 6, 7] and all(np.isfinite(row.state).all() for row in rows)
    assert found.left_out == {"messages with joints that are not finite": 1}


def test_commands_of_another_clock_are_left_out_and_counted():
    wrong = [
        replace(s, stamp_ns=s.stamp_ns + 10**9 * SECOND) if s.stamp_ns == at(4) and isinstance(s, JointCommand) else s
        for s in steps(0, 7)
    ]
    ((*rows,),), found = cut(wrong)
    assert [int(row.action[0]) for row in rows] == [100, 101, 102, 103, 103, 105, 106, 107]
    assert sum(found.left_out.values()) == 1


def test_images_are_scaled_as_asked_and_an_odd_edge_is_cut_off():
    odd = [frame(k, rgb=np.full((33, 49, 3), k, np.uint8)) for k in range(4)]
    samples = [s for k in range(4) for s in (joints(k), command(k), odd[k])]
    ((*rows,),), _ = cut(samples)
    assert {row.images["camera"].shape for row in rows} == {(32, 48, 3)}
    ((*rows,),), _ = cut(samples, replace(FORM, size=(20, 16)))
    assert {row.images["camera"].shape for row in rows} == {(16, 20, 3)}
    assert [int(row.images["camera"].mean()) for row in rows] == list(range(4))


def test_the_form_is_that_of_the_beginning_in_the_order_of_names():
    samples = [EgoPose(at(0), "odom", "base", np.eye(4)), *steps(0, 3), joints(4, names=("g",)), *steps(40, 41)]
    samples += [joints(42, names=("b",)), frame(43, "wrist/rgb")]
    form = form_of("mine", samples, 10)
    assert (form.state, form.action, form.cameras) == (("a", "b", "g"), ("a", "b"), ("camera",))
    assert form_of("mine", samples, 10, ("g", "b")).action == ("b",)
    assert form_of("mine", [joints(0, names=("b",)), command(0, names=("g", "b")), frame(0, "wrist/rgb")], 5) == Form(
        5, ("b",), ("b", "g"), ("wrist_rgb",)
    )


@pytest.mark.parametrize(
    ("samples", "joints_asked", "said"),
    [
        ([], (), "'mine' has no usable joints on joint_states"),
        ([joints(0), frame(0)], (), "no usable joints on joint_commands; map yours with --topic THEIRS=joint_commands"),
        (steps(0, 3), ("a", "z"), "no joint 'z' as --joints asks; it has a, b"),
        ([joints(0), command(0, names=("a",))], ("b",), "commands none of --joints; its commands name a"),
    ],
)
def test_a_recording_that_cannot_be_used_is_one_line(samples, joints_asked, said):
    with pytest.raises(UserError, match=said) as error:
        form_of("mine", samples, 10, joints_asked)
    assert "\n" not in str(error.value)
