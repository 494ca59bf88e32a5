"""Load a dataset folder with LeRobot itself, walk through all of its items, and compare them with where they come from.

    python3.11 -m venv /path/to/venv && /path/to/venv/bin/pip install lerobot==0.4.4 rosbags mcap scipy
    PYTHONPATH=. /path/to/venv/bin/python tools/check_lerobot.py DATASET --source BAG_OR_FOLDER_OF_BAGS

LeRobot brings another torch, so it lives in a virtual environment of its own. Without --source the items are compared
with the files of the dataset only. With it, each episode of the dataset must be one whole recording of the source:
at every step its joints and commands must be the last ones by stamp, bit for bit, and its image the last one but for
what the video codec loses. `--train N` trains LeRobot's ACT for N steps. Exit code 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HOME", tempfile.mkdtemp(prefix="check_lerobot_"))  # LeRobot copies tables there

import numpy as np
import pyarrow.parquet as pq
import torch
from lerobot.configs.types import FeatureType, NormalizationMode
from lerobot.datasets.compute_stats import get_feature_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import dataset_to_policy_features
from lerobot.processor.normalize_processor import NormalizerProcessorStep

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
CHUNK = 10  # actions in a window
MIN_PSNR_DB = 30.0
MODES = ("MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10")
failed: list[str] = []


def check(good: bool, what: str) -> None:
    """Print a line, and remember one that is not good."""
    print(f"{'ok    ' if good else 'FAILED'} {what}", flush=True)
    if not good:
        failed.append(what)


def main() -> None:
    """Check one dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--source", help="what it was converted from, as `wm convert bag` took it")
    parser.add_argument("--camera", help="the camera whose images the source gives; all are compared by default")
    parser.add_argument("--backend", default="pyav", help="LeRobot's video decoder: pyav, or torchcodec (wants FFmpeg)")
    parser.add_argument("--train", type=int, default=0, help="steps of ACT")
    given = parser.parse_args()
    if not (given.dataset / "meta" / "info.json").is_file():  # LeRobot would make the folder and ask the Hub
        parser.error(f"'{given.dataset}' is no LeRobot dataset: it has no meta/info.json")
    dataset = opened(given.dataset, given.backend)
    rows = pq.ParquetDataset(given.dataset / "data").read().to_pydict()
    windows(dataset, rows)
    statistics(dataset, rows)
    if given.source:
        against_source(dataset, rows, given.source, given.camera)
    if given.train:
        train(given.dataset, given.backend, given.train)
    print(f"{len(failed)} of the checks failed" if failed else "all checks passed")
    sys.exit(bool(failed))


def opened(folder: Path, backend: str) -> LeRobotDataset:
    """The dataset with windows: two states, two images of each camera, a chunk of actions."""
    plain = LeRobotDataset("local/dataset", root=folder, video_backend=backend)
    step = 1 / plain.fps
    deltas = {STATE: [-step, 0.0], ACTION: [i * step for i in range(CHUNK)]}
    deltas |= {key: [-step, 0.0] for key in plain.meta.camera_keys}
    dataset = LeRobotDataset("local/dataset", root=folder, video_backend=backend, delta_timestamps=deltas)
    info = dataset.meta.info
    count = f"{dataset.num_episodes} episodes, {len(dataset)} items at {plain.fps} Hz"
    print(f"{folder}: {info['codebase_version']}, {count}")
    for key, feature in dataset.meta.features.items():
        print(f"       {key}: {feature['dtype']} {tuple(feature['shape'])}")
    check(len(dataset) == info["total_frames"] == sum(dataset.meta.episodes["length"]), "as many items as announced")
    return dataset


def windows(dataset: LeRobotDataset, rows: dict[str, list[Any]]) -> None:
    """Every item: values, pad masks, times and words as in the files; pictures of the announced size."""
    state, action = np.float32(rows[STATE]), np.float32(rows[ACTION])
    start = np.array(dataset.meta.episodes["dataset_from_index"])[rows["episode_index"]]
    end = np.array(dataset.meta.episodes["dataset_to_index"])[rows["episode_index"]]
    exact, pads, times, pictures = True, True, True, True
    brightness: dict[str, list[np.ndarray[Any, Any]]] = {key: [] for key in dataset.meta.camera_keys}
    for i in range(len(dataset)):
        item = dataset[i]
        before, chunk = np.array([i - 1, i]), i + np.arange(CHUNK)
        exact &= np.array_equal(item[STATE], state[np.maximum(before, start[i])])
        exact &= np.array_equal(item[ACTION], action[np.minimum(chunk, end[i] - 1)])
        pads &= np.array_equal(item[f"{ACTION}_is_pad"], chunk >= end[i])
        pads &= np.array_equal(item[f"{STATE}_is_pad"], before < start[i])
        times &= abs(float(item["timestamp"]) - (i - start[i]) / dataset.fps) < 1e-4
        for key in dataset.meta.camera_keys:
            height, width, _ = dataset.meta.features[key]["shape"]
            pictures &= tuple(item[key].shape) == (2, 3, height, width)
            brightness[key].append(item[key][1].mean((1, 2)).numpy())
    check(exact, f"states and chunks of {CHUNK} actions of all {len(dataset)} items")
    check(pads, "pad masks at the ends of episodes")
    check(times, "times of all items, counted from the beginning of their episode")
    check(pictures, f"two pictures of each camera ({len(dataset.meta.camera_keys)}) in every item, found by their time")
    for key, means in brightness.items():
        far = np.abs(np.mean(means, axis=0) - dataset.meta.stats[key]["mean"].ravel()).max()
        check(far < 0.01, f"mean of {key} as decoded, {far:.1e} (of 1) from the one in the statistics")
    tasks = sorted({dataset[int(i)]["task"] for i in np.unique(start)})
    check(all(isinstance(task, str) and task for task in tasks), f"tasks: {tasks[:4]}")


def statistics(dataset: LeRobotDataset, rows: dict[str, list[Any]]) -> None:
    """meta/stats.json tells the truth, and LeRobot's normalisation with it stays bounded, constant dimensions too."""
    stats = dataset.meta.stats
    for key in (STATE, ACTION):
        values = np.float64(rows[key]).reshape(len(dataset), -1)
        wanted, spread = get_feature_stats(values, axis=0, keepdims=False), np.ptp(values, axis=0)
        apart = max(_apart(stats[key][name], wanted[name], spread) for name in ("mean", "std", "min", "max"))
        good = set(stats[key]) == set(wanted) and stats[key]["count"] == wanted["count"]
        still = f"{int((spread == 0).sum())} constant dimensions"
        what = f"mean, std, min, max of {key}: at most {apart:.0e} of a dimension's range from LeRobot's own ({still})"
        check(good and apart < 1e-4, what)
        off = max(_off(values, stats[key][name], int(name[1:]) / 100) for name in wanted if name.startswith("q"))
        check(off <= 1 / len(values), f"quantiles of {key}: at most {off:.0e} of the values too many on a side")
    features = dataset_to_policy_features(dataset.meta.features)
    batch = {key: torch.tensor(rows[key]).reshape(len(dataset), -1) for key in (STATE, ACTION)}
    for mode in MODES:
        modes = dict.fromkeys(FeatureType, NormalizationMode[mode])
        step = NormalizerProcessorStep(features=features, norm_map=modes, stats=stats)
        still = {key: batch[key].min(0).values == batch[key].max(0).values for key in batch}
        scaled = {
            key: step._apply_transform(values, key, features[key].type, inverse=False) for key, values in batch.items()
        }
        good = all(value.isfinite().all() for value in scaled.values())
        rest = max(float(scaled[key][:, still[key]].abs().max()) if still[key].any() else 0.0 for key in scaled)
        check(good and rest <= 1.0, f"LeRobot's {mode}: finite, constant dimensions become at most {rest:g}")


def _apart(one: Any, other: Any, spread: np.ndarray[Any, Any]) -> float:
    return float((np.abs(one - other) / np.maximum(spread, 1e-6)).max())


def _off(values: np.ndarray[Any, Any], level: np.ndarray[Any, Any], share: float) -> float:
    """By how much of all values more than `share` of them are below a quantile, or less than it not above."""
    below, upto = (values < level).mean(0), (values <= level).mean(0)
    return float(max((below - share).max(), (share - upto).max(), 0.0))


def against_source(dataset: LeRobotDataset, rows: dict[str, list[Any]], source: str, camera: str | None) -> None:
    """Every step beside the last samples of the recording, sought by brute force."""
    from wm_ros.data.sources import episodes
    from wm_ros.types import Frame, JointCommand, Joints

    recordings = episodes(source)
    check(len(recordings) == dataset.num_episodes, f"{dataset.num_episodes} episodes, {len(recordings)} recordings")
    names = {key: dataset.meta.features[key]["names"] for key in (STATE, ACTION)}
    keys = [key for key in dataset.meta.camera_keys if camera is None or key == IMAGES + camera]
    exact, quality, compared, beside = True, list[float](), 0, 0
    for number, recording in enumerate(recordings):
        samples = list(recording.samples())
        joints = [s for s in samples if type(s) is Joints]
        commands = [s for s in samples if isinstance(s, JointCommand)]
        frames = [s for s in samples if isinstance(s, Frame)]
        streams = [joints, commands, frames] if keys else [joints, commands]
        start_ns = max(stream[0].stamp_ns for stream in streams)
        first = dataset.meta.episodes["dataset_from_index"][number]
        for step in range(dataset.meta.episodes["length"][number]):
            now_ns = start_ns + round(step * 1e9 / dataset.fps) + 2_000_000  # the tolerance of the grid
            for key, stream in ((STATE, joints), (ACTION, commands)):
                held = [s for s in stream if s.stamp_ns <= now_ns][-1]
                wanted = [held.position_rad[held.names.index(name)] for name in names[key]]
                exact &= np.array_equal(np.float32(rows[key][first + step]), np.float32(wanted))
            for key in keys:
                seen = [i for i, s in enumerate(frames) if s.stamp_ns <= now_ns][-1]
                shown = dataset[first + step][key][1].permute(1, 2, 0).numpy() * 255
                quality.append(_psnr(shown, frames[seen].rgb))
                for other in {max(seen - 1, 0), min(seen + 1, len(frames) - 1)} - {seen}:
                    told_apart = _psnr(np.float32(frames[seen].rgb), frames[other].rgb) < quality[-1] - 3
                    compared += told_apart
                    beside += told_apart and _psnr(shown, frames[other].rgb) >= quality[-1]
    check(exact, f"joints and commands of all {len(dataset)} steps are the last ones by stamp, to the last bit")
    if keys:
        worst, mean = min(quality), float(np.mean(quality))
        check(
            worst > MIN_PSNR_DB, f"{len(quality)} images against the source: PSNR mean {mean:.1f}, worst {worst:.1f} dB"
        )
        check(beside == 0, f"of {compared} neighbours that the codec can tell apart, {beside} are more like the image")


def _psnr(shown: np.ndarray[Any, Any], rgb: np.ndarray[Any, Any]) -> float:
    error = np.square(shown - rgb[: shown.shape[0], : shown.shape[1]].astype(np.float32)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def train(folder: Path, backend: str, steps: int) -> None:
    """A small ACT of LeRobot, from scratch."""
    from lerobot.datasets.factory import resolve_delta_timestamps
    from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.factory import make_policy, make_pre_post_processors

    torch.manual_seed(0)
    config = ACTConfig(
        chunk_size=CHUNK, n_action_steps=CHUNK, dim_model=64, n_heads=4, dim_feedforward=128, device="cpu"
    )
    config.pretrained_backbone_weights, config.push_to_hub = None, False
    meta = LeRobotDatasetMetadata("local/dataset", root=folder)
    policy = make_policy(config, ds_meta=meta)
    prepare, _ = make_pre_post_processors(config, dataset_stats=meta.stats)
    dataset = LeRobotDataset(
        "local/dataset", root=folder, video_backend=backend, delta_timestamps=resolve_delta_timestamps(config, meta)
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True, drop_last=True)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    losses: list[float] = []
    while len(losses) < steps:
        for batch in loader:
            loss, _ = policy.forward(prepare(batch))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    check(bool(np.isfinite(losses).all()), f"ACT trains: loss {losses[0]:.3f} → {losses[-1]:.3f} in {steps} steps")


if __name__ == "__main__":
    main()
