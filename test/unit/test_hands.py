"""Hands of three kinds: never mixed, sides held over time, gaps kept as gaps, forecasts scored against what came."""

import importlib.util
import json
import subprocess
import sys

import av
import numpy as np
import pytest
from test_cli import assert_one_clear_line, wm

from wm_ros.data.sources import Episode, episodes
from wm_ros.errors import MessageError, RefusedError, UserError
from wm_ros.future.config import FutureConfig
from wm_ros.future.memory import Memory
from wm_ros.hands.detector import Found, MediapipeDetector
from wm_ros.hands.forecast import errors
from wm_ros.hands.run import run
from wm_ros.hands.sides import SideTracker, overlap
from wm_ros.hands.source import Track, read_boxes, watch
from wm_ros.messages import decode, encode_sample
from wm_ros.training.grid import on_grid
from wm_ros.types import Frame, HandTrajectory, Joints

STAMP = 1_000_000_000_000
needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="the extra 'hands' is not installed: no mediapipe"
)


def hand(kind, values, side="left"):
    values = np.asarray(values, np.float32)
    offsets = np.arange(len(values)) * 0.1 - 0.1
    return HandTrajectory(STAMP, "camera", side, offsets, values, np.ones(len(values), bool), kind)


def box(u, v=0.5, width=0.1, height=0.2):
    return np.array([u, v, width, height], np.float32)


class Script:
    """A detector that says what it was told to, image by image."""

    def __init__(self, *images):
        self.images, self.next = images, 0

    def reset(self):
        self.next = 0

    def find(self, rgb):
        self.next += 1
        return self.images[self.next - 1]


def frames(count, rate_hz=10):
    black = np.zeros((60, 100, 3), np.uint8)
    return [Frame(STAMP + round(index * 1e9 / rate_hz), "camera", black) for index in range(count)]


# ----------------------------------------------------------------------------- representation


@pytest.mark.parametrize(("kind", "width"), [("wrist_m", 3), ("box", 4), ("pose", 7)])
def test_the_kind_says_how_many_columns_there_are(kind, width):
    assert hand(kind, np.zeros((2, width))).values.shape == (2, width)
    with pytest.raises(ValueError, match=rf"values: shape \(2, {width + 1}\), not \(2, {width}\) of kind {kind}"):
        hand(kind, np.zeros((2, width + 1)))


def test_an_unknown_kind_and_validity_of_another_length_are_refused():
    with pytest.raises(ValueError, match="kind: 'pixels' is none of wrist_m, box, pose"):
        hand("pixels", np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"valid: shape \(1,\), not \(2,\)"):
        HandTrajectory(STAMP, "camera", "left", np.zeros(2), np.zeros((2, 4), np.float32), np.ones(1, bool), "box")


@pytest.mark.parametrize(("kind", "width"), [("box", 4), ("pose", 7)])
def test_only_wrists_are_positions_in_metres(kind, width):
    assert np.array_equal(hand("wrist_m", np.ones((1, 3))).position_m, np.ones((1, 3)))
    other = hand(kind, np.ones((1, width)))
    with pytest.raises(ValueError, match=f"kind {kind}, not wrist_m"):
        _ = other.position_m
    with pytest.raises(RefusedError, match=f"kind '{kind}', the model was trained on 'wrist_m'"):
        Memory(FutureConfig(hands_frame_id="camera")).take_hand(other)
    seen = Frame(STAMP, "camera", np.zeros((2, 2, 3), np.uint8))
    (step,) = on_grid([other, Joints(STAMP, "", ("a",), np.zeros(1)), seen])
    assert step.left is None, "a training window holds no hand of another kind"


def test_boxes_travel_as_markers_and_poses_as_a_path_on_topics_of_their_own():
    boxes = hand("box", [box(0.2), box(0.4)], "right")
    poses = hand("pose", [[1, 2, 3, 0.1, -0.2, 0.3, 0.5], [1, 2, 4, 0, 0, 0, 1.0]])
    for sample, name in ((boxes, "hand_box_right"), (poses, "hand_pose_left")):
        ((topic, cdr),) = encode_sample(sample)
        back = decode(topic.type, cdr, sample=HandTrajectory, topic=topic.name)
        assert (topic.name, back.kind, back.side, back.stamp_ns) == (name, sample.kind, sample.side, STAMP)
        assert back.offsets_s == pytest.approx(sample.offsets_s)
        assert back.values[:, :6] == pytest.approx(sample.values[:, :6], abs=1e-6)
    assert np.isnan(back.values[:, 6]).all(), "a Path has no place for the gripper"
    with pytest.raises(MessageError, match="no Path"):
        decode(topic.type, cdr, topic="hand_box_left")


def test_what_was_not_seen_is_not_sent():
    gap = HandTrajectory(
        STAMP, "camera", "left", np.zeros(1), np.full((1, 4), np.nan, np.float32), np.zeros(1, bool), "box"
    )
    ((topic, cdr),) = encode_sample(gap)
    assert len(decode(topic.type, cdr, sample=HandTrajectory, topic=topic.name).values) == 0


# ----------------------------------------------------------------------------- sides


def test_overlap_of_boxes():
    assert overlap(box(0.5), box(0.5)) == pytest.approx(1)
    assert overlap(box(0.5), box(0.55)) == pytest.approx(1 / 3, rel=1e-5)
    assert overlap(box(0.2), box(0.8)) == 0


def test_a_side_is_held_where_the_detector_changes_its_mind():
    tracker = SideTracker()
    assert tracker.step(STAMP, [Found(box(0.6), "right", 0.9)])["right"] is not None
    sides = tracker.step(STAMP + 10**8, [Found(box(0.61), "left", 0.6)])
    assert sides["left"] is None and sides["right"].box[0] == pytest.approx(0.61)
    late = tracker.step(STAMP + 10**9, [Found(box(0.61), "left", 0.6)])
    assert late["left"] is not None, "what was long ago does not outweigh the detector's word"


def test_two_hands_never_share_a_side_and_one_hand_never_has_two():
    both = SideTracker().step(STAMP, [Found(box(0.7), "right", 0.9), Found(box(0.2), "right", 0.9)])
    assert (both["left"].box[0], both["right"].box[0]) == pytest.approx((0.2, 0.7))
    twice = SideTracker().step(STAMP, [Found(box(0.5), "right", 0.9), Found(box(0.51), "left", 0.8)])
    assert twice["left"] is None and twice["right"].score == 0.9


def test_a_third_hand_gives_way_to_those_that_were_there():
    tracker = SideTracker()
    tracker.step(STAMP, [Found(box(0.2), "left", 0.9), Found(box(0.8), "right", 0.9)])
    third = [Found(box(0.5, 0.1), "right", 0.99), Found(box(0.21), "left", 0.9), Found(box(0.79), "right", 0.9)]
    sides = tracker.step(STAMP + 10**8, third)
    assert (sides["left"].box[0], sides["right"].box[0]) == pytest.approx((0.21, 0.79))


# ----------------------------------------------------------------------------- from images to files and forecasts


def test_boxes_are_written_read_again_and_gaps_stay_gaps(tmp_path):
    detector = Script([Found(box(0.2), "left", 0.75)], [], [Found(box(0.3), "left", 0.8)])
    summary = run([Episode("clip", "none", lambda: iter(frames(3)))], detector, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "boxes.jsonl").read_text().splitlines()]
    assert [(row["side"], row["valid"]) for row in lines[:4]] == [
        ("left", True), ("right", False), ("left", False), ("right", False)
    ]  # fmt: skip
    assert lines[0]["box"] == pytest.approx([0.2, 0.5, 0.1, 0.2]) and lines[0]["score"] == 0.75
    assert lines[2]["box"] is None and lines[2]["score"] is None
    read = [h for name, h in read_boxes(tmp_path / "out" / "boxes.jsonl") if h.side == "left" and name == "clip"]
    assert [bool(h.valid[0]) for h in read] == [True, False, True] and np.isnan(read[1].values).all()
    assert summary["share_with_a_hand"] == pytest.approx(2 / 3) and summary["share_with_the_right_hand"] == 0
    assert (tmp_path / "out" / "strip_clip.png").stat().st_size > 0
    middle = Track(read).at(np.array([STAMP + 5 * 10**7, STAMP + 15 * 10**7]), STAMP)
    assert not middle.valid.any(), "between a seen and an unseen image nothing is known"


def test_a_line_that_is_no_box_is_named(tmp_path):
    (tmp_path / "boxes.jsonl").write_text('{"side": "left"}\n')
    with pytest.raises(UserError, match="line 1"):
        list(read_boxes(tmp_path / "boxes.jsonl"))


def test_forecasts_of_a_hand_that_moves_evenly_have_the_errors_that_arithmetic_says():
    speed = 0.2  # image widths a second
    found = [[Found(box(0.1 + speed * i / 15, 0.3), "left", 0.9)] for i in range(31)]
    track = Track(seen.hands["left"] for seen in watch(frames(31, 15), Script(*found)))
    got = errors(track, aspect=0.6)
    for horizon, steps in ((0.5, 7), (1.0, 15)):
        assert len(got["hold"][horizon]) == 31 - 2 - steps
        assert got["hold"][horizon] == pytest.approx(np.arange(1, steps + 1).mean() * speed / 15, rel=1e-3)
        damped = np.cumsum(0.9 ** np.arange(steps))
        straight = (np.arange(1, steps + 1) - damped).mean() * speed / 15
        assert got["constant_velocity"][horizon] == pytest.approx(straight, rel=1e-3, abs=1e-6)


def test_vertical_motion_is_measured_in_widths_too():
    found = [[Found(box(0.5, 0.1 + 0.02 * i), "right", 0.9)] for i in range(31)]
    track = Track(seen.hands["right"] for seen in watch(frames(31, 15), Script(*found)))
    assert errors(track, 0.5)["hold"][1.0] == pytest.approx(0.5 * 0.02 * 8, rel=1e-3)


def test_a_video_is_a_source_of_images_and_may_be_cropped(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for grey in (40, 120, 200):
            rgb = np.full((32, 64, 3), grey, np.uint8)
            rgb[:, 32:] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    (episode,) = episodes(f"{path}?crop=0,0,0.5,1")
    shown = list(episode.samples())
    assert episode.name == "clip" and [f.rgb.shape for f in shown] == [(32, 32, 3)] * 3
    assert np.diff([f.stamp_ns for f in shown]).tolist() == [200_000_000] * 2
    assert [f.rgb.mean() for f in shown] == pytest.approx([40, 120, 200], abs=4)
    for crop, named in (("left", "left,top,right,bottom"), ("0.5,0,0.5,1", "no part")):
        with pytest.raises(UserError, match=named):
            episodes(f"{path}?crop={crop}")


# ----------------------------------------------------------------------------- the detector


def test_without_the_extra_one_line_says_what_to_install(tmp_path):
    (tmp_path / "mediapipe.py").write_text("raise ModuleNotFoundError('none', name='mediapipe')\n")
    result = wm("hands", "sim:tabletop?seeds=1&seconds=1", "--out", "out", cwd=tmp_path)
    assert_one_clear_line(result, "mediapipe", "pip install 'wm_ros[hands]'")
    assert not (tmp_path / "out").exists()


def test_the_detector_is_not_imported_before_it_is_asked_for():
    code = "import sys, wm_ros.cli, wm_ros.hands.detector; sys.exit('mediapipe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@needs_extra
def test_no_hand_is_found_where_there_is_none(tmp_path):
    recordings = episodes("sim:tabletop?seeds=1&seconds=1")
    summary = run(recordings, MediapipeDetector(), tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "boxes.jsonl").read_text().splitlines()]
    assert summary["share_with_a_hand"] == 0 and len(rows) == 2 * summary["frames"] > 0
    assert all(row["box"] is None and not row["valid"] for row in rows)
    assert summary["moments@0.5s"] == 0 and summary["hold_ade@0.5s"] is None
