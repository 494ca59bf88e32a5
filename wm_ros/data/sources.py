"""Where samples come from: one string names a source, one iterator gives its episodes.

sim:drive?seeds=0-499&seconds=4        simulated drives, made on the fly (options: those of `drive_samples`)
sim:tabletop?seeds=0-999               simulated grasps
sim:metaworld?task=reach&seeds=0-39    demonstrations of a Meta-World task (extra `sim`)
path/to/bag                            a rosbag2 folder or .mcap file
path/to/folder                         every bag below it
path/to/lerobot?episodes=0-35          a LeRobot dataset (meta/info.json), all or chosen episodes
path/to/kitti                          a KITTI raw drive (velodyne_points/data)
path/to/kitti_object                   labelled KITTI frames (velodyne, label_2, calib), each an episode
path/to/video.mp4?crop=0,0,0.5,1       the images of a video (stamps from its own times), all of each or a part: left,
                                       top, right, bottom as shares of width and height

Every source takes `start_s` and `end_s`: only that stretch of each episode, in seconds from its first sample; and, for
training of `lidar` and `state`, `weight`: how often it is drawn against the other sources (1 where only others give
one; without any, sources are drawn in proportion to their size).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from wm_ros.errors import UserError
from wm_ros.types import Frame, Sample

VIDEOS = {".mp4", ".mkv", ".mov", ".webm", ".avi"}
VIDEO_START_NS = 1_000_000_000_000  # a video knows no date; zero would be "no stamp" in a message


@dataclass(frozen=True)
class Episode:
    """A recording without gaps.

    Attributes:
        name: unique within the source. licence: of the data. samples: opens a fresh iterator in time order.
    """

    name: str
    licence: str
    samples: Callable[[], Iterator[Sample]]


def episodes(source: str, open_bag: Callable[[Path], Episode] | None = None) -> list[Episode]:
    """List the episodes of `source` without reading them.

    Args:
        open_bag: how a bag is opened; `wm_ros.data.bags.bag_episode` by default.

    Raises:
        UserError: naming the source and the remedy.
    """
    location, options = parse(source)
    options.pop("weight", None)
    start_s, end_s = (_number(options.pop(name, ""), source) for name in ("start_s", "end_s"))
    found = _episodes(location, options, source, open_bag)
    if start_s is None and end_s is None:
        return found
    return [
        replace(episode, samples=partial(_stretch, episode.samples, start_s or 0.0, end_s or float("inf")))
        for episode in found
    ]


def weights(sources: list[str]) -> list[float] | None:
    """How often each source is drawn, None where no source gives a `weight`. Raises UserError."""
    given = [weight(source) for source in sources]
    return None if all(w is None for w in given) else [1.0 if w is None else w for w in given]


def weight(source: str) -> float | None:
    """The `weight` that a source string gives, None where it gives none. Raises UserError unless it is positive."""
    found = _number(parse(source)[1].get("weight", ""), source)
    if found is not None and found <= 0:
        raise UserError(f"source '{source}': weight {found:g} is not positive; leave the source out instead")
    return found


def unweighted(source: str) -> str:
    """The source without its `weight`: the same samples. Raises UserError."""
    location, options = parse(source)
    rest = "&".join(f"{name}={value}" for name, value in options.items() if name != "weight")
    return f"{location}?{rest}" if rest else location


def parse(source: str) -> tuple[str, dict[str, str]]:
    """Where a source is, and its options. Raises UserError."""
    location, _, query = source.partition("?")
    try:
        return location, dict(parse_qsl(query, strict_parsing=bool(query)))
    except ValueError:
        raise UserError(f"source '{source}': write options as ?name=value&name=value") from None


def _number(text: str, source: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise UserError(f"source '{source}': '{text}' is not a number") from None


def _stretch(samples: Callable[[], Iterator[Sample]], start_s: float, end_s: float) -> Iterator[Sample]:
    first_ns: int | None = None
    for sample in samples():
        first_ns = sample.stamp_ns if first_ns is None else first_ns
        since_s = (sample.stamp_ns - first_ns) / 1e9
        if start_s <= since_s < end_s:
            yield sample


def _episodes(
    location: str, options: dict[str, str], source: str, open_bag: Callable[[Path], Episode] | None
) -> list[Episode]:
    if location.startswith("sim:"):
        return _simulated(location.removeprefix("sim:"), options, source)
    path = Path(location)
    if not path.exists():
        raise UserError(
            f"source '{source}': no such file or folder; give a bag, a dataset, or e.g. sim:drive, sim:tabletop"
        )
    if (path / "meta" / "info.json").is_file():
        from wm_ros.data.lerobot import lerobot_episodes

        return lerobot_episodes(path, number_range(options.pop("episodes", ""), source), options)
    if path.suffix.lower() in VIDEOS:
        crop = _crop(options.pop("crop", "0,0,1,1"), source)
        _refuse(options, source)
        return [Episode(path.stem, "unknown", partial(_video, path, crop))]
    _refuse(options, source)
    if (path / "velodyne_points" / "data").is_dir():
        from wm_ros.data.kitti import kitti_episode

        return [kitti_episode(path)]
    if all((path / folder).is_dir() for folder in ("velodyne", "label_2", "calib")):
        from wm_ros.data.kitti_labels import kitti_object_episodes

        return kitti_object_episodes(path)
    from wm_ros.data.bags import bag_episode, find_bags

    bags = find_bags(path)
    if not bags:
        raise UserError(f"source '{source}': no bag, LeRobot dataset or KITTI folder in there")
    return [(open_bag or bag_episode)(bag) for bag in bags]


def _crop(text: str, source: str) -> tuple[float, ...]:
    try:
        left, top, right, bottom = edges = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"source '{source}': crop={text} is not left,top,right,bottom; write e.g. 0,0,0.5,1") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UserError(f"source '{source}': crop={text} is no part of the image; give shares, 0 <= left < right <= 1")
    return edges


def _video(path: Path, crop: tuple[float, ...]) -> Iterator[Sample]:
    from wm_ros.data.video import every_picture

    for time_s, rgb in every_picture(path):
        height, width = rgb.shape[:2]
        left, top, right, bottom = (round(edge * size) for edge, size in zip(crop, (width, height) * 2, strict=True))
        yield Frame(VIDEO_START_NS + round(time_s * 1e9), "camera", rgb[top:bottom, left:right])


def number_range(text: str, source: str = "") -> list[int]:
    """'0-3,7' → [0, 1, 2, 3, 7]; '' → []."""
    numbers: list[int] = []
    try:
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    except ValueError:
        raise UserError(f"'{text}' in '{source}' is not a range of numbers; write 0-35 or 1,4,7-9") from None
    return numbers


def _simulated(kind: str, options: dict[str, str], source: str) -> list[Episode]:
    from wm_ros.data import simulator

    makers: dict[str, Callable[..., Iterator[Sample]]] = {
        "drive": simulator.drive_samples,
        "tabletop": simulator.tabletop_samples,
        "metaworld": simulator.metaworld_samples,
    }
    if kind not in makers:
        raise UserError(f"source '{source}': no simulation '{kind}'; choose sim:{', sim:'.join(makers)}")
    seeds = number_range(options.pop("seeds", "0-99"), source)
    known = simulator.OPTIONS[kind]
    _refuse({name: "" for name in options if name not in known}, source)
    words = {name: value for name, value in options.items() if known[name] is str}
    try:
        numbers = {name: known[name](float(value)) for name, value in options.items() if name not in words}
    except ValueError:
        raise UserError(f"source '{source}': options of a simulation are numbers") from None
    arguments: dict[str, Any] = {**words, **numbers}
    make = makers[kind]
    label = "-".join((kind, *words.values()))

    def opener(seed: int) -> Callable[[], Iterator[Sample]]:
        return lambda: make(seed=seed, **arguments)

    return [Episode(f"sim-{label}-{seed:06d}", "Apache-2.0 (simulated)", opener(seed)) for seed in seeds]


def _refuse(options: dict[str, str], source: str) -> None:
    if options:
        raise UserError(f"source '{source}': unknown option '{sorted(options)[0]}'; see `wm train --help`")
