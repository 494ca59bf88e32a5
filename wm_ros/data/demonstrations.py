"""A recording as demonstrations: episodes of rows at a fixed rate, each with joints, commands, images and the task.

An episode ends where the joints or a camera are silent for longer than `gap_s`, where the clock jumps back, and at an
`EpisodeMark`. Its first row is when joints, a command and every camera are there, its last one when the first camera,
or the joints, end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.data.fixed_rate import at_rate
from wm_ros.errors import UserError
from wm_ros.types import EpisodeMark, Frame, Instruction, JointCommand, Joints, Sample

STATE, ACTION, TASK = "observation.state", "action", "task"
IMAGES = "observation.images."
PEEK_S = 2.0


@dataclass(frozen=True)
class Form:
    """What every row has.

    Attributes:
        state, action: joint names, in the order of the values. cameras: their names.
        size: width, height that every image is scaled to; None leaves them as they are.
        robot_type: what a dataset says of the robot, "" for nothing.
    """

    rate_hz: int
    state: tuple[str, ...]
    action: tuple[str, ...]
    cameras: tuple[str, ...]
    size: tuple[int, int] | None = None
    robot_type: str = ""


@dataclass(frozen=True)
class Row:
    """One step. `state`: (S,), `action`: (A,) float32; `images`: camera → (H, W, 3) uint8, H, W even; `task`: words."""

    state: NDArray[np.float32]
    action: NDArray[np.float32]
    images: dict[str, NDArray[np.uint8]]
    task: str


@dataclass
class Demonstrations:
    """Cuts recordings into episodes of one form.

    Attributes:
        task: of every row, "" for the instructions of the recording.
        left_out: counts, in words, what could not be used.
    """

    form: Form
    gap_s: float = 1.0
    task: str = ""
    left_out: Counter[str] = field(default_factory=Counter)

    def episodes(self, samples: Iterable[Sample]) -> Iterator[tuple[str, Iterator[Row]]]:
        """The episodes of one recording, each with the instruction in force before it ("" where none was given).

        Rows before an episode's first instruction have the task ""; read the rows before asking for the next episode.
        """
        said = ""

        def listened() -> Iterator[Sample]:
            nonlocal said
            for sample in samples:
                said = sample.text if isinstance(sample, Instruction) else said
                yield sample

        commanded: dict[str, float] = {}  # stays in force from one episode to the next
        for _, part in groupby(self._numbered(listened()), key=itemgetter(0)):
            yield said, self._rows(map(itemgetter(1), part), commanded)

    def _numbered(self, samples: Iterable[Sample]) -> Iterator[tuple[int, Sample]]:
        """Samples that belong to an episode, with a number that changes at each border."""
        gap_ns = round(self.gap_s * 1e9)
        number, inside = 0, True
        newest: dict[str, int] = {}
        for sample in samples:
            if isinstance(sample, EpisodeMark):
                number, inside = number + 1, sample.begins
                newest.clear()
                continue
            stream = self._stream(sample)
            now_ns = max(newest.values(), default=sample.stamp_ns)
            if stream == STATE or stream.startswith(IMAGES):
                if abs(sample.stamp_ns - newest.get(stream, sample.stamp_ns)) > gap_ns:
                    number += 1
                    newest.clear()
                newest[stream] = max(sample.stamp_ns, newest.get(stream, 0))
            elif stream and abs(sample.stamp_ns - now_ns) > gap_ns:
                if stream == ACTION:
                    self.left_out["commands whose stamps are far from those of joints and images"] += 1
                    continue
                sample = replace(sample, stamp_ns=now_ns)
            if inside and stream:
                yield number, sample

    def _stream(self, sample: Sample) -> str:
        """The stream that a sample belongs to, "" for none of those wanted."""
        if isinstance(sample, JointCommand):
            return ACTION
        if isinstance(sample, Joints):
            return STATE
        if isinstance(sample, Frame):
            return IMAGES + camera_of(sample) if camera_of(sample) in self.form.cameras else ""
        return TASK if isinstance(sample, Instruction) else ""

    def _rows(self, samples: Iterable[Sample], commanded: dict[str, float]) -> Iterator[Row]:
        form, measured = self.form, dict[str, float]()

        def streams() -> Iterator[tuple[str, Sample]]:
            for sample in samples:
                whole: Sample | None = sample
                if isinstance(sample, JointCommand):
                    whole = self._whole(sample, form.action, commanded)
                elif isinstance(sample, Joints):
                    whole = self._whole(sample, form.state, measured)
                if whole is not None:
                    yield self._stream(sample), whole

        steady = (STATE, *(IMAGES + name for name in form.cameras))
        for _, known in at_rate(streams(), form.rate_hz, needed=(ACTION, *steady), until=steady):
            state, action, task = known[STATE], known[ACTION], known.get(TASK)
            assert isinstance(state, Joints) and isinstance(action, JointCommand)
            yield Row(
                state.position_rad.astype(np.float32),
                action.position_rad.astype(np.float32),
                {name: _fit(known[IMAGES + name], form.size) for name in form.cameras},
                self.task or (task.text if isinstance(task, Instruction) else ""),
            )

    def _whole(self, sample: Joints, names: tuple[str, ...], values: dict[str, float]) -> Joints | None:
        """All joints of `names` in this order, from this message and those before; None until each has been seen.

        Drivers of an arm and of its gripper often share a topic, each with its own joints.
        """
        wanted = [(name, value) for name, value in zip(sample.names, sample.position_rad, strict=True) if name in names]
        if not wanted:
            return None
        if not np.isfinite([value for _, value in wanted]).all():
            self.left_out["messages with joints that are not finite"] += 1
            return None
        values.update(wanted)
        if len(values) < len(names):
            return None
        return replace(sample, names=names, position_rad=np.array([values[name] for name in names]))


def camera_of(frame: Frame) -> str:
    """The name of the camera of a frame: letters, digits and underscores of its frame_id."""
    return re.sub(r"\W+", "_", frame.frame_id).strip("_") or "camera"


def _fit(frame: Sample, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The image at the size wanted; a last odd row or column is cut off, since video codecs store colour by fours."""
    assert isinstance(frame, Frame)
    rgb = frame.rgb
    if size is not None and rgb.shape[1::-1] != size:
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    return rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2]


def form_of(
    name: str,
    samples: Iterable[Sample],
    rate_hz: int,
    joints: tuple[str, ...] = (),
    size: tuple[int, int] | None = None,
) -> Form:
    """The form of a recording, from its beginning: up to `PEEK_S` after joints, commands and a camera have come.

    Joints keep the order in which the recording names them first, or that of `joints`. Actions have the order of the
    state; what is commanded without being measured comes last, and is left out where `joints` are given.

    Args:
        name: of the recording, for errors.

    Raises:
        UserError: no joints, no commands, or none of a name in `joints`.
    """
    seen: dict[str, dict[str, None]] = {STATE: {}, ACTION: {}, IMAGES: {}}
    since: dict[str, int] = {}
    for sample in samples:
        if isinstance(sample, Joints):
            stream, found = ACTION if isinstance(sample, JointCommand) else STATE, sample.names
        elif isinstance(sample, Frame):
            stream, found = IMAGES, (camera_of(sample),)
        else:
            continue
        seen[stream].update(dict.fromkeys(found))
        since.setdefault(stream, sample.stamp_ns)
        if len(since) == len(seen) and sample.stamp_ns - max(since.values()) > PEEK_S * 1e9:
            break
    for stream, topic in ((STATE, "joint_states"), (ACTION, "joint_commands")):
        if not seen[stream]:
            raise UserError(f"'{name}' has no usable joints on {topic}; map yours with --topic THEIRS={topic}")
    state = joints or tuple(seen[STATE])
    if missing := [joint for joint in state if joint not in seen[STATE]]:
        raise UserError(f"'{name}' has no joint '{missing[0]}' as --joints asks; it has {', '.join(seen[STATE])}")
    action = [joint for joint in state if joint in seen[ACTION]]
    action += [] if joints else [joint for joint in seen[ACTION] if joint not in state]
    if not action:
        raise UserError(f"'{name}' commands none of --joints; its commands name {', '.join(seen[ACTION])}")
    return Form(rate_hz, state, tuple(action), tuple(seen[IMAGES]), size)
