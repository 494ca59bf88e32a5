"""LeRobot datasets, layouts v2.0/v2.1 (one file per episode) and v3.0 (many episodes per file), as samples.

`observation.state` becomes `Joints`, `action` `JointCommand`, a camera `Frame`, the task `Instruction`; wrist
positions follow where `wm_ros.kinematics` knows the arm. Joints are named as in `meta/info.json`. Values pass as they
were recorded: the G1's are radians; the format does not say the unit, and some robots record degrees or percent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wm_ros.data.lerobot_layout import Layout, Place, first_line, read_layout
from wm_ros.data.sources import Episode
from wm_ros.data.video import pictures_at
from wm_ros.errors import UserError
from wm_ros.kinematics import hands_of
from wm_ros.types import Frame, HandTrajectory, Instruction, JointCommand, Joints, Sample

START_NS = 1_000_000_000_000
OPTIONS = ("camera", "licence")

log = logging.getLogger(__name__)


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
    layout = read_layout(path, options.get("camera"))
    camera, places = layout.camera, layout.places
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
    licence = options.get("licence") or layout.licence
    return [
        Episode(f"{path.resolve().name}-{place.number:06d}", licence, partial(_samples, place, layout))
        for place in chosen
    ]


def _samples(place: Place, layout: Layout) -> Iterator[Sample]:
    """The samples of one episode in time order, at each stamp the frame last."""
    states, actions = layout.names.get("observation.state", ()), layout.names.get("action", ())
    pictures: Iterator[Any] | None = None
    if place.video is not None and place.video.is_file():
        times = (place.video_start_s + float(row["timestamp"]) for row in _rows(place, ["timestamp"]))
        pictures = pictures_at(place.video, times)
    wanted = [name for name in ("observation.state", "action", "timestamp", "task_index") if name in layout.columns]
    camera = (layout.camera or "camera").rsplit(".", 1)[-1]
    told: str | None = None
    for row in _rows(place, wanted):
        stamp = START_NS + round(float(row["timestamp"]) * 1e9)
        joints = None
        if states:
            joints = Joints(stamp, "", states, _vector(row["observation.state"], states, place))
            yield joints
        if actions:
            yield JointCommand(stamp, "", actions, _vector(row["action"], actions, place))
        text = layout.tasks.get(int(row.get("task_index", 0))) or next(iter(place.tasks), None)
        if text is not None and text != told:
            told = text
            yield Instruction(stamp, "", text)
        for side, wrist in (hands_of(joints) if joints is not None else {}).items():
            position = wrist[None].astype(np.float32)
            yield HandTrajectory(stamp, "torso", side, np.zeros(1), position, np.ones(1, dtype=bool))
        picture = next(pictures, None) if pictures is not None else None
        if picture is not None:
            yield Frame(stamp, camera, picture)


def _rows(place: Place, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of the episode, a few hundred in memory at a time."""
    try:
        with pq.ParquetFile(place.data) as table:
            groups = list(_groups(table.metadata, place.number))
            for batch in table.iter_batches(batch_size=256, row_groups=groups, columns=[*names, "episode_index"]):
                for row in batch.to_pylist():
                    if row["episode_index"] == place.number:
                        yield row
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, OSError) as error:
        raise UserError(f"'{place.data}' cannot be read ({first_line(error)}); copy the dataset again") from None


def _groups(metadata: pq.FileMetaData, number: int) -> Iterator[int]:
    """The row groups that may hold rows of an episode: those whose statistics do not say otherwise."""
    for group in range(metadata.num_row_groups):
        columns = (metadata.row_group(group).column(i) for i in range(metadata.num_columns))
        found = next((column.statistics for column in columns if column.path_in_schema == "episode_index"), None)
        if found is None or not found.has_min_max or found.min <= number <= found.max:
            yield group


def _vector(values: Any, names: tuple[str, ...], place: Place) -> np.ndarray[Any, np.dtype[np.float64]]:
    vector = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if vector.shape != (len(names),):
        raise UserError(
            f"'{place.data}': a row has {vector.size} values, meta/info.json names {len(names)}; mend meta/info.json"
        )
    return vector
