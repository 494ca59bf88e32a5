"""Writing a LeRobot dataset, layout v3.0: many episodes in each parquet file and in each video."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wm_ros.data import lerobot_meta as meta
from wm_ros.data.demonstrations import ACTION, IMAGES, STATE, Form, Row
from wm_ros.data.lerobot_stats import column_stats, histogram, image_stats
from wm_ros.data.lerobot_video import VideoFiles
from wm_ros.errors import UserError

MIN_SIDE = 16
Pixels = NDArray[np.int64]


class DatasetWriter:
    """A new dataset in an empty folder; a context manager. It is readable only when the block has ended well.

    Args:
        form: what every row has. data_mb, video_mb: size above which a new file is begun.
    """

    def __init__(
        self, folder: Path, form: Form, data_mb: float = meta.DATA_FILE_MB, video_mb: float = meta.VIDEO_FILE_MB
    ) -> None:
        self.folder, self.form = Path(folder), form
        self.episodes, self.steps = 0, 0
        self.tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []  # of meta/episodes
        self._columns: dict[str, list[NDArray[Any]]] = {}
        self._pixels = {camera: np.zeros((3, 256), np.int64) for camera in form.cameras}
        self._sizes: dict[str, tuple[int, int]] = {}  # camera → height, width
        self._table: pq.ParquetWriter | None = None
        self._file, self._file_bytes, self._max_bytes = -1, 0, data_mb * 2**20
        self._open = ExitStack()
        self._videos = {
            camera: self._open.enter_context(
                VideoFiles(
                    partial(meta.file_path, self.folder, meta.VIDEO_PATH, video_key=IMAGES + camera),
                    form.rate_hz,
                    video_mb * 2**20,
                )
            )
            for camera in form.cameras
        }

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if self._table is not None:
                self._table.close()
        if kind is None:
            self._write_meta()

    def add_episode(self, rows: Iterable[Row], said: str = "", name: str = "") -> int:
        """Write an episode; gives its number of rows, 0 where it has fewer than two and is left out.

        Args:
            said: task of an episode none of whose rows has one. Rows before its first task count as of that task.
            name: of the recording, for errors.

        Raises:
            UserError: a camera changes its size, or there is no task.
        """
        rows = iter(rows)
        first = list(islice(rows, 2))
        if len(first) < 2:
            return 0
        for video in self._videos.values():
            video.begin()
        pixels = {camera: np.zeros((3, 256), np.int64) for camera in self.form.cameras}
        states, actions, tasks = [], [], []
        for row in chain(first, rows):
            states.append(row.state)
            actions.append(row.action)
            tasks.append(row.task)
            for camera, rgb in row.images.items():
                self._check(camera, rgb, name)
                self._videos[camera].write(rgb)
                pixels[camera] += histogram(rgb)
        self._add(np.stack(states), np.stack(actions), self._numbers(tasks, said, name), pixels)
        return len(tasks)

    def _check(self, camera: str, rgb: NDArray[np.uint8], name: str) -> None:
        size = (rgb.shape[0], rgb.shape[1])
        height, width = self._sizes.setdefault(camera, size)
        if size != (height, width):
            raise UserError(
                f"'{name}': camera {camera} has images of {size[1]}x{size[0]}, before {width}x{height}; "
                f"scale all with --size {width}x{height}"
            )
        if min(size) < MIN_SIDE:
            raise UserError(f"'{name}': camera {camera} has images of {size[1]}x{size[0]}; H.264 needs {MIN_SIDE} px")

    def _numbers(self, tasks: list[str], said: str, name: str) -> NDArray[np.int64]:
        """Task index of each row; tasks are numbered as they come."""
        task = next(filter(None, tasks), said)
        if not task:
            raise UserError(f"'{name}' has an episode without instruction; give one with --task")
        numbers = []
        for told in tasks:
            task = told or task
            numbers.append(self.tasks.setdefault(task, len(self.tasks)))
        return np.array(numbers, np.int64)

    def _add(
        self,
        state: NDArray[np.float32],
        action: NDArray[np.float32],
        tasks: NDArray[np.int64],
        pixels: dict[str, Pixels],
    ) -> None:
        count, step = len(state), np.arange(len(state))
        columns: dict[str, NDArray[Any]] = {
            STATE: state,
            ACTION: action,
            "timestamp": (step / self.form.rate_hz).astype(np.float32)[:, None],
            "frame_index": step[:, None],
            "episode_index": np.full((count, 1), self.episodes),
            "index": self.steps + step[:, None],
            "task_index": tasks[:, None],
        }
        stats = {key: column_stats(values) for key, values in columns.items()}
        for key, values in columns.items():
            self._columns.setdefault(key, []).append(values)
        self._write_rows(columns)
        texts = list(self.tasks)
        row: dict[str, Any] = {
            "episode_index": self.episodes,
            "tasks": [texts[index] for index in dict.fromkeys(tasks.tolist())],
            "length": count,
            "data/chunk_index": self._file // meta.FILES_IN_CHUNK,
            "data/file_index": self._file % meta.FILES_IN_CHUNK,
            "dataset_from_index": self.steps,
            "dataset_to_index": self.steps + count,
        }
        for camera, video in self._videos.items():
            place, key = video.end(), IMAGES + camera
            row[f"videos/{key}/chunk_index"] = place.file // meta.FILES_IN_CHUNK
            row[f"videos/{key}/file_index"] = place.file % meta.FILES_IN_CHUNK
            row[f"videos/{key}/from_timestamp"] = place.start_s
            row[f"videos/{key}/to_timestamp"] = place.end_s
            stats[key] = image_stats(pixels[camera], count)
            self._pixels[camera] += pixels[camera]
        self._rows.append(row | {f"stats/{key}/{name}": v for key, of in stats.items() for name, v in of.items()})
        self.episodes, self.steps = self.episodes + 1, self.steps + count

    def _write_rows(self, columns: dict[str, NDArray[Any]]) -> None:
        """An episode is a row group, so that a reader of one episode need not read the others of its file."""
        table = pa.table({key: _arrow(values) for key, values in columns.items()})
        if self._table is None or self._file_bytes + table.nbytes > self._max_bytes:
            if self._table is not None:
                self._table.close()
            self._file, self._file_bytes = self._file + 1, 0
            self._table = pq.ParquetWriter(meta.file_path(self.folder, meta.DATA_PATH, self._file), table.schema)
        self._table.write_table(table)
        self._file_bytes += table.nbytes

    def _write_meta(self) -> None:
        if self.episodes == 0:
            return
        stats = {key: column_stats(np.concatenate(parts)) for key, parts in self._columns.items()}
        stats |= {IMAGES + camera: image_stats(pixels, self.steps) for camera, pixels in self._pixels.items()}
        meta.write_json(self.folder / "meta" / "stats.json", stats)
        meta.write_tasks(self.folder, list(self.tasks))
        meta.write_episodes(self.folder, self._rows)
        found = meta.features(self.form, self._sizes)
        meta.write_info(self.folder, self.form, found, self.episodes, self.steps, len(self.tasks))


def _arrow(values: NDArray[Any]) -> pa.Array:
    """(N, D) as a list of fixed size in each row; (N, 1) as plain numbers, as LeRobot has them."""
    flat = pa.array(values.ravel())
    return flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
