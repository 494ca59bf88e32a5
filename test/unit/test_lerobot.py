"""LeRobot datasets written here in both layouts and read back."""

import json
from itertools import pairwise

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wm_ros.data.lerobot import START_NS, lerobot_episodes
from wm_ros.data.sources import episodes
from wm_ros.data.video import pictures_at
from wm_ros.errors import UserError
from wm_ros.kinematics import ARM_JOINTS
from wm_ros.types import Frame, HandTrajectory, Instruction, JointCommand, Joints

FPS = 10
LENGTHS = (6, 8, 5)
NAMES = [f"kRight{joint}" for joint in ARM_JOINTS]
CAMERA = "observation.images.head"
TASKS = ("pick up the can", "put it down")


def level(number: int, index: int) -> int:
    """Grey of frame `index` of episode `number`: every picture can be told apart from its neighbours."""
    return 20 + 60 * number + 5 * index


def write_video(path, greys, codec):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"g": "4"} if codec != "libsvtav1" else {}
        for grey in greys:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def info(version, **changes):
    vector = {"dtype": "float32", "shape": [7], "names": [NAMES]}
    features = {
        "observation.state": vector,
        "action": vector,
        "observation.images.side": {"dtype": "video", "shape": [48, 64, 3]},
        CAMERA: {"dtype": "video", "shape": [48, 64, 3]},
        **{name: {"dtype": "int64", "shape": [1]} for name in ("timestamp", "episode_index", "task_index")},
    }
    v3 = version.startswith("v3")
    return {
        "codebase_version": version,
        "fps": FPS,
        "chunks_size": 1000,
        "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        if v3
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if v3
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        **changes,
    }


def rows(number):
    count = LENGTHS[number]
    state = np.linspace(0, 0.1 * (number + 1), count * 7).reshape(count, 7)
    return {
        "observation.state": state.astype(np.float32).tolist(),
        "action": (state + 0.01).astype(np.float32).tolist(),
        "timestamp": (np.arange(count) / FPS).astype(np.float32),
        "episode_index": np.full(count, number),
        "task_index": np.full(count, number % 2),
    }


def write_table(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def v2(tmp_path):
    root = tmp_path / "two"
    for number, length in enumerate(LENGTHS):
        write_table(root / f"data/chunk-000/episode_{number:06d}.parquet", rows(number))
        greys = [level(number, i) for i in range(length)]
        write_video(root / f"videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4", greys, "libx264")
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps(info("v2.1")))
    lines = [{"episode_index": i, "tasks": [TASKS[i % 2]], "length": n} for i, n in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "meta/tasks.jsonl").write_text(
        "\n".join(json.dumps({"task_index": i, "task": t}) for i, t in enumerate(TASKS))
    )
    (root / "LICENSE").write_text("MIT License\n\nCopyright")
    return root


@pytest.fixture
def v3(tmp_path):
    """Three episodes in one parquet file and one video; AV1 where FFmpeg can write it."""
    root = tmp_path / "three"
    tables = [rows(number) for number in range(3)]
    write_table(
        root / "data/chunk-000/file-000.parquet", {key: [v for t in tables for v in t[key]] for key in tables[0]}
    )
    greys = [level(number, i) for number, length in enumerate(LENGTHS) for i in range(length)]
    codec = "libsvtav1" if "libsvtav1" in av.codecs_available else "libx264"
    write_video(root / f"videos/{CAMERA}/chunk-000/file-000.mp4", greys, codec)
    starts = np.cumsum([0, *LENGTHS])
    write_table(
        root / "meta/episodes/chunk-000/file-000.parquet",
        {
            "episode_index": range(3),
            "tasks": [[TASKS[i % 2]] for i in range(3)],
            "data/chunk_index": [0] * 3,
            "data/file_index": [0] * 3,
            f"videos/{CAMERA}/chunk_index": [0] * 3,
            f"videos/{CAMERA}/file_index": [0] * 3,
            f"videos/{CAMERA}/from_timestamp": starts[:-1] / FPS,
            f"videos/{CAMERA}/to_timestamp": starts[1:] / FPS,
        },
    )
    write_table(root / "meta/tasks.parquet", {"task_index": range(2), "__index_level_0__": list(TASKS)})
    (root / "meta/info.json").write_text(json.dumps(info("v3.0", license="apache-2.0")))
    return root


def read(root, number, **options):
    (episode,) = lerobot_episodes(root, [number], {"camera": "head", **options})
    return list(episode.samples())


@pytest.mark.parametrize("layout", ["v2", "v3"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_episode_reads_back_as_written(layout, number, request):
    samples = read(request.getfixturevalue(layout), number)
    stamps = [START_NS + round(float(t) * 1e9) for t in rows(number)["timestamp"]]
    joints, commands = ([s for s in samples if type(s) is kind] for kind in (Joints, JointCommand))
    assert [s.stamp_ns for s in joints] == stamps and joints[0].names == tuple(NAMES)
    np.testing.assert_allclose([s.position_rad for s in joints], rows(number)["observation.state"])
    np.testing.assert_allclose([s.position_rad for s in commands], rows(number)["action"])
    frames = [s for s in samples if isinstance(s, Frame)]
    assert [s.stamp_ns for s in frames] == stamps
    expected = [level(number, i) for i in range(LENGTHS[number])]
    np.testing.assert_allclose([s.rgb.mean() for s in frames], expected, atol=2.0)
    assert [s.text for s in samples if isinstance(s, Instruction)] == [TASKS[number % 2]]


@pytest.mark.parametrize("layout", ["v2", "v3"])
def test_samples_are_in_time_order_with_the_frame_last(layout, request):
    samples = read(request.getfixturevalue(layout), 1)
    assert all(a.stamp_ns <= b.stamp_ns for a, b in pairwise(samples))
    assert [type(s) for s in samples[:5]] == [Joints, JointCommand, Instruction, HandTrajectory, Frame]
    assert all(s.side == "right" and s.frame_id == "torso" for s in samples if isinstance(s, HandTrajectory))


def test_every_episode_is_listed_when_none_is_chosen(v2, v3):
    for root, licence in ((v2, "MIT"), (v3, "apache-2.0")):
        found = lerobot_episodes(root, [], {})
        assert [e.name for e in found] == [f"{root.name}-{i:06d}" for i in range(3)]
        assert {e.licence for e in found} == {licence}
    assert [e.name for e in episodes(f"{v2}?episodes=1-2&licence=CC0-1.0")] == ["two-000001", "two-000002"]
    assert episodes(f"{v2}?licence=CC0-1.0")[0].licence == "CC0-1.0"


def test_a_dataset_without_video_gives_joints_only(v2):
    (v2 / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    (v2 / "LICENSE").unlink()
    (episode,) = lerobot_episodes(v2, [1], {})
    kinds = {type(s) for s in episode.samples()}
    assert Joints in kinds and Frame not in kinds and episode.licence == "unknown"


@pytest.mark.parametrize("names", [None, {"motors": NAMES}, NAMES])
def test_joint_names_come_in_several_forms(v2, names):
    changed = info("v2.1")
    changed["features"]["observation.state"] = {"dtype": "float32", "shape": [7], "names": names}
    (v2 / "meta/info.json").write_text(json.dumps(changed))
    joints = next(s for s in read(v2, 0) if type(s) is Joints)
    assert joints.names == (tuple(NAMES) if names else tuple(f"joint_{i}" for i in range(7)))


@pytest.mark.parametrize(
    ("numbers", "options", "said"),
    [
        ([9], {}, "episode 9 is not there"),
        ([], {"camera": "tail"}, "no camera 'tail'"),
        ([], {"camera": "side"}, "episode 0 has no video of 'observation.images.side'"),
        ([], {"speed": "2"}, "unknown option 'speed'"),
    ],
)
def test_a_wrong_choice_is_named(v2, numbers, options, said):
    with pytest.raises(UserError, match=said):
        lerobot_episodes(v2, numbers, options)


def test_damage_is_named(v2):
    episode = lerobot_episodes(v2, [0], {"camera": "head"})[0]
    video = v2 / f"videos/chunk-000/{CAMERA}/episode_000000.mp4"
    video.write_bytes(b"no video" * 50)
    with pytest.raises(UserError, match=r"episode_000000\.mp4' cannot be decoded"):
        list(episode.samples())
    (v2 / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(UserError, match=r"episode_000000\.parquet' cannot be read"):
        list(episode.samples())
    (v2 / "meta/info.json").write_text(json.dumps(info("v1.6")))
    with pytest.raises(UserError, match=r"codebase_version '1\.6' is unknown"):
        lerobot_episodes(v2, [], {})
    (v2 / "meta/info.json").write_text("{")
    with pytest.raises(UserError, match=r"info\.json is not JSON"):
        lerobot_episodes(v2, [], {})


@pytest.mark.parametrize(
    ("key", "value"), [("features", []), ("data_path", "data/{nothing}.parquet"), ("data_path", 3)]
)
@pytest.mark.parametrize("layout", ["v2", "v3"])
def test_garbled_metadata_is_one_line(layout, key, value, request):
    root = request.getfixturevalue(layout)
    changed = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**changed, key: value}))
    with pytest.raises(UserError, match="metadata lacks or garbles") as said:
        lerobot_episodes(root, [], {})
    assert "\n" not in str(said.value)


def test_a_row_of_the_wrong_width_is_named(v2):
    changed = info("v2.1")
    changed["features"]["observation.state"] = {"dtype": "float32", "shape": [6], "names": NAMES[:6]}
    (v2 / "meta/info.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"a row has 7 values, meta/info\.json names 6"):
        read(v2, 0)


def test_pictures_follow_the_asked_times_not_the_order_of_the_file(v2):
    video = v2 / f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
    pictures = list(pictures_at(video, [0.0, 0.31, 0.32, 0.7, 5.0]))
    means = [None if p is None else round(float(p.mean())) for p in pictures]
    assert means[4] is None
    np.testing.assert_allclose(means[:4], [level(1, i) for i in (0, 3, 3, 7)], atol=2)


def test_a_file_without_video_is_named(tmp_path):
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UserError, match="holds no video stream"):
        next(pictures_at(sound, [0.0]))
    with pytest.raises(UserError, match="is missing"):
        next(pictures_at(tmp_path / "none.mp4", [0.0]))
