"""Bags as demonstrations: several cameras, and episodes whose borders a topic says.

Header stamps say when a sample was measured. A message without one (a String, or a sender that leaves it zero) counts
as measured just after the newest stamped message before it was; the time of receipt, which may be of another clock,
decides only in a bag without any stamps.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from wm_ros import topics as table
from wm_ros.data.bag_storage import BagSummary, summary
from wm_ros.data.bag_topics import is_output
from wm_ros.data.bags import NANO, Held, bag_episode, match_topics, read_messages
from wm_ros.data.sources import Episode
from wm_ros.errors import BagError, MessageError
from wm_ros.messages import decode, header_stamp
from wm_ros.messages.cdr import deserialise
from wm_ros.topics import Topic
from wm_ros.types import EpisodeMark, Frame, Sample

log = logging.getLogger(__name__)

EMPTY = "std_msgs/msg/Empty"
_NUMBERS = [f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
BORDER_TYPES = {EMPTY, *(f"std_msgs/msg/{name}" for name in ("Bool", "String", *_NUMBERS))}
_ALWAYS = (table.JOINT_STATES, table.JOINT_COMMANDS, table.INSTRUCTION)
_PICTURES = (table.IMAGE, table.IMAGE_COMPRESSED)
_PLAIN = {"image", "image_raw", "image_color", "image_rect", "image_rect_color", "color", "rgb", "compressed"}


@dataclass(frozen=True)
class BagChoice:
    """What of a bag is read.

    Attributes:
        topics: bag topic → topic of the stack, where its name or type does not tell (see `match_topics`). Several may
            be joint_states or joint_commands, as of two arms; the names of their joints must differ.
        cameras: camera → bag topic; where empty, the image topic that the stack would read.
        borders: bag topic that says where episodes begin and end, "" for gaps only (see `mark_of`).
    """

    topics: dict[str, str] = field(default_factory=dict)
    cameras: dict[str, str] = field(default_factory=dict)
    borders: str = ""


@dataclass(frozen=True)
class BagDemonstration(Episode):
    """A bag, opened with a `BagChoice`; its frames have the name of their camera as frame_id.

    Attributes:
        cameras: their names. messages: how many are read.
    """

    cameras: tuple[str, ...]
    messages: int


@dataclass(frozen=True)
class _Read:
    """What a topic is read as: a topic of the stack, of which camera; `border` is its type where it says borders."""

    topic: Topic | None
    camera: str = ""
    border: str = ""


def bag_demonstration(bag: Path, choice: BagChoice) -> BagDemonstration:
    """A bag as a recording of demonstrations.

    Raises:
        BagError: the bag is missing, damaged or empty, or lacks a topic; the message names it and the remedy.
    """
    content = summary(bag)
    if content.messages == 0:
        raise BagError(f"bag '{bag}': holds no message; leave it out, or record it again")
    chosen = _chosen(content, choice)
    plain = bag_episode(bag)
    cameras = tuple(read.camera for read in chosen.values() if read.camera)
    messages = sum(t.count for t in content.topics if t.name in chosen)
    return BagDemonstration(plain.name, plain.licence, partial(_samples, bag, chosen), cameras, messages)


def mark_of(message: Any, before: Any) -> tuple[bool | None, Any]:
    """Whether an episode begins or ends with a message of `BORDER_TYPES` (None: neither), and the value to remember.

    Each Empty begins a new episode. Of other types the value counts where it changes: an episode begins with it,
    unless it is false, "" or negative, which belong to no episode.
    """
    if message.__msgtype__ == EMPTY:
        return True, None
    value = message.data
    if value == before and before is not None:
        return None, before
    return (bool(value) if isinstance(value, bool | str) else value >= 0), value


def _chosen(content: BagSummary, choice: BagChoice) -> dict[str, _Read]:
    """Which topics are read, as what."""
    there = {t.name: t.type for t in content.topics if t.count}
    names = {name.strip("/"): name for name in there}

    def find(name: str, option: str) -> str:
        if name.strip("/") not in names:
            has = ", ".join(sorted(there))
            raise BagError(f"bag '{content.path}': {option} names the topic '{name}', which is not there; it has {has}")
        return names[name.strip("/")]

    topics, more = dict[str, str](), dict[str, str]()
    for theirs, ours in choice.topics.items():
        (more if ours in topics.values() else topics)[find(theirs, "--topic")] = ours
    matched = match_topics(there, topics)
    for name, ours in more.items():  # the second arm: the same check, with a table that still has the topic
        matched |= match_topics({name: there[name]}, {name: ours})
    found = {name: _Read(topic) for name, topic in matched.items() if topic in _ALWAYS}
    for topic in _ALWAYS[:2]:
        if topic not in matched.values():
            alike = [name for name, kind in there.items() if kind == topic.type and name not in found]
            remedy = f"say which it is: --topic {alike[0]}={topic.name}" if alike else "record it (JointState) too"
            raise BagError(f"bag '{content.path}': no topic {topic.name}; {remedy}")
    found |= _cameras(content, choice, there, matched, {c: find(t, "--camera") for c, t in choice.cameras.items()})
    if choice.borders:
        name = find(choice.borders, "--episodes-from")
        if there[name] not in BORDER_TYPES:
            wanted = "Empty, Bool, String or a whole number of std_msgs"
            raise BagError(f"bag '{content.path}': --episodes-from takes {wanted}; '{name}' is {there[name]}")
        found[name] = replace(found.get(name, _Read(None)), border=there[name])
    return found


def _cameras(
    content: BagSummary, choice: BagChoice, there: dict[str, str], matched: dict[str, Topic], asked: dict[str, str]
) -> dict[str, _Read]:
    pictures = {name: kind for name, kind in there.items() if kind in {t.type for t in _PICTURES}}
    by_type = {topic.type: topic for topic in _PICTURES}
    if asked:
        if wrong := next((t for t in asked.values() if t not in pictures), None):
            kind = there[wrong]
            raise BagError(f"bag '{content.path}': --camera takes Image or CompressedImage; '{wrong}' is {kind}")
        return {topic: _Read(by_type[pictures[topic]], camera) for camera, topic in asked.items()}
    found = [name for topic in _PICTURES for name, t in matched.items() if t is topic][:1]
    others = sorted(name for name in pictures if name.removesuffix("/compressed") not in found and not is_output(name))
    if not found and others:
        raise BagError(
            f"bag '{content.path}': which of its images are cameras? Say --camera NAME=TOPIC for each of them: "
            f"{', '.join(others)}"
        )
    if others:
        log.warning("bag '%s': only %s is read; add others with --camera NAME=TOPIC: %s", content.path, found, others)
    return {name: _Read(matched[name], camera_name(name)) for name in found}


def camera_name(topic: str) -> str:
    """'/head/color/image_raw' → 'head', '/image' → 'camera'."""
    return "_".join(part for part in topic.strip("/").split("/") if part not in _PLAIN) or "camera"


def _samples(bag: Path, chosen: dict[str, _Read]) -> Iterator[Sample]:
    """Samples and episode marks in order of their stamps."""
    refused: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    clock_ns = _first_stamp(bag, chosen) - 1
    if any(read.border not in ("", EMPTY) for read in chosen.values()):
        yield EpisodeMark(clock_ns + 1, "", begins=False)
    value: Any = None
    held = Held()
    for name, kind, t_ns, cdr in read_messages(bag, list(chosen)):
        read = chosen[name]
        stamp_ns = header_stamp(kind, cdr) or 0
        if stamp_ns and not clock_ns - NANO <= stamp_ns <= clock_ns:  # later, or the clock jumped back
            clock_ns = stamp_ns
        now_ns = stamp_ns or clock_ns + 1 or t_ns
        try:
            if read.border:
                begins, value = mark_of(deserialise(kind, cdr), value)
                if begins is not None:
                    yield from held.add(EpisodeMark(now_ns, "", begins), t_ns)
            if read.topic is not None:
                sample = decode(kind, cdr, now_ns, read.topic.sample, read.topic.name)
                named = replace(sample, frame_id=read.camera) if isinstance(sample, Frame) else sample
                yield from held.add(named, t_ns)
        except MessageError as error:
            refused[name] += 1
            reasons.setdefault(name, str(error))
    yield from held.all()
    for name, count in sorted(refused.items()):
        log.warning("bag '%s': %d messages on %s left out (%s)", bag, count, name, reasons[name])


def _first_stamp(bag: Path, chosen: dict[str, _Read]) -> int:
    """The first header stamp; 0 in a bag without any."""
    for _, kind, _, cdr in read_messages(bag, list(chosen)):
        if stamp_ns := header_stamp(kind, cdr):
            return stamp_ns
    return 0
