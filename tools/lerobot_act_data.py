"""The data of `lerobot_act.py`: LeRobot datasets, v3.0, decoded once and held in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import torch
from lerobot.datasets.compute_stats import aggregate_stats
from lerobot.datasets.factory import IMAGENET_STATS
from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata
from lerobot_act_model import ACTION, IMAGES, STATE, TASK, Shape
from tqdm import tqdm

from wm_ros.errors import UserError


class Demonstrations:
    """Datasets in memory.

    Attributes:
        shape: what they have. stats: LeRobot's statistics of all. state (N, S), action (N, A), task (N,): of each step.
        images: camera → (N, H, W, 3) uint8. end (N,): first step after the episode. episode (N,): its number.
    """

    def __init__(self, folders: list[Path]) -> None:
        metas = []
        for folder in folders:
            if not (folder / "meta" / "info.json").is_file():  # LeRobot would ask the Hub
                raise UserError(f"'{folder}' is no LeRobot dataset: it has no meta/info.json")
            metas.append(LeRobotDatasetMetadata("local/dataset", root=folder))
        shapes = [_shape(meta) for meta in metas]
        tasks = tuple(dict.fromkeys(task for shape in shapes for task in shape.tasks))
        self.shape = replace(shapes[0], tasks=tasks)
        if wrong := next(
            (f for f, s in zip(folders, shapes, strict=True) if replace(s, tasks=tasks) != self.shape), ""
        ):
            raise UserError(f"'{wrong}' has other cameras, names, sizes or another rate than '{folders[0]}'")
        self.stats: dict[str, Any] = aggregate_stats([meta.stats for meta in metas])
        for camera in self.shape.cameras:
            self.stats[IMAGES + camera] |= {name: np.array(value) for name, value in IMAGENET_STATS.items()}
        rows = [pq.ParquetDataset(folder / "data").read().to_pydict() for folder in folders]
        self.state, self.action = (np.concatenate([np.float32(r[key]) for r in rows]) for key in (STATE, ACTION))
        self.task = np.concatenate(
            [[tasks.index(s.tasks[i]) for i in r["task_index"]] for r, s in zip(rows, shapes, strict=True)]
        )
        lengths = np.concatenate([meta.episodes["length"] for meta in metas])
        self.end = np.repeat(np.cumsum(lengths), lengths)
        self.episode = np.repeat(np.arange(len(lengths)), lengths)
        self.images = {camera: np.concatenate([_decoded(m, camera) for m in metas]) for camera in self.shape.cameras}

    def batch(self, steps: np.ndarray[Any, Any], chunk: int) -> dict[str, torch.Tensor]:
        """As LeRobot's dataset and loader give it: pictures (B, 3, H, W) 0..1, the last action repeated as padding."""
        to_come = steps[:, None] + np.arange(chunk)
        end = self.end[steps][:, None]
        return {
            STATE: torch.from_numpy(self.state[steps]),
            TASK: torch.eye(len(self.shape.tasks))[self.task[steps]],
            ACTION: torch.from_numpy(self.action[np.minimum(to_come, end - 1)]),
            "action_is_pad": torch.from_numpy(to_come >= end),
            **{IMAGES + camera: picture(rgb[steps]) for camera, rgb in self.images.items()},
        }


def _shape(meta: LeRobotDatasetMetadata) -> Shape:
    keys = sorted(meta.camera_keys)
    height, width, _ = meta.features[keys[0]]["shape"] if keys else (0, 0, 0)
    names = (tuple(meta.features[key]["names"]) for key in (STATE, ACTION))
    cameras = tuple(key.removeprefix(IMAGES) for key in keys)
    return Shape(cameras, height, width, *names, tuple(meta.tasks.sort_values("task_index").index), meta.fps)


def _decoded(meta: LeRobotDatasetMetadata, camera: str) -> np.ndarray[Any, Any]:
    """(N, H, W, 3) all pictures of a camera, file by file."""
    key, files = IMAGES + camera, dict[Path, list[np.ndarray[Any, Any]]]()
    height, width, _ = meta.features[key]["shape"]
    out = np.empty((meta.total_frames, height, width, 3), np.uint8)
    for number in tqdm(range(meta.total_episodes), f"decoding {camera}"):
        path = meta.root / meta.get_video_file_path(number, key)
        if path not in files:
            files.clear()
            with av.open(path) as video:
                files[path] = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        row = meta.episodes[number]
        first = round(row[f"videos/{key}/from_timestamp"] * meta.fps)
        out[row["dataset_from_index"] : row["dataset_to_index"]] = files[path][first : first + row["length"]]
    return out


def picture(rgb: np.ndarray[Any, Any]) -> torch.Tensor:
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32, 0..1."""
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).contiguous().float() / 255
