"""`wm bench`: how long each step takes beside its peers, at one and two threads; medians and 95th percentiles.

Ours and the peers of a row run in turn in one process on the same input, so that a drift of the machine's speed meets
them alike: judge by ratios. Warm-up is not counted. The machine's load is noted: above 1 before the start, repeat.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

WARM_UP = 3


@dataclass(frozen=True)
class Row:
    """What is timed.

    Attributes:
        ours: threads → seconds of one run. threads: at which it runs. peers: name → seconds of one run; a peer sets
            its own number of threads. facts: what else the report says of the row, from the threads and the median of
            ours (s). peer_runs: timed runs of each peer where it is too slow for all; ours take the rest without it.
    """

    name: str
    ours: Callable[[int], float]
    threads: tuple[int, ...] = (1, 2)
    peers: dict[str, Callable[[], float]] = field(default_factory=dict)
    facts: Callable[[int, float], dict[str, Any]] = lambda threads, median_s: {}
    peer_runs: int | None = None


def run_bench(out: Path, runs: int) -> None:
    """Time every row `runs` times at each thread count; print a table and write it to `out` (JSON)."""
    from wm_ros.evaluation.bench_future import future_rows
    from wm_ros.evaluation.bench_lidar import lidar_rows
    from wm_ros.evaluation.bench_policy import policy_rows
    from wm_ros.evaluation.bench_state import state_rows
    from wm_ros.evaluation.bench_steps import step_rows

    report: dict[str, Any] = {"machine": machine(), "load_before": _load()}
    rows = [*lidar_rows(), *state_rows(), *future_rows(), *policy_rows(), *step_rows()]
    report["rows"] = measure(rows, runs)
    report["load_after"] = _load()
    Console().print(_table(report["rows"]))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


def measure(rows: Iterable[Row], runs: int) -> list[dict[str, Any]]:
    """Rows of the report, one for each row and thread count."""
    before = torch.get_num_threads()
    found = []
    for row in track(list(rows), "timing", console=Console(stderr=True)):
        ours: dict[int, list[float]] = {threads: [] for threads in row.threads}
        peers: dict[str, list[float]] = {name: [] for name in row.peers}
        for run in range(runs + WARM_UP):
            for threads in row.threads:
                torch.set_num_threads(threads)
                ours[threads].append(row.ours(threads))
            if row.peer_runs is None or run < row.peer_runs + WARM_UP:
                for name, peer in row.peers.items():
                    peers[name].append(peer())
            if run == WARM_UP - 1:
                for times in (*ours.values(), *peers.values()):
                    times.clear()
        others = {name: _percentiles(times) for name, times in peers.items()}
        for threads, times in ours.items():
            entry: dict[str, Any] = {"name": row.name, "threads": threads, "ours": _percentiles(times)}
            entry["peers"] = others
            found.append(entry | row.facts(threads, float(np.median(times))))
    torch.set_num_threads(before)
    return found


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = named[0] if named else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "torch": torch.__version__, "python": platform.python_version()}


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _percentiles(times_s: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(np.array(times_s) * 1e3, [50, 95])
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3), "n": len(times_s)}


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, caption=f"peers: {', '.join(sorted({name for row in rows for name in row['peers']}))}")
    table.add_column("what", no_wrap=True)
    for title in ("threads", "ms", "p95", "peer ms", "p95", "× as fast", "× floor", "PSNR dB", "peer dB"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        ours, peers = row["ours"], row["peers"].values()
        psnr_db: dict[str, float] = row.get("psnr_db", {})
        table.add_row(
            row["name"],
            str(row["threads"]),
            f"{ours['p50_ms']:.2f}",
            f"{ours['p95_ms']:.2f}",
            "\n".join(f"{peer['p50_ms']:.1f}" for peer in peers),
            "\n".join(f"{peer['p95_ms']:.1f}" for peer in peers),
            "\n".join(f"{peer['p50_ms'] / ours['p50_ms']:.2f}" for peer in peers),
            str(row.get("times_the_floor", "")),
            f"{psnr_db['ours']:.2f}" if psnr_db else "",
            "\n".join(f"{psnr_db[name]:.2f}" for name in row["peers"]) if psnr_db else "",
        )
    return table
