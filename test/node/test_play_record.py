"""Player and recorder over real DDS: what is played is recorded, byte for byte, on time, to the last message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from wm_ros import topics
from wm_ros.data.bags import BagWriter, read_messages, read_samples, summary, write_bag
from wm_ros.errors import BagError, UserError
from wm_ros.messages import decode_clock, encode_sample
from wm_ros.nodes.player import play
from wm_ros.nodes.recorder import record
from wm_ros.types import EgoPose, Frame, Instruction, Joints, Sweep

START = 1_000_000_000_000
POINTS = 40_000


def world(seconds=1.5):
    random = np.random.default_rng(0)
    yield Instruction(START, "", "lift the can")
    for step in range(round(seconds * 50)):
        t = START + step * 20_000_000
        yield EgoPose(t, "odom", "base_link", np.eye(4))
        yield Joints(t, "", ("a",), np.array([step / 50]))
        if step % 5 == 0:
            yield Sweep(t, "lidar", random.random((POINTS, 4), np.float32))
            yield Frame(t, "camera", random.integers(0, 255, (96, 128, 3), dtype=np.uint8))


@pytest.fixture
def bag(tmp_path):
    write_bag(tmp_path / "bag", world(), compression=False)
    return tmp_path / "bag"


class Recording:
    """A recorder in a thread."""

    def __init__(self, out, **options):
        self.report = None
        self._stop, ready = threading.Event(), threading.Event()

        def run():
            self.report = record(out, stop=self._stop, ready=ready, **options)

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert ready.wait(20)

    def end(self, linger_s=0.5):
        time.sleep(linger_s)
        self._stop.set()
        self._thread.join(20)
        return self.report


def by_topic(path):
    found: dict[str, list[bytes]] = {}
    for name, _, _, cdr in read_messages(path):
        found.setdefault(name, []).append(bytes(cdr))
    return found


def test_what_is_played_is_recorded_byte_for_byte(bag, tmp_path):
    recording = Recording(tmp_path / "again")
    played = play(bag)
    report = recording.end()
    assert sum(played.published.values()) == summary(bag).messages
    assert by_topic(tmp_path / "again") == by_topic(bag)
    assert report.sim_time
    assert not any(t.dropped or t.lost for t in report.topics.values())
    assert {name: t.count for name, t in report.topics.items()} == dict(played.published)
    again = summary(tmp_path / "again")
    # times are those of /clock, so the recording lasts as long as the original and lies at the same time
    assert abs(again.start_ns - START) < 0.2e9
    assert abs((again.end_ns - again.start_ns) - 1.48e9) < 0.2e9
    assert [t.name for t in again.topics if t.latched] == ["/instruction"]
    assert next(t for t in again.topics if t.name == "/points").qos[0].reliability.name == "BEST_EFFORT"
    assert "age" in str(report)
    median, _ = report.topics["/points"].age()
    assert -5 < median < 250


def test_nodes_that_wait_for_a_clock_do_not_decide_which_clock_is_recorded(tmp_path, bench):
    from wm_ros.messages import Status, encode_diagnostics

    write_bag(tmp_path / "bag", world(0.3))
    recording = Recording(tmp_path / "again")
    waiting = encode_diagnostics(0, [Status("policy: input", 3, "no data yet")])
    for _ in range(5):
        bench.publish_bytes("/diagnostics", waiting)
        time.sleep(0.2)
    play(tmp_path / "bag")
    report = recording.end()
    assert report.sim_time
    assert report.topics["/diagnostics"].count >= 1
    content = summary(tmp_path / "again")
    assert START <= content.start_ns <= content.end_ns < START + 10**9


def test_without_a_clock_the_time_is_that_of_the_wall(tmp_path, bench):
    recording = Recording(tmp_path / "live")
    for _ in range(10):
        bench.publish(EgoPose(time.time_ns(), "odom", "base_link", np.eye(4)))
        time.sleep(0.1)
    report = recording.end()
    assert not report.sim_time
    assert report.topics["/odom"].count >= 3
    assert abs(summary(tmp_path / "live").end_ns - time.time_ns()) < 20e9
    median, _ = report.topics["/odom"].age()
    assert 0 <= median < 250


def test_the_spacing_of_stamps_is_kept_and_the_lateness_reported(bag):
    played = play(bag, rate=2.0, wait_subscribers_s=0.0)
    assert len(played.lateness_ms) == summary(bag).messages
    median, p95, largest = played.lateness()
    assert 0 <= median <= p95 <= largest
    assert median < 20
    assert 1.48 / 2 - 0.02 < played.wall_s < 1.48 / 2 + 0.5
    assert played.clock_ticks >= 75
    assert "late by" in str(played)


def test_the_clock_ticks_through_gaps_and_never_goes_back(tmp_path):
    write_bag(tmp_path / "bag", [EgoPose(START + i * 10**9, "odom", "b", np.eye(4)) for i in range(3)])
    recording = Recording(tmp_path / "clock", topics=["/clock"])
    play(tmp_path / "bag", wait_subscribers_s=1.0)
    recording.end()
    ticks = np.array([decode_clock(cdr) for _, _, _, cdr in read_messages(tmp_path / "clock")])
    assert (np.diff(ticks) >= 0).all()
    assert (ticks[0], ticks[-1]) == (START, START + 2 * 10**9)
    gaps = np.diff(ticks[ticks > START])
    assert np.median(gaps) <= 25e6, "at least 40 Hz"
    assert gaps.max() < 200e6


def test_a_latched_topic_is_sent_first_though_it_began_before(bag, tmp_path):
    recording = Recording(tmp_path / "late")
    played = play(bag, start_s=1.0)
    recording.end()
    assert played.latched_first == 1
    assert played.published["/points"] == 5
    samples = list(read_samples(tmp_path / "late"))
    assert [s.text for s in samples if isinstance(s, Instruction)] == ["lift the can"]
    assert min(s.stamp_ns for s in samples if isinstance(s, Sweep)) == START + 1_000_000_000


def test_topics_are_chosen_and_remapped(bag, tmp_path):
    recording = Recording(tmp_path / "few", topics=["/front/points"])
    played = play(bag, topics=["points", "/odom"], remap={"/points": "/front/points"})
    report = recording.end()
    assert set(played.published) == {"/points", "/odom"}
    assert set(report.topics) == {"/front/points"}
    assert len(list(read_messages(tmp_path / "few"))) == 15


def test_a_loop_begins_again_until_it_is_stopped(tmp_path):
    write_bag(tmp_path / "bag", world(0.2))
    stop = threading.Event()
    threading.Timer(2.0, stop.set).start()
    played = play(tmp_path / "bag", loop=True, wait_subscribers_s=0.0, stop=stop)
    assert played.interrupted
    assert played.rounds > 3
    assert played.published["/odom"] > 30


def test_types_that_are_not_installed_are_left_out_with_one_warning(tmp_path, caplog):
    with BagWriter(tmp_path / "bag") as writer:
        for number in range(3):
            writer.write(("tf", "tf2_msgs/msg/TFMessage"), START + number, b"\x00\x01\x00\x00\x00\x00\x00\x00")
            pose = EgoPose(START + number, "odom", "b", np.eye(4))
            writer.write(topics.ODOM, START + number, encode_sample(pose)[0][1])
    played = play(tmp_path / "bag", wait_subscribers_s=0.0)
    assert played.skipped == {"/tf": "type tf2_msgs/msg/TFMessage is not installed"}
    assert played.published == {"/odom": 3}
    assert [r.getMessage() for r in caplog.records if "tf2_msgs" in r.getMessage()] == [
        "topic /tf: type tf2_msgs/msg/TFMessage is not installed; it is left out"
    ]


def test_what_cannot_be_played_is_refused_in_one_line(bag, tmp_path):
    write_bag(tmp_path / "empty", [])
    with pytest.raises(BagError, match="holds no message"):
        play(tmp_path / "empty")
    with pytest.raises(BagError, match="no topic 'pionts'"):
        play(bag, topics=["pionts"])
    with pytest.raises(UserError, match="start 99"):
        play(bag, start_s=99)
    with pytest.raises(UserError, match="rate 0"):
        play(bag, rate=0)
    with pytest.raises(BagError, match="exists and is not empty"):
        record(bag)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_recording_with_a_complete_bag(bag, tmp_path, number):
    out = tmp_path / "signalled"
    code = f"from pathlib import Path; from wm_ros.nodes.recorder import record; print(record(Path({str(out)!r})))"
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ, stdout=subprocess.PIPE, text=True) as process:
        while not out.exists():
            time.sleep(0.05)
        time.sleep(1.0)
        played = play(bag)
        time.sleep(0.3)
        process.send_signal(number)
        text, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"recorded {summary(out).messages} messages" in text
    # From the first message that a topic was heard with, up to the last one before the signal, nothing is missing.
    for topic in played.published:
        # DDS pads what it carries to a multiple of four bytes.
        sent = [bytes(cdr).rstrip(b"\0") for *_, cdr in read_messages(bag, [topic])]
        held = [bytes(cdr).rstrip(b"\0") for *_, cdr in read_messages(out, [topic])]
        assert held and held == sent[-len(held) :], topic


def test_ctrl_c_ends_a_player_cleanly(tmp_path):
    write_bag(tmp_path / "long", [EgoPose(START + i * 10**9, "odom", "b", np.eye(4)) for i in range(60)])
    code = (
        f"from pathlib import Path; from wm_ros.nodes.player import play; print(play(Path({str(tmp_path / 'long')!r})))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(6.0)
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "interrupted" in text
    assert "Traceback" not in errors
