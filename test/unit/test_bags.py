"""Bags: written the same every time, read in time order, refused in one line, recovered where they are whole."""

from __future__ import annotations

import logging
import shutil
import tracemalloc

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import Reader

from wm_ros import topics
from wm_ros.cli_recordings import convert_recover
from wm_ros.data import bags
from wm_ros.data.bags import (
    BagWriter,
    bag_episode,
    find_bags,
    read_messages,
    read_samples,
    recover_bag,
    summary,
    write_bag,
)
from wm_ros.data.sources import episodes
from wm_ros.errors import BagError, UserError
from wm_ros.messages import encode_sample
from wm_ros.types import EgoPose, Frame, Instruction, JointCommand, Joints, StateTokens, Sweep

START = 1_000_000_000_000
STEP = 100_000_000
BOTH = pytest.mark.parametrize("storage", ["mcap", "sqlite3"])


def drive(steps=20, points=2000):
    """Samples of one drive, triggers before what they need at each stamp: the writer keeps the order given."""
    random = np.random.default_rng(0)
    yield Instruction(START, "", "go")
    for step in range(steps):
        t = START + step * STEP
        yield Frame(t, "camera", random.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        yield Sweep(t, "lidar", random.random((points, 4), np.float32))
        yield JointCommand(t, "", ("a",), np.array([0.5]))
        yield Joints(t, "", ("a",), np.array([step / 10]))
        yield EgoPose(t, "odom", "base_link", np.eye(4))


@pytest.fixture
def bag(tmp_path):
    write_bag(tmp_path / "bag", drive())
    return tmp_path / "bag"


@BOTH
def test_the_same_samples_give_the_same_bytes(tmp_path, storage):
    for folder in ("a", "b"):
        assert write_bag(tmp_path / folder / "bag", drive(), storage) == 101
    files = sorted(p.name for p in (tmp_path / "a" / "bag").iterdir())
    assert len(files) == 2
    for name in files:
        assert (tmp_path / "a/bag" / name).read_bytes() == (tmp_path / "b/bag" / name).read_bytes()


@BOTH
def test_what_a_trigger_needs_comes_before_it(tmp_path, storage):
    write_bag(tmp_path / "bag", drive(3), storage)
    kinds = [type(s) for s in read_samples(tmp_path / "bag")]
    assert kinds == [
        *[EgoPose, Joints, JointCommand, Instruction, Sweep, Frame],
        *[EgoPose, Joints, JointCommand, Sweep, Frame] * 2,
    ]


@BOTH
def test_samples_survive_the_bag(tmp_path, storage):
    write_bag(tmp_path / "bag", drive(2), storage)
    back = list(read_samples(tmp_path / "bag"))
    for sample in drive(2):
        twin = next(s for s in back if type(s) is type(sample) and s.stamp_ns == sample.stamp_ns)
        for name in ("points", "rgb", "position_rad", "matrix", "text"):
            if hasattr(sample, name):
                assert np.array_equal(getattr(twin, name), getattr(sample, name))


@BOTH
def test_a_bag_keeps_the_quality_of_its_topics_and_its_licence(tmp_path, storage):
    write_bag(tmp_path / "bag", drive(1), storage, licence="CC0-1.0")
    content = summary(tmp_path / "bag")
    by_name = {t.name: t for t in content.topics}
    assert by_name["/instruction"].latched
    assert [t.name for t in content.topics if t.latched] == ["/instruction"]
    assert by_name["/points"].qos[0].reliability.name == "BEST_EFFORT"
    assert by_name["/joint_commands"].qos[0].reliability.name == "RELIABLE"
    assert bag_episode(tmp_path / "bag").licence == "CC0-1.0"
    metadata = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["storage_identifier"] == storage
    assert all(
        isinstance(t["topic_metadata"]["offered_qos_profiles"], str) for t in metadata["topics_with_message_count"]
    ), "rosbag2 of Humble reads a string here"


def test_chunks_are_compressed_and_a_plain_bag_is_larger(tmp_path):
    flat = [Frame(START, "camera", np.zeros((500, 500, 3), np.uint8))]
    write_bag(tmp_path / "small", flat)
    write_bag(tmp_path / "large", flat, compression=False)
    assert (tmp_path / "small/small.mcap").stat().st_size < 20_000
    assert (tmp_path / "large/large.mcap").stat().st_size > 750_000


def test_messages_come_in_time_order_with_the_bytes_as_recorded(tmp_path):
    samples = list(drive(5))
    with BagWriter(tmp_path / "bag") as writer:
        for sample in samples[::-1]:
            for topic, cdr in encode_sample(sample):
                writer.write(topic, sample.stamp_ns, cdr)
    messages = list(read_messages(tmp_path / "bag"))
    stamps = [t for _, _, t, _ in messages]
    assert stamps == sorted(stamps)
    recorded = {(topic.name, sample.stamp_ns): cdr for sample in samples for topic, cdr in encode_sample(sample)}
    assert {(name[1:], t): bytes(cdr) for name, _, t, cdr in messages} == recorded


def test_topics_and_start_narrow_what_is_read(bag):
    points = list(read_messages(bag, ["points"], start_s=1.0))
    assert {name for name, *_ in points} == {"/points"}
    assert [t for _, _, t, _ in points] == [START + i * STEP for i in range(10, 20)]
    with pytest.raises(BagError, match=r"no topic 'pionts'; it has .*points"):
        list(read_messages(bag, ["pionts"]))


def test_reading_does_not_hold_the_bag_in_memory(tmp_path):
    write_bag(tmp_path / "bag", drive(60, points=40_000), compression=False)
    assert sum(f.stat().st_size for f in (tmp_path / "bag").iterdir()) > 35e6
    tracemalloc.start()
    try:
        for _ in read_samples(tmp_path / "bag"):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 18e6


def test_samples_are_ordered_by_stamp_though_they_were_recorded_late(tmp_path):
    late = STEP // 2
    with BagWriter(tmp_path / "bag") as writer:
        for sample in drive(10):
            # odometry arrives after the sweep that it belongs to
            delay = late if isinstance(sample, EgoPose) else 0
            for topic, cdr in encode_sample(sample):
                writer.write(topic, sample.stamp_ns + delay, cdr)
    kinds = [type(s) for s in read_samples(tmp_path / "bag") if isinstance(s, Sweep | EgoPose)]
    assert kinds == [EgoPose, Sweep] * 10


def test_a_clock_that_jumps_back_does_not_mix_two_rounds(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        for number in range(20):  # the same second twice
            pose = EgoPose(START + number % 10 * STEP, "odom", "base_link", np.eye(4))
            writer.write(topics.ODOM, START + number * STEP, encode_sample(pose)[0][1])
    stamps = [s.stamp_ns for s in read_samples(tmp_path / "bag")]
    assert stamps == [START + n % 10 * STEP for n in range(20)]


def test_a_malformed_message_is_left_out_and_counted(tmp_path, caplog):
    with BagWriter(tmp_path / "bag") as writer:
        for number in range(4):
            cdr = encode_sample(Sweep(START + number, "lidar", np.ones((5, 4), np.float32)))[0][1]
            writer.write(topics.POINTS, START + number, cdr if number % 2 else cdr[:50])
    with caplog.at_level(logging.WARNING):
        assert [s.stamp_ns for s in read_samples(tmp_path / "bag")] == [START + 1, START + 3]
    (record,) = caplog.records
    assert "2 malformed messages on /points" in record.getMessage()


# ----------------------------------------------------------------------------- which topic is which


def matched(**bag):
    return {
        name: t.name for name, t in bags.match_topics({f"/{n.replace('__', '/')}": k for n, k in bag.items()}).items()
    }


CLOUD, IMAGE, ODOMETRY = topics.POINTS.type, topics.IMAGE.type, topics.ODOM.type


def test_names_of_the_table_win_over_types():
    assert matched(points=CLOUD, other=CLOUD) == {"/points": "points"}


def test_a_namespace_does_not_matter():
    assert matched(robot__points=CLOUD, rear=CLOUD) == {"/robot/points": "points"}


def test_the_only_topic_of_a_type_is_taken():
    assert matched(velodyne_points=CLOUD, camera__image_raw=IMAGE, odometry=ODOMETRY) == {
        "/velodyne_points": "points",
        "/camera/image_raw": "image",
        "/odometry": "odom",
    }


def test_of_two_unnamed_topics_of_a_type_none_is_guessed():
    assert matched(front=CLOUD, rear=CLOUD) == {}


def test_what_our_nodes_publish_is_never_a_sensor():
    assert matched(bev__view=IMAGE, future__hand_left="nav_msgs/msg/Path", hand_right="nav_msgs/msg/Path") == {
        "/hand_right": "hand_right"
    }


def test_words_are_taken_by_name_only():
    assert matched(chatter="std_msgs/msg/String") == {}


def test_recorded_tokens_become_samples_of_their_own_type(tmp_path):
    write_bag(tmp_path / "bag", [StateTokens(START, "camera", np.ones((2, 4), np.float32))])
    assert [type(s) for s in read_samples(tmp_path / "bag")] == [StateTokens]


def test_remapping_wins_and_must_fit(bag):
    there = {"/front": CLOUD, "/points": CLOUD, "/image": IMAGE}
    assert bags.match_topics(there, {"front": "points"})["/front"].name == "points"
    assert "/points" not in bags.match_topics(there, {"front": "points"})
    for remap, words in (
        ({"/nowhere": "points"}, "'/nowhere' is not in the bag"),
        ({"/image": "pictures"}, "'pictures' is none that samples come from"),
        ({"/image": "points"}, "has type sensor_msgs/msg/Image"),
    ):
        with pytest.raises(BagError, match=words):
            bags.match_topics(there, remap)


# ----------------------------------------------------------------------------- what is not there, or damaged


def test_a_writer_overwrites_nothing(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(BagError, match="exists"):
            write_bag(tmp_path / name, drive(1))
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert write_bag(tmp_path / "empty", drive(1)) == 6
    with pytest.raises(BagError, match=r"\.mcap"):
        BagWriter(tmp_path / "new.mcap")
    with pytest.raises(BagError, match="choose mcap or sqlite3"):
        BagWriter(tmp_path / "new", "csv")


def test_a_type_without_definition_is_refused_by_the_writer(tmp_path):
    with BagWriter(tmp_path / "bag") as writer, pytest.raises(BagError, match="velodyne_msgs/msg/VelodyneScan"):
        writer.write(("packets", "velodyne_msgs/msg/VelodyneScan"), START, b"\x00\x01\x00\x00")


def test_a_missing_bag_and_a_folder_without_one_say_so(tmp_path):
    with pytest.raises(BagError, match="no such file or folder; check the path"):
        summary(tmp_path / "nowhere")
    with pytest.raises(BagError, match="holds no recording; give a folder"):
        summary(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(BagError, match="holds no recording"):
        list(read_samples(tmp_path / "a.txt"))


def test_a_folder_of_bags_is_found_in_order_and_one_must_be_named(tmp_path):
    for name in ("b", "a", "deep/c"):
        write_bag(tmp_path / name, drive(1))
    shutil.copy(tmp_path / "a/a.mcap", tmp_path / "bare.mcap")
    names = [p.relative_to(tmp_path).as_posix() for p in find_bags(tmp_path)]
    assert names == ["a", "b", "bare.mcap", "deep/c"]
    assert [e.name for e in episodes(str(tmp_path))] == ["a", "b", "bare", "c"]
    with pytest.raises(BagError, match=r"holds 4 recordings; name one of a, b, bare\.mcap, deep/c"):
        summary(tmp_path)
    assert len(list(read_samples(tmp_path / "bare.mcap"))) == 6


def test_a_bag_whose_file_is_missing_says_so(bag):
    (bag / "bag.mcap").unlink()
    with pytest.raises(BagError, match="missing"):
        summary(bag)


@BOTH
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_bag_says_what_is_whole_and_gives_it_back(tmp_path, storage, share):
    write_bag(tmp_path / "bag", drive(30, points=8000), storage)
    everything = [(name, t, bytes(cdr)) for name, _, t, cdr in read_messages(tmp_path / "bag")]
    file = next(p for p in (tmp_path / "bag").iterdir() if p.suffix in (".mcap", ".db3"))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    recovered = [(name, t, bytes(cdr)) for name, _, t, cdr in read_messages(tmp_path / "bag", recover=True)]
    assert 0.1 * share * len(everything) < len(recovered) <= len(everything)
    assert set(recovered) <= set(everything)
    assert [t for _, t, _ in recovered] == sorted(t for _, t, _ in recovered)
    with pytest.raises(BagError, match=f"damaged .*{len(recovered)} messages on 6 topics are whole") as caught:
        list(read_messages(tmp_path / "bag"))
    assert "\n" not in str(caught.value)
    assert recover_bag(tmp_path / "bag", tmp_path / "new") == len(recovered)
    assert summary(tmp_path / "new").messages == len(recovered)
    assert len(list(read_samples(tmp_path / "bag", recover=True))) == len(recovered)


def test_a_bag_that_was_not_closed_is_recovered_without_metadata(bag, tmp_path):
    (bag / "metadata.yaml").unlink()
    file = bag / "bag.mcap"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(BagError, match="101 messages"):
        summary(bag)
    assert recover_bag(bag, tmp_path / "new") == 101


@pytest.mark.parametrize("content", [b"", b"\x89MCAP0\r\n", b"not a bag at all", bytes(5000)])
@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_a_file_that_is_no_bag_is_refused_in_one_line(tmp_path, content, suffix):
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    with pytest.raises(BagError, match="no message can be recovered") as caught:
        summary(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(BagError, match="nothing in it can be recovered"):
        recover_bag(file, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seed", range(20))
def test_a_bag_with_wrong_bytes_never_gives_a_traceback(bag, seed):
    random = np.random.default_rng(seed)
    for name in ("bag.mcap", "metadata.yaml"):
        if seed % 2 == (name == "bag.mcap"):
            data = np.frombuffer((bag / name).read_bytes(), np.uint8).copy()
            at = random.integers(0, len(data), 30)
            if name == "bag.mcap" and seed % 4 == 0:
                at = len(data) - 1 - random.integers(0, 2000, 30)  # in the index
            data[at] = random.integers(0, 255, 30)
            (bag / name).write_bytes(data.tobytes())
    for read in (lambda: list(read_samples(bag)), lambda: list(read_samples(bag, recover=True)), lambda: summary(bag)):
        try:
            read()
        except BagError as error:
            assert "\n" not in str(error)


def test_the_command_recovers_and_refuses(bag, tmp_path, capsys):
    file = bag / "bag.mcap"
    file.write_bytes(file.read_bytes()[:-200])
    convert_recover(bag, tmp_path / "new")
    assert "101 messages recovered" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists and is not empty"):
        convert_recover(bag, tmp_path / "new")


def test_an_empty_bag_is_empty(tmp_path):
    assert write_bag(tmp_path / "bag", []) == 0
    assert list(read_samples(tmp_path / "bag")) == []
    assert (summary(tmp_path / "bag").messages, summary(tmp_path / "bag").start_ns) == (0, 0)


def test_other_readers_read_our_bags(bag):
    with Reader(bag) as reader:
        assert reader.message_count == 101
        names = {c.topic for c in reader.connections}
    assert names == {"/points", "/image", "/odom", "/joint_states", "/joint_commands", "/instruction"}
