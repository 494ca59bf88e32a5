"""LeRobot datasets, layouts v2.0/v2.1 (one file per episode) and v3.0 (many episodes per file), as samples.

`observation.state` becomes `Joints`, `action` `JointCommand`, a camera `Frame`, the task `Instruction`; wrist
positions follow where `wm_ros.kinematics` knows the arm. Joints are named as in `meta/info.json`. Values pass as they
were recorded: the G1's are radians; the format does not say the unit, and some robots record degrees or percent.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wm_ros.data.sources import Episode
from wm_ros.data.video import pictures_at
from wm_ros.errors import UserError
from wm_ros.kinematics import hands_of
from wm_ros.types import Frame, HandTrajectory, Instruction, JointCommand, Joints, Sample

START_NS = 1_000_000_000_000
OPTIONS = ("camera", "licence")
_LICENCES = {  # how a licence text begins → its SPDX name
    "MIT License": "MIT",
    "Apache License": "Apache-2.0",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD 2-Clause": "BSD-2-Clause",
    "Attribution 4.0 International": "CC-BY-4.0",
    "CC0 1.0": "CC0-1.0",
    "Attribution-NonCommercial": "CC-BY-NC",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where one episode lies.

    Attributes:
        data: parquet file (v3: of many episodes). video: of the chosen camera, None where there is none.
        video_start_s: where the episode begins in the video. tasks: its instructions, if the metadata says them.
    """

    number: int
    data: Path
    video: Path | None
    video_start_s: float
    tasks: tuple[str, ...]


def lerobot_episodes(path: Path, numbers: list[int], options: dict[str, str]) -> list[Episode]:
    """The episodes of the dataset at `path` whose files are there, or those of `numbers`.

    Args:
        options: `camera` = key or last part of the key of a camera (default: the first one);
            `licence` = of the data, where the dataset does not say it.

    Raises:
        UserError: unknown option, layout or camera, damaged metadata, an episode that is not there.
    """
    path = Path(path)
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown:
        raise UserError(f"dataset '{path}': unknown option '{unknown[0]}'; choose from {', '.join(OPTIONS)}")
    info = _info(path)
    camera = _camera(path, info, options.get("camera"))
    version = str(info.get("codebase_version", "")).removeprefix("v")
    if version.startswith("2."):
        found, tasks = _places_v2(path, info, camera), _tasks_v2(path)
    elif version.startswith("3."):
        found, tasks = _places_v3(path, info, camera), _tasks_v3(path)
    else:
        raise UserError(f"dataset '{path}': codebase_version '{version}' is unknown; convert it to v2.1 or v3.0")
    places = {place.number: place for place in found if place.data.is_file()}
    if not places:
        raise UserError(f"dataset '{path}': no episode's parquet file is there; copy the dataset again")
    missing = [number for number in numbers if number not in places]
    if missing:
        there = ", ".join(map(str, list(places)[:8])) + (", …" if len(places) > 8 else "")
        raise UserError(f"dataset '{path}': episode {missing[0]} is not there; it has {there}")
    chosen = [places[number] for number in numbers] if numbers else list(places.values())
    blind = [place.number for place in chosen if camera and not (place.video and place.video.is_file())]
    if blind and "camera" in options:
        raise UserError(
            f"dataset '{path}': episode {blind[0]} has no video of '{camera}'; copy it or leave camera= out"
        )
    if blind:
        log.warning("dataset '%s': no video of %s in episodes %s; they give joints only", path, camera, blind)
    licence = options.get("licence") or _licence(path, info)
    return [
        Episode(f"{path.name}-{place.number:06d}", licence, partial(_samples, place, info["features"], tasks))
        for place in chosen
    ]


# ----------------------------------------------------------------------------- samples


def _samples(place: Place, features: dict[str, Any], tasks: dict[int, str]) -> Iterator[Sample]:
    """The samples of one episode in time order, at each stamp the frame last."""
    states = _names(features.get("observation.state"))
    actions = _names(features.get("action"))
    pictures: Iterator[Any] | None = None
    if place.video is not None and place.video.is_file():
        times = (place.video_start_s + float(row["timestamp"]) for row in _rows(place, ["timestamp"]))
        pictures = pictures_at(place.video, times)
    wanted = [name for name in ("observation.state", "action", "timestamp", "task_index") if name in features]
    told: str | None = None
    for row in _rows(place, wanted):
        stamp = START_NS + round(float(row["timestamp"]) * 1e9)
        joints = None
        if states:
            joints = Joints(stamp, "", states, _vector(row["observation.state"], states, place))
            yield joints
        if actions:
            yield JointCommand(stamp, "", actions, _vector(row["action"], actions, place))
        text = tasks.get(int(row.get("task_index", 0))) or next(iter(place.tasks), None)
        if text is not None and text != told:
            told = text
            yield Instruction(stamp, "", text)
        for side, wrist in (hands_of(joints) if joints is not None else {}).items():
            position = wrist[None].astype(np.float32)
            yield HandTrajectory(stamp, "torso", side, np.zeros(1), position, np.ones(1, dtype=bool))
        picture = next(pictures, None) if pictures is not None else None
        if picture is not None:
            yield Frame(stamp, "camera", picture)


def _rows(place: Place, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of the episode, a few hundred in memory at a time."""
    try:
        with pq.ParquetFile(place.data) as table:
            for batch in table.iter_batches(batch_size=256, columns=[*names, "episode_index"]):
                for row in batch.to_pylist():
                    if row["episode_index"] == place.number:
                        yield row
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, OSError) as error:
        raise UserError(f"'{place.data}' cannot be read ({_first_line(error)}); copy the dataset again") from None


def _vector(values: Any, names: tuple[str, ...], place: Place) -> np.ndarray[Any, np.dtype[np.float64]]:
    vector = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if vector.shape != (len(names),):
        raise UserError(
            f"'{place.data}': a row has {vector.size} values, meta/info.json names {len(names)}; mend meta/info.json"
        )
    return vector


def _names(feature: dict[str, Any] | None) -> tuple[str, ...]:
    """Joint names of a feature: a list, a list of lists, a dict of lists, or numbered where there are none."""
    if feature is None:
        return ()
    named = feature.get("names")
    groups = list(named.values()) if isinstance(named, dict) else (named or [])
    flat = [name for group in groups for name in (group if isinstance(group, list) else [group])]
    return tuple(str(name) for name in flat) or tuple(f"joint_{i}" for i in range(int(feature["shape"][0])))


# ----------------------------------------------------------------------------- metadata


def _info(path: Path) -> dict[str, Any]:
    where = path / "meta" / "info.json"
    if not where.is_file():
        raise UserError(f"dataset '{path}': meta/info.json is missing; give the root folder of a LeRobot dataset")
    try:
        info = json.loads(where.read_text())
        for key in ("features", "data_path"):
            if key not in info:
                raise UserError(f"dataset '{path}': meta/info.json has no '{key}'; copy the dataset again")
    except ValueError as error:
        raise UserError(f"dataset '{path}': meta/info.json is not JSON ({error}); copy the dataset again") from None
    return dict(info)


def _camera(path: Path, info: dict[str, Any], wanted: str | None) -> str | None:
    cameras = [name for name, feature in info["features"].items() if feature.get("dtype") == "video"]
    if wanted is None:
        return cameras[0] if cameras else None
    for name in cameras:
        if wanted in (name, name.rsplit(".", 1)[-1]):
            return name
    there = ", ".join(cameras) or "none"
    raise UserError(f"dataset '{path}': no camera '{wanted}'; choose one of: {there}")


def _places_v2(path: Path, info: dict[str, Any], camera: str | None) -> Iterator[Place]:
    chunk_size = int(info.get("chunks_size", 1000))
    for row in _json_lines(path / "meta" / "episodes.jsonl"):
        number = int(row["episode_index"])
        where = {"episode_chunk": number // chunk_size, "episode_index": number, "video_key": camera}
        video = path / info["video_path"].format(**where) if camera and info.get("video_path") else None
        yield Place(number, path / info["data_path"].format(**where), video, 0.0, tuple(row.get("tasks", ())))


def _places_v3(path: Path, info: dict[str, Any], camera: str | None) -> Iterator[Place]:
    tables = sorted((path / "meta" / "episodes").glob("*/*.parquet"))
    if not tables:
        raise UserError(f"dataset '{path}': meta/episodes holds no parquet file; copy the dataset again")
    keys = [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    wanted = {"episode_index", "tasks", "data/chunk_index", "data/file_index", *keys}
    for table in tables:
        for row in _table(table, wanted):
            data = info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
            video, start = None, 0.0
            if camera and info.get("video_path") and all(row.get(key) is not None for key in keys):
                chunk, file, start = (row[key] for key in keys)
                video = path / info["video_path"].format(video_key=camera, chunk_index=chunk, file_index=file)
            yield Place(int(row["episode_index"]), path / data, video, float(start), tuple(row.get("tasks") or ()))


def _tasks_v2(path: Path) -> dict[int, str]:
    where = path / "meta" / "tasks.jsonl"
    return {int(row["task_index"]): str(row["task"]) for row in _json_lines(where)} if where.is_file() else {}


def _tasks_v3(path: Path) -> dict[int, str]:
    """Task texts; they are the index of a pandas table, stored as `__index_level_0__` or under a name of its own."""
    where = path / "meta" / "tasks.parquet"
    tasks = {}
    for row in _table(where) if where.is_file() else ():
        texts = [value for name, value in row.items() if name != "task_index" and isinstance(value, str)]
        if texts:
            tasks[int(row["task_index"])] = texts[0]
    return tasks


def _json_lines(where: Path) -> list[dict[str, Any]]:
    if not where.is_file():
        raise UserError(f"'{where}' is missing; copy the dataset again")
    try:
        return [json.loads(line) for line in where.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise UserError(f"'{where}' has a line that is not JSON ({error}); copy the dataset again") from None


def _table(where: Path, wanted: set[str] | None = None) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(where) as table:
            names = [name for name in table.schema_arrow.names if wanted is None or name in wanted]
            return list(table.read(columns=names).to_pylist())
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"'{where}' cannot be read ({_first_line(error)}); copy the dataset again") from None


def _licence(path: Path, info: dict[str, Any]) -> str:
    """SPDX name from a LICENSE file, `license` in info.json or the head of a README; "unknown" where none says it."""
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"):
        if (path / name).is_file():
            head = (path / name).read_text(errors="replace")[:2000]
            return next((spdx for begin, spdx in _LICENCES.items() if begin.lower() in head.lower()), "unknown")
    if isinstance(info.get("license"), str):
        return str(info["license"])
    readme = path / "README.md"
    said = (
        re.match(r"---\n(?:.*\n)*?license:\s*(\S+)", readme.read_text(errors="replace")) if readme.is_file() else None
    )
    return said.group(1) if said else "unknown"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
