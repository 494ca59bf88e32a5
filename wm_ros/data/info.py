"""What is in a bag, and which capabilities it can feed: `wm info`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from wm_ros import topics as table
from wm_ros.data.bags import NANO, match_topics, read_messages, summary
from wm_ros.errors import MessageError
from wm_ros.kinematics import arm_for
from wm_ros.messages import TYPESTORE, decode
from wm_ros.topics import SIDES, Topic
from wm_ros.types import Joints


@dataclass(frozen=True)
class TopicLine:
    """One topic of a bag.

    Attributes:
        rate_hz: messages per second between the first and the last; 0 where there are fewer than two.
        first_s, last_s: seconds after the start of the bag; NaN where there is none.
        becomes: the topic of the stack that it is read as, "" where it is not read.
        problem: why its first message cannot be used, "" where it can.
    """

    name: str
    type: str
    count: int
    rate_hz: float
    first_s: float
    last_s: float
    latched: bool
    becomes: str
    problem: str = ""


@dataclass(frozen=True)
class BagInfo:
    """A bag in figures.

    Attributes:
        feeds: capability → "" where it can run, else what is missing. notes: what is missing for a part of it.
    """

    path: Path
    storage: str
    size_bytes: int
    start_ns: int
    duration_s: float
    messages: int
    licence: str
    topics: tuple[TopicLine, ...]
    feeds: dict[str, str]
    notes: dict[str, str]


def describe(path: Path) -> BagInfo:
    """Read a bag once, decoding the first message of each topic that this stack reads.

    Raises:
        BagError: missing, damaged, or several bags; the message says which and what to do.
    """
    bag = summary(path)
    matched = match_topics({t.name: t.type for t in bag.topics})
    spans: dict[str, tuple[int, int]] = {}
    first_joints: Joints | None = None
    problems: dict[str, str] = {}
    for name, kind, t_ns, cdr in read_messages(bag.path):
        if name not in spans and name in matched:
            try:
                sample = decode(kind, cdr, t_ns, matched[name].sample, matched[name].name)
                if matched[name] == table.JOINT_STATES and isinstance(sample, Joints):
                    first_joints = sample
            except MessageError as error:
                problems[name] = str(error)
        first = spans[name][0] if name in spans else t_ns
        spans[name] = (first, t_ns)
    lines = []
    for topic in bag.topics:
        first, last = spans.get(topic.name, (0, 0))
        seconds = (last - first) / NANO
        lines.append(
            TopicLine(
                name=topic.name,
                type=topic.type,
                count=topic.count,
                rate_hz=(topic.count - 1) / seconds if topic.count > 1 and seconds > 0 else 0.0,
                first_s=(first - bag.start_ns) / NANO if topic.name in spans else float("nan"),
                last_s=(last - bag.start_ns) / NANO if topic.name in spans else float("nan"),
                latched=topic.latched,
                becomes=matched[topic.name].name if topic.name in matched else "",
                problem=problems.get(topic.name, ""),
            )
        )
    usable = {line.becomes for line in lines if line.becomes and line.count and not line.problem}
    feeds, notes = _capabilities(usable, first_joints)
    return BagInfo(
        path=bag.path,
        storage=bag.storage,
        size_bytes=sum(f.stat().st_size for f in ([bag.path] if bag.path.is_file() else bag.path.iterdir())),
        start_ns=bag.start_ns,
        duration_s=(bag.end_ns - bag.start_ns) / NANO,
        messages=bag.messages,
        licence=bag.custom.get("licence", ""),
        topics=tuple(lines),
        feeds=feeds,
        notes=notes,
    )


def print_info(info: BagInfo, console: Console | None = None) -> None:
    """Show a bag as two tables: its topics, and the capabilities that it feeds."""
    (console or Console()).print(_rendered(info))


def _capabilities(usable: set[str], joints: Joints | None) -> tuple[dict[str, str], dict[str, str]]:
    """What is missing for each capability, and what is missing for a part of it."""
    image = usable & {table.IMAGE.name, table.IMAGE_COMPRESSED.name}
    missing_image = "" if image else _missing(table.IMAGE, table.IMAGE_COMPRESSED)
    missing_joints = "" if table.JOINT_STATES.name in usable else _missing(table.JOINT_STATES)
    no_arm = ""
    if joints is not None and not any(arm_for(joints.names, side) for side in SIDES):
        no_arm = "joint_states name the joints of no arm that is known"
    feeds = {
        "lidar": "" if table.POINTS.name in usable else _missing(table.POINTS),
        "state": missing_image,
        "future": "; ".join(filter(None, (missing_image, missing_joints or no_arm))),
        "policy": "; ".join(filter(None, (missing_image, missing_joints))),
    }
    notes = dict.fromkeys(feeds, "")
    if table.ODOM.name not in usable:
        notes["lidar"] = f"no occupancy forecast: {_missing(table.ODOM)}"
    if table.INSTRUCTION.name not in usable:
        notes["future"] = notes["policy"] = f"without words: {_missing(table.INSTRUCTION)}"
    return feeds, {name: note if not feeds[name] else "" for name, note in notes.items()}


def _missing(*choices: Topic) -> str:
    return "needs " + " or ".join(f"{t.name} ({t.type.rpartition('/')[2]})" for t in choices)


def _rendered(info: BagInfo) -> Group:
    topics = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    topics.add_column("topic", overflow="fold")
    topics.add_column("type", overflow="fold")
    for name in ("count", "Hz", "first s", "last s"):
        topics.add_column(name, justify="right", no_wrap=True)
    topics.add_column("read as", overflow="fold")
    for t in info.topics:
        unread = "not read" if t.type in TYPESTORE.types else "unknown type"
        read_as = f"[red]{escape(t.problem)}[/red]" if t.problem else t.becomes or f"[dim]{unread}[/dim]"
        seen = t.count > 0 and t.first_s == t.first_s
        topics.add_row(
            escape(t.name) + (" [dim]latched[/dim]" if t.latched else ""),
            escape(t.type.replace("/msg/", "/")),
            str(t.count),
            f"{t.rate_hz:.1f}" if t.rate_hz else "",
            f"{t.first_s:.2f}" if seen else "",
            f"{t.last_s:.2f}" if seen else "",
            read_as,
        )
    feeds = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    feeds.add_column("capability")
    feeds.add_column("can be fed", overflow="fold")
    for name, missing in info.feeds.items():
        note = f", {info.notes[name]}" if info.notes[name] else ""
        feeds.add_row(name, f"[red]no[/red]: {missing}" if missing else f"[green]yes[/green]{note}")
    head = Text.assemble(
        (info.path.name, "bold"),
        f"  {info.storage}, {info.size_bytes / 1e6:.1f} MB, {info.duration_s:.1f} s, {info.messages} messages",
        f", licence: {info.licence}" if info.licence else "",
    )
    return Group(head, topics, feeds)
