"""`wm demo`: the sample bags through the running nodes, what they said recorded, scored, and shown on one page.

Live: the five nodes run as processes, a player publishes a bag, a recorder writes what the nodes publish. Offline: the
same bags through `wm eval`. The page shows both.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from wm_ros import messages, topics
from wm_ros.capability import NAMES
from wm_ros.data.bags import find_bags, read_messages
from wm_ros.errors import UserError
from wm_ros.evaluation.replay import evaluate
from wm_ros.evaluation.report import write_report
from wm_ros.paths import CONFIG, SAMPLES
from wm_ros.topics import Topic
from wm_ros.types import Frame

START_S = 120.0
SETTLE_S = 2.0
PLAY_S = 300.0
# Which picture of each capability tells most at a glance: a word of its caption.
TELLING = {"lidar": "forecast", "state": "two tokens", "future": "frames", "policy": "chunks"}
console = Console()
matplotlib.use("Agg")


def run_demo(out: Path) -> None:
    """Run the demo into the new folder `out`. Raises UserError naming the nodes that gave nothing."""
    bags = find_bags(SAMPLES)
    if not bags:
        raise UserError(f"no sample bags in '{SAMPLES}': run `make samples`")
    out.mkdir(parents=True)
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))  # a demo beside a running stack disturbs neither
    console.print("[bold]1/3[/] live: five nodes, a player, a recorder")
    recorded = {bag.name: out / "recorded" / bag.name for bag in bags}
    for bag in bags:
        _run_live(bag, recorded[bag.name])
    live = {name: Live(path) for name, path in recorded.items()}
    console.print("[bold]2/3[/] offline: the same bags, sample by sample")
    offline = evaluate([str(bag) for bag in bags], out / "offline")
    report = offline.report
    console.print("[bold]3/3[/] report")
    report["live"] = {name: heard.figures() for name, heard in live.items()}
    (out / "metrics.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    tables = [_topic_table(live, bags), _node_table(live)]
    pictures = {f"live: {title}": image for heard in live.values() for title, image in heard.pictures().items()}
    lead = (
        "Two simulated recordings of scenes that no training saw, played through the five nodes and evaluated offline."
    )
    shown = {**offline.pictures, **pictures}
    write_report(out / "report.html", "wm_ros demo", report, shown, lead=lead, tables=tables)
    _overview(offline.pictures, out / "overview.png")
    for table in tables:
        _print(table)
    silent = [node for node in topics.NODES if not any(heard.said(node) for heard in live.values())]
    if silent:
        raise UserError(f"these nodes published nothing: {', '.join(silent)}; run `wm doctor`")
    missing = [name for name in NAMES if name not in report["capabilities"]]
    if missing:
        raise UserError(f"these capabilities could not be scored: {', '.join(missing)}; run `wm doctor`")


def _overview(pictures: dict[str, NDArray[np.uint8]], path: Path) -> None:
    """One picture of all four capabilities: what was predicted beside what came."""
    figure, axes = plt.subplots(2, 2, figsize=(14, 8))
    for axis, (name, word) in zip(axes.flat, TELLING.items(), strict=True):
        own = {key: image for key, image in pictures.items() if key.startswith(name)}
        title = next((key for key in own if word in key), next(iter(own), None))
        axis.axis("off")
        if title is not None:
            image = own[title]
            axis.imshow(np.concatenate(list(image), axis=1) if image.ndim == 4 else image, interpolation="nearest")
            axis.set_title(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _run_live(bag: Path, recording: Path) -> None:
    """Nodes up, recorder on, bag played, everything stopped in order."""
    from wm_ros.nodes.board import Board
    from wm_ros.nodes.supervisor import Supervisor, node_command
    from wm_ros.up import check, ros_environment

    params = CONFIG / "wm.yaml"
    os.environ |= ros_environment()
    arguments = ["--params-file", str(params), "-p", "use_sim_time:=true"]
    commands: dict[str, Sequence[str]] = {name: node_command(name, arguments) for name in check(params, None)}
    supervisor = Supervisor(commands, "", Board().changed)
    wm = [sys.executable, "-m", "wm_ros.cli"]
    try:
        supervisor.start()
        begin = time.monotonic()
        while not supervisor.all_active():
            supervisor.tick()
            if time.monotonic() - begin > START_S:
                raise UserError(f"the nodes did not become active within {START_S:g} s; run `wm doctor`")
        recorder = subprocess.Popen([*wm, "record", "--out", str(recording)])
        _tick(supervisor, SETTLE_S)
        player = subprocess.Popen([*wm, "play", str(bag)])
        begin = time.monotonic()
        while player.poll() is None and time.monotonic() - begin < PLAY_S:
            supervisor.tick()
        _tick(supervisor, SETTLE_S)
        recorder.send_signal(signal.SIGINT)
        recorder.wait(timeout=30)
    finally:
        supervisor.stop()


def _tick(supervisor: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        supervisor.tick()


class Live:
    """What a recording of the running stack holds."""

    def __init__(self, recording: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.status: dict[str, dict[str, str]] = {}
        self.shown: dict[str, list[NDArray[np.uint8]]] = {}
        for name, type_name, t_ns, cdr in read_messages(recording):
            name = name.strip("/")
            self.counts[name] += 1
            if name == "diagnostics":
                for status in messages.decode_diagnostics(cdr):
                    self.status[status.name] = status.values or self.status.get(status.name, {})
            elif name in ("bev/view", "future/strip", "state/reconstruction"):
                image = messages.decode(type_name, cdr, t_ns)
                assert isinstance(image, Frame)
                self.shown.setdefault(name, []).append(image.rgb)

    def said(self, node: str) -> int:
        """Number of messages on the outputs of `node`."""
        return sum(self.counts[topic.name] for topic in topics.OUTPUTS[node])

    def figures(self) -> dict[str, Any]:
        """For metrics.json: messages by topic and the last word of each node's diagnostics."""
        return {"messages": dict(sorted(self.counts.items())), "diagnostics": dict(sorted(self.status.items()))}

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """The picture in the middle of each picture topic, as recorded."""
        return {f"{name}, as published": images[len(images) // 2] for name, images in sorted(self.shown.items())}


def _topic_table(live: dict[str, Live], bags: list[Path]) -> dict[str, Any]:
    played = {bag.name: Counter(name.strip("/") for name, *_ in read_messages(bag)) for bag in bags}
    names = list(played)
    rows = []
    for topic in _inputs():
        counts = [played[name][topic.name] for name in names]
        if any(counts):
            rows.append([topic.name, "in", *map(str, counts)])
    for node in topics.NODES:
        rows += [[t.name, node, *(str(live[name].counts[t.name]) for name in names)] for t in topics.OUTPUTS[node]]
    return {"title": "Messages, live", "head": ["topic", "from", *names], "rows": rows}


def _inputs() -> list[Topic]:
    outputs = {topic.name for node in topics.NODES for topic in topics.OUTPUTS[node]}
    seen: dict[str, Topic] = {t.name: t for node in topics.NODES for t in topics.INPUTS[node] if t.name not in outputs}
    return list(seen.values())


def _node_table(live: dict[str, Live]) -> dict[str, Any]:
    rows = []
    for bag, heard in live.items():
        for node in topics.NODES:
            cycle, age = heard.status.get(f"{node}: cycle", {}), heard.status.get(f"{node}: age", {})
            if heard.said(node):
                figures = [cycle.get("median_ms"), cycle.get("p95_ms"), age.get("median_ms"), age.get("p95_ms")]
                rows.append([node, bag, *(figure or "–" for figure in figures)])
    head = ["node", "bag", "cycle median ms", "p95", "age median ms", "p95"]
    return {"title": "Latency, live: one cycle, and age from stamp to publication", "head": head, "rows": rows}


def _print(table: dict[str, Any]) -> None:
    shown = Table(*table["head"], title=table["title"])
    for row in table["rows"]:
        shown.add_row(*row)
    console.print(shown)
