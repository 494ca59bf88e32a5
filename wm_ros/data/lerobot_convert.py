"""From recordings to a LeRobot v3.0 dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from wm_ros.data.bag_demonstrations import BagChoice, BagDemonstration, bag_demonstration
from wm_ros.data.bags import LICENCE_UNKNOWN
from wm_ros.data.demonstrations import Demonstrations, Form, form_of
from wm_ros.data.lerobot_meta import write_card
from wm_ros.data.lerobot_writer import DatasetWriter
from wm_ros.data.sources import Episode, episodes
from wm_ros.errors import UserError
from wm_ros.types import Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvertOptions:
    """How recordings become a dataset; see `Form` and `Demonstrations`. `bags`: what of each bag is read."""

    rate_hz: int = 15
    gap_s: float = 1.0
    task: str = ""
    joints: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    robot_type: str = ""
    bags: BagChoice = field(default_factory=BagChoice)


@dataclass(frozen=True)
class Written:
    """What was written."""

    form: Form
    episodes: int
    steps: int
    tasks: tuple[str, ...]
    licence: str


def write_dataset(
    source: str,
    folder: Path,
    options: ConvertOptions,
    progress: Callable[[Episode], Iterable[Sample]] = lambda recording: recording.samples(),
) -> Written:
    """Write the recordings of `source` (as in `wm_ros.data.sources`) as a dataset into the empty `folder`.

    The first recording says which joints and cameras there are; all others must have them too.

    Args:
        progress: gives the samples of a recording, and may show how far they have been read.

    Raises:
        UserError: a recording that gives no episode, or what `form_of`, `bag_demonstration` and `DatasetWriter` refuse.
    """
    recordings = episodes(source, partial(bag_demonstration, choice=options.bags))
    form = _form(source, recordings, options)
    demonstrations = Demonstrations(form, options.gap_s, options.task)
    lines, short = [], 0
    with DatasetWriter(folder, form) as writer:
        for recording in recordings:
            first = writer.episodes
            for said, rows in demonstrations.episodes(progress(recording)):
                short += writer.add_episode(rows, options.task or said, recording.name) == 0
            if writer.episodes == first:
                raise UserError(_nothing(recording, form, options.gap_s))
            lines.append(f"{recording.name}: episodes {first} to {writer.episodes - 1}, {recording.licence}")
    licence = _licence(recordings)
    write_card(folder, licence, lines)
    for what, count in sorted(demonstrations.left_out.items()):
        log.warning("%s: %d %s left out", source, count, what)
    if short:
        log.warning("%s: %d stretches of less than two steps left out", source, short)
    return Written(form, writer.episodes, writer.steps, tuple(writer.tasks), licence)


def _form(source: str, recordings: Sequence[Episode], options: ConvertOptions) -> Form:
    if not recordings:
        raise UserError(f"source '{source}' has no recordings")
    bags = [recording for recording in recordings if isinstance(recording, BagDemonstration)]
    if options.bags != BagChoice() and not bags:
        raise UserError(f"source '{source}': --topic, --camera and --episodes-from are for bags, which it has none of")
    first = recordings[0]
    form = form_of(first.name, first.samples(), options.rate_hz, options.joints, options.size)
    form = replace(form, robot_type=options.robot_type)
    if bags:
        form = replace(form, cameras=bags[0].cameras)
        for bag in bags:
            if missing := sorted(set(form.cameras) - set(bag.cameras)):
                raise UserError(f"'{bag.name}' has no camera '{missing[0]}', which '{first.name}' has; leave one out")
    if not form.cameras:
        log.warning("'%s' has no images: the dataset gets joints and commands only", first.name)
    return form


def _nothing(recording: Episode, form: Form, gap_s: float) -> str:
    cameras = f", images of {', '.join(form.cameras)}" if form.cameras else ""
    return (
        f"'{recording.name}' has no two steps with joints ({', '.join(form.state[:3])}, …), commands{cameras}: "
        f"a stream is missing, or silent for longer than --gap {gap_s:g} s; leave it out, or set --gap or --joints"
    )


def _licence(recordings: Iterable[Episode]) -> str:
    """The licences of all recordings, "" where none says one."""
    stated = {"" if r.licence in (LICENCE_UNKNOWN, "unknown") else r.licence for r in recordings}
    return "" if stated == {""} else "; ".join(sorted(licence or LICENCE_UNKNOWN for licence in stated))
