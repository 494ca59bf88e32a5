"""The parts of player and recorder that need no ROS: reading ahead, writing behind, time between ticks."""

from __future__ import annotations

import threading
import time

import pytest

from wm_ros.data.bags import read_messages, summary
from wm_ros.errors import BagError
from wm_ros.messages import encode_clock
from wm_ros.nodes.bag_sink import BagSink
from wm_ros.nodes.read_ahead import MAX_MESSAGES, ReadAhead
from wm_ros.nodes.sim_clock import SILENT_NS, SimClock

CLOCK = "rosgraph_msgs/msg/Clock"
MS = 1_000_000


def messages(count, size=100, error=None):
    for number in range(count):
        yield "/a", CLOCK, number, bytes(size)
    if error:
        raise error


def test_everything_that_is_read_ahead_comes_in_order():
    with ReadAhead(messages(3 * MAX_MESSAGES), max_bytes=5000) as ahead:
        assert [t for _, _, t, _ in ahead] == list(range(3 * MAX_MESSAGES))


def test_reading_ahead_stays_within_its_budget():
    taken = []

    def counted():
        for message in messages(1000):
            taken.append(message)
            yield message

    with ReadAhead(counted(), max_bytes=2000) as ahead:
        ahead.wait_filled(2.0)
        time.sleep(0.05)
        assert 20 <= len(taken) <= 22
        assert sum(1 for _ in ahead) == 1000


def test_an_error_of_the_reader_reaches_the_player_after_what_was_read():
    with ReadAhead(messages(3, error=BagError("torn"))) as ahead:
        stream = iter(ahead)
        assert [next(stream)[2] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(BagError, match="torn"):
            next(stream)


def test_leaving_early_ends_the_thread():
    with ReadAhead(messages(10**9), max_bytes=1000) as ahead:
        next(iter(ahead))
    assert not any(t.name == "read-ahead" for t in threading.enumerate())


def test_a_sink_writes_everything_before_it_closes(tmp_path):
    with BagSink(tmp_path / "bag") as sink:
        for number in range(2000):
            sink.put("/clock", CLOCK, number, encode_clock(number))
    assert [t for _, _, t, _ in read_messages(tmp_path / "bag")] == list(range(2000))


def test_a_sink_that_is_full_drops_and_counts(tmp_path):
    with BagSink(tmp_path / "bag", max_bytes=50_000) as sink:
        for number in range(200):
            sink.put("/big", "std_msgs/msg/String", number, bytes(40_000))
    written = summary(tmp_path / "bag").messages
    assert sink.dropped["/big"] > 0
    assert written + sink.dropped["/big"] == 200


def test_a_sink_refuses_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BagError, match="exists"), BagSink(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(BagError, match="cannot be made"), BagSink(tmp_path / "file" / "bag"):
        pass


def test_time_runs_on_between_ticks_at_their_speed():
    clock = SimClock()
    assert clock.at(5) is None
    for step in range(10):  # twice as fast as the wall
        clock.tick(1000 * MS + step * 40 * MS, 7000 * MS + step * 20 * MS)
    last_sim, last_wall = 1360 * MS, 7180 * MS
    assert clock.at(last_wall) == last_sim
    assert clock.at(last_wall + 10 * MS) == last_sim + 20 * MS
    assert clock.at(last_wall - 5 * MS) == last_sim - 10 * MS


def test_a_clock_that_fell_silent_stands_still():
    clock = SimClock()
    clock.tick(1000 * MS, 0)
    assert clock.at(10**12) == 1000 * MS + SILENT_NS


def test_a_clock_that_jumps_back_begins_anew():
    clock = SimClock()
    for step in range(5):
        clock.tick(step * 20 * MS, step * 10 * MS)
    clock.tick(0, 100 * MS)
    assert clock.at(110 * MS) == 10 * MS
