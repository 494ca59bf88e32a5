"""Files of `meta/` and the card of a LeRobot dataset, layout v3.0, as LeRobot itself writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wm_ros.data.demonstrations import ACTION, IMAGES, STATE, Form
from wm_ros.data.lerobot_video import CODEC, PIXELS

VERSION = "v3.0"
FILES_IN_CHUNK = 1000
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
COUNTERS = ("frame_index", "episode_index", "index", "task_index")


def file_path(folder: Path, template: str, file: int, **names: str) -> Path:
    """Where the file of a number is to be, in a folder that is there."""
    chunk = {"chunk_index": file // FILES_IN_CHUNK, "file_index": file % FILES_IN_CHUNK}
    path = folder / template.format(**chunk, **names)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def features(form: Form, sizes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """`features` of info.json. `sizes`: camera → height, width."""
    found: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": [len(form.state)], "names": list(form.state)},
        ACTION: {"dtype": "float32", "shape": [len(form.action)], "names": list(form.action)},
    }
    for camera, (height, width) in sizes.items():
        found[IMAGES + camera] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": CODEC,
                "video.pix_fmt": PIXELS,
                "video.is_depth_map": False,
                "video.fps": form.rate_hz,
                "video.channels": 3,
                "has_audio": False,
            },
        }
    found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    return found | {name: {"dtype": "int64", "shape": [1], "names": None} for name in COUNTERS}


def write_info(folder: Path, form: Form, features: dict[str, Any], episodes: int, steps: int, tasks: int) -> None:
    """meta/info.json."""
    info = {
        "codebase_version": VERSION,
        "robot_type": form.robot_type or None,
        "total_episodes": episodes,
        "total_frames": steps,
        "total_tasks": tasks,
        "chunks_size": FILES_IN_CHUNK,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": form.rate_hz,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if form.cameras else None,
        "features": features,
    }
    write_json(folder / "meta" / "info.json", info)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON as LeRobot writes it; a value that is not finite is a mistake of ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False))


def write_tasks(folder: Path, tasks: list[str]) -> None:
    """meta/tasks.parquet: the texts are the index of a pandas table, which pandas knows from the file's metadata."""
    column = {"metadata": None, "pandas_type": "int64", "numpy_type": "int64"}
    index = {"metadata": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [{"name": None, "field_name": None, **index, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **column},
            {"name": None, "field_name": "__index_level_0__", **index},
        ],
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "__index_level_0__": tasks})
    path = folder / "meta" / "tasks.parquet"
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)


def write_episodes(folder: Path, episodes: list[dict[str, Any]]) -> None:
    """meta/episodes: one row for each."""
    where = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
    pq.write_table(pa.Table.from_pylist([row | where for row in episodes]), file_path(folder, EPISODES_PATH, 0))


def write_card(folder: Path, licence: str, recordings: list[str]) -> None:
    """README.md, the card that the Hub shows. `licence` in words; its head has the Hub's name for it too."""
    plain = re.fullmatch(r"[A-Za-z0-9][\w.+-]*", licence)
    known = licence if plain else "other" if licence else "unknown"
    details = [f"license_details: {json.dumps(licence)}"] if licence else []
    head = [
        f"license: {known.lower()}",
        *details,
        "task_categories: [robotics]",
        "tags: [LeRobot]",
        "configs: [{config_name: default, data_files: data/*/*.parquet}]",
    ]
    text = [
        "LeRobot dataset (v3.0), written by `wm convert bag` of wm_ros.",
        f"Licence of the recordings: {licence or 'not stated'}.",
        "Recordings:",
        "\n".join(f"- {name}" for name in recordings),
    ]
    (folder / "README.md").write_text("\n".join(["---", *head, "---"]) + "\n\n" + "\n\n".join(text) + "\n")
