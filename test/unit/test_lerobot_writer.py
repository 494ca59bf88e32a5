"""LeRobot v3.0 datasets written here: read back as they were, files of limited size, exact statistics."""

from __future__ import annotations

import json

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from demonstration_parts import SIZE

from wm_ros.data.demonstrations import Form, Row
from wm_ros.data.lerobot import START_NS, lerobot_episodes
from wm_ros.data.lerobot_meta import write_card
from wm_ros.data.lerobot_stats import column_stats, histogram, image_stats
from wm_ros.data.lerobot_writer import DatasetWriter
from wm_ros.errors import UserError
from wm_ros.types import Frame, Instruction, JointCommand, Joints

FORM = Form(10, ("a", "b"), ("b",), ("head", "wrist"))
LENGTHS = (4, 7, 3)


def picture(episode: int, step: int, camera: int = 0) -> np.ndarray:
    """Two halves whose brightness tells episode, step and camera."""
    rgb = np.full((*SIZE, 3), 30 + 60 * episode + 8 * step, np.uint8)
    rgb[:, : SIZE[1] // 2] = 200 - 100 * camera
    return rgb


def rows(episode: int, task: str = "go"):
    for step in range(LENGTHS[episode]):
        state = np.array([episode + step / 7, 0.25], np.float32)  # the second one never moves
        images = {camera: picture(episode, step, i) for i, camera in enumerate(FORM.cameras)}
        yield Row(state, np.array([step], np.float32), images, task)


def written(folder, form=FORM, **sizes):
    with DatasetWriter(folder, form, **sizes) as writer:
        for episode in range(len(LENGTHS)):
            assert writer.add_episode(rows(episode, f"task {episode % 2}")) == LENGTHS[episode]
    return folder


@pytest.mark.parametrize("sizes", [{}, {"data_mb": 1e-9, "video_mb": 1e-9}], ids=["one file", "file for each"])
@pytest.mark.parametrize("camera", ["head", "wrist"])
def test_what_was_written_is_read_back(tmp_path, sizes, camera):
    written(tmp_path / "set", **sizes)
    files = 3 if sizes else 1
    assert len(list((tmp_path / "set/data").glob("*/*"))) == files
    assert len(list((tmp_path / f"set/videos/observation.images.{camera}").glob("*/*"))) == files
    found = lerobot_episodes(tmp_path / "set", [], {"camera": camera})
    assert [episode.name for episode in found] == [f"set-{n:06d}" for n in range(3)]
    for episode, recording in enumerate(found):
        samples, wanted = list(recording.samples()), list(rows(episode))
        joints = [s for s in samples if type(s) is Joints]
        commands = [s for s in samples if isinstance(s, JointCommand)]
        frames = [s for s in samples if isinstance(s, Frame)]
        assert joints[0].names == ("a", "b") and commands[0].names == ("b",)
        assert [list(s.position_rad) for s in joints] == [list(np.float64(row.state)) for row in wanted]
        assert [list(s.position_rad) for s in commands] == [list(np.float64(row.action)) for row in wanted]
        assert [s.stamp_ns for s in frames] == [
            START_NS + round(float(np.float32(k / 10)) * 1e9) for k in range(len(wanted))
        ]
        assert [s.text for s in samples if isinstance(s, Instruction)] == [f"task {episode % 2}"]
        assert {s.frame_id for s in frames} == {camera}
        for step, frame in enumerate(frames):
            difference = np.abs(frame.rgb.astype(int) - picture(episode, step, FORM.cameras.index(camera)))
            assert np.median(difference) <= 3, (episode, step)


def test_a_table_of_an_episode_is_read_without_the_others(tmp_path):
    table = pq.ParquetFile(written(tmp_path / "set") / "data/chunk-000/file-000.parquet")
    assert [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)] == list(LENGTHS)
    assert str(table.schema_arrow.field("observation.state").type) == "fixed_size_list<element: float>[2]"
    assert str(table.schema_arrow.field("action").type) == "float"  # LeRobot has a vector of one as a number


def test_rows_are_counted_through_the_set_and_each_episode_knows_its_own(tmp_path):
    written(tmp_path / "set", data_mb=1e-9)
    rows_of = [pq.read_table(path).to_pydict() for path in sorted((tmp_path / "set/data").glob("*/*"))]
    assert [i for rows in rows_of for i in rows["index"]] == list(range(14))
    assert [rows["frame_index"] for rows in rows_of] == [list(range(n)) for n in LENGTHS]
    assert [rows["episode_index"] for rows in rows_of] == [[number] * n for number, n in enumerate(LENGTHS)]
    table = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert table["dataset_from_index"] == [0, 4, 11] and table["dataset_to_index"] == [4, 11, 14]
    assert table["length"] == list(LENGTHS) and table["data/file_index"] == [0, 1, 2]
    assert table["tasks"] == [["task 0"], ["task 1"], ["task 0"]]
    assert [values[0] for values in table["stats/observation.state/min"]] == [0.0, 1.0, 2.0]
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["splits"]) == (
        3,
        14,
        2,
        {"train": "0:3"},
    )


def test_videos_are_h264_with_even_colour_and_a_key_frame_at_each_episode(tmp_path):
    written(tmp_path / "set")
    with av.open(str(tmp_path / "set/videos/observation.images.head/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 10
        assert [f.time for f in frames] == pytest.approx([k / 10 for k in range(14)])
        keys = [i for i, f in enumerate(frames) if f.key_frame]
        assert {0, 4, 11} <= set(keys) and max(np.diff([*keys, 14])) <= 2


def test_a_file_is_ended_before_lerobot_could_mistake_its_frames(tmp_path, monkeypatch):
    monkeypatch.setattr("wm_ros.data.lerobot_video.MAX_FILE_S", 1.0)
    written(tmp_path / "set")
    table = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    of = "videos/observation.images.head"
    assert [row[f"{of}/file_index"] for row in table] == [0, 0, 1]
    assert [row[f"{of}/from_timestamp"] for row in table] == [0.0, 0.4, 0.0]
    assert [row[f"{of}/to_timestamp"] for row in table] == [0.4, 1.1, 0.3]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    one, other = written(tmp_path / "one"), written(tmp_path / "other")
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    assert len(files) == 7
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_statistics_are_exact_and_a_constant_is_one(tmp_path):
    stats = json.loads((written(tmp_path / "set") / "meta/stats.json").read_text())
    state = np.float64([row.state for episode in range(3) for row in rows(episode)])
    assert stats["observation.state"]["mean"][0] == pytest.approx(state[:, 0].mean(), rel=1e-12)
    assert stats["observation.state"]["std"][0] == pytest.approx(state[:, 0].std(), rel=1e-12)
    assert stats["observation.state"]["q10"][0] == pytest.approx(np.quantile(state[:, 0], 0.1), rel=1e-12)
    assert stats["observation.state"]["count"] == stats["observation.images.head"]["count"] == [14]
    still = {name: value[1] for name, value in stats["observation.state"].items() if name not in ("count", "std")}
    assert set(still.values()) == {0.25} and stats["observation.state"]["std"][1] == 0.0
    pixels = np.stack([picture(episode, step) for episode in range(3) for step in range(LENGTHS[episode])]) / 255
    for name, value in (("mean", pixels.mean()), ("std", pixels.std()), ("min", pixels.min()), ("max", pixels.max())):
        assert np.shape(stats["observation.images.head"][name]) == (3, 1, 1)
        assert np.allclose(stats["observation.images.head"][name], value, atol=1e-12)
    assert set(stats) == {
        "observation.state",
        "action",
        "observation.images.head",
        "observation.images.wrist",
        "timestamp",
        "frame_index",
        "episode_index",
        "index",
        "task_index",
    }


def test_constants_that_float32_cannot_hold_stay_constant():
    stats = column_stats(np.full((1001, 1), 0.1, np.float32))
    assert stats["std"] == [0.0] and {stats[n][0] for n in ("min", "max", "mean", "q01", "q99")} == {
        float(np.float32(0.1))
    }


def test_quantiles_of_pixels_are_those_of_all_pixels():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    stats = image_stats(histogram(rgb), 1)
    for name, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        wanted = np.quantile(rgb.reshape(-1, 3), share, axis=0, method="inverted_cdf") / 255
        assert np.allclose(np.ravel(stats[name]), wanted)


def test_tasks_may_change_in_an_episode_and_begin_with_its_first(tmp_path):
    told = ["", "lift it", "lift it", "put it down"]
    with DatasetWriter(tmp_path / "set", FORM) as writer:
        writer.add_episode([Row(r.state, r.action, r.images, t) for r, t in zip(rows(0), told, strict=True)], "before")
        writer.add_episode([Row(r.state, r.action, r.images, "") for r in rows(1)], "before")
    table = pq.read_table(tmp_path / "set/data/chunk-000/file-000.parquet").column("task_index").to_pylist()
    assert table == [0, 0, 0, 1] + [2] * 7
    first, second = (list(e.samples()) for e in lerobot_episodes(tmp_path / "set", [], {}))
    assert [s.text for s in first if isinstance(s, Instruction)] == ["lift it", "put it down"]
    assert [s.text for s in second if isinstance(s, Instruction)] == ["before"]


def test_an_episode_of_one_row_is_left_out(tmp_path):
    with DatasetWriter(tmp_path / "set", FORM) as writer:
        assert writer.add_episode(list(rows(0))[:1]) == 0
        assert writer.add_episode(rows(1)) == 7
        assert (writer.episodes, writer.steps) == (1, 7)
    (episode,) = lerobot_episodes(tmp_path / "set", [], {"camera": "head"})
    assert np.median(next(s for s in episode.samples() if isinstance(s, Frame)).rgb[:, 30:]) == pytest.approx(90, abs=3)


def test_a_dataset_without_images(tmp_path):
    form = Form(10, ("a", "b"), ("b",), (), robot_type="arm")
    with DatasetWriter(tmp_path / "set", form) as writer:
        writer.add_episode([Row(r.state, r.action, {}, "go") for r in rows(1)])
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert info["video_path"] is None and info["robot_type"] == "arm" and not (tmp_path / "set/videos").exists()
    (episode,) = lerobot_episodes(tmp_path / "set", [], {})
    assert {type(s) for s in episode.samples()} == {Joints, JointCommand, Instruction}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: Row(row.state, row.action, row.images, ""), "episode without instruction; give one with --task"),
        (
            lambda row: Row(
                row.state, row.action, {c: p[: 32 if row.action[0] == 0 else 16] for c, p in row.images.items()}, "go"
            ),
            r"images of 48x16, before 48x32; scale all with --size 48x32",
        ),
        (lambda row: Row(row.state, row.action, {c: p[:8] for c, p in row.images.items()}, "go"), "images of 48x8"),
    ],
)
def test_rows_that_make_no_dataset_are_refused_in_one_line(tmp_path, change, said):
    with pytest.raises(UserError, match=said) as error, DatasetWriter(tmp_path / "set", FORM) as writer:
        writer.add_episode(map(change, rows(0)), "", "mine")
    assert "\n" not in str(error.value) and not (tmp_path / "set/meta/info.json").exists()


@pytest.mark.parametrize(
    ("licence", "hub", "read"),
    [
        ("MIT", "license: mit", "MIT"),
        ("CC BY-NC-SA 3.0 (KITTI)", "license: other", "CC BY-NC-SA 3.0 (KITTI)"),
        ("", "license: unknown", "unknown"),
    ],
)
def test_the_licence_travels_in_the_card(tmp_path, licence, hub, read):
    written(tmp_path / "set")
    write_card(tmp_path / "set", licence, ["mine: episodes 0 to 2"])
    assert hub in (tmp_path / "set/README.md").read_text()
    assert {episode.licence for episode in lerobot_episodes(tmp_path / "set", [], {})} == {read}
