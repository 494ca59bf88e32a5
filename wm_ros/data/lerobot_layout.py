"""What `meta/` of a LeRobot dataset says: where each episode lies, its tasks, joint names, cameras and licence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from wm_ros.errors import UserError

_LICENCES = {  # how a licence text begins → its SPDX name
    "MIT License": "MIT",
    "Apache License": "Apache-2.0",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD 2-Clause": "BSD-2-Clause",
    "Attribution 4.0 International": "CC-BY-4.0",
    "CC0 1.0": "CC0-1.0",
    "Attribution-NonCommercial": "CC-BY-NC",
}


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


@dataclass(frozen=True)
class Layout:
    """A dataset.

    Attributes:
        places: number → place, of the episodes whose parquet file is there.
        tasks: task index → text. names: feature → joint names. columns: every feature's name.
        camera: key of the chosen camera, None where the dataset has none. licence: SPDX name or "unknown".
    """

    places: dict[int, Place]
    tasks: dict[int, str]
    names: dict[str, tuple[str, ...]]
    columns: frozenset[str]
    camera: str | None
    licence: str


def read_layout(path: Path, camera: str | None) -> Layout:
    """Read the metadata of the dataset at `path`; `camera` is the wanted one, None for the first.

    Raises:
        UserError: metadata is missing, damaged or of an unknown version, no such camera, no episode's file.
    """
    info = _info(path)
    version = str(info.get("codebase_version", "")).removeprefix("v")
    try:
        chosen = _camera(path, info, camera)
        if version.startswith("2."):
            found, tasks = list(_places_v2(path, info, chosen)), _tasks_v2(path)
        elif version.startswith("3."):
            found, tasks = list(_places_v3(path, info, chosen)), _tasks_v3(path)
        else:
            raise UserError(f"dataset '{path}': codebase_version '{version}' is unknown; convert it to v2.1 or v3.0")
        names = {name: _names(info["features"].get(name)) for name in ("observation.state", "action")}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"dataset '{path}': the metadata lacks or garbles {first_line(error)}; copy the dataset again"
        ) from None
    places = {place.number: place for place in found if place.data.is_file()}
    if not places:
        raise UserError(f"dataset '{path}': no episode's parquet file is there; copy the dataset again")
    return Layout(places, tasks, names, frozenset(info["features"]), chosen, _licence(path, info))


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _names(feature: dict[str, Any] | None) -> tuple[str, ...]:
    """Joint names of a feature: a list, a list of lists, a dict of lists, or numbered where there are none."""
    if feature is None:
        return ()
    named = feature.get("names")
    groups = list(named.values()) if isinstance(named, dict) else (named or [])
    flat = [name for group in groups for name in (group if isinstance(group, list) else [group])]
    return tuple(str(name) for name in flat) or tuple(f"joint_{i}" for i in range(int(feature["shape"][0])))


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
        raise UserError(f"'{where}' cannot be read ({first_line(error)}); copy the dataset again") from None


def _licence(path: Path, info: dict[str, Any]) -> str:
    """SPDX name from a LICENSE file, `license` in info.json or the head of a README; "unknown" where none says it."""
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"):
        if (path / name).is_file():
            head = (path / name).read_text(errors="replace")[:2000]
            return next((spdx for begin, spdx in _LICENCES.items() if begin.lower() in head.lower()), "unknown")
    if isinstance(info.get("license"), str):
        return str(info["license"])
    card = _card(path / "README.md")
    said = card.get("license_details") or card.get("license")
    return said if isinstance(said, str) else "unknown"


def _card(readme: Path) -> dict[str, Any]:
    """The YAML at the head of a README, as the Hub reads it; empty where there is none."""
    head = re.match(r"---\n(.*?)\n---", readme.read_text(errors="replace"), re.DOTALL) if readme.is_file() else None
    try:
        found = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        found = None
    return found if isinstance(found, dict) else {}
