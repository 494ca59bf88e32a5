"""`wm bench`: how long a step takes, stage by stage, at one and two threads; medians and 95th percentiles.

Everything runs interleaved in one process on the same input, so that a drift of the machine's speed meets all rows
alike; warm-up is not counted. The machine's load is noted: above 1 before the start, repeat.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from wm_ros import messages, topics
from wm_ros.capability import NAMES, load
from wm_ros.data.simulator import drive_samples, tabletop_samples
from wm_ros.evaluation.replay import Pipeline
from wm_ros.paths import bundle_path
from wm_ros.types import Frame, Sample, Sweep

THREADS = (1, 2)


def run_bench(out: Path, runs: int) -> None:
    """Time every row `runs` times at each thread count; print a table and write it to `out` (JSON)."""
    load_before = os.getloadavg()[0]
    rows: dict[tuple[str, int], list[float]] = {}
    for name, action in track(list(_actions().items()), "timing", console=Console(stderr=True)):
        for run in range(runs + 3):
            for threads in THREADS:
                torch.set_num_threads(threads)
                elapsed = action()
                if run >= 3:
                    rows.setdefault((name, threads), []).append(elapsed)
    table = Table("what", "threads", "median ms", "p95 ms", "n")
    report: dict[str, Any] = {"load_before": round(load_before, 2), "cores": os.cpu_count(), "rows": []}
    for (name, threads), times in rows.items():
        median, p95 = np.percentile(np.array(times) * 1e3, [50, 95])
        table.add_row(name, str(threads), f"{median:.2f}", f"{p95:.2f}", str(len(times)))
        row = {
            "name": name,
            "threads": threads,
            "median_ms": round(median, 3),
            "p95_ms": round(p95, 3),
            "n": len(times),
        }
        report["rows"].append(row)
    Console().print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


def _actions() -> dict[str, Callable[[], float]]:
    """Row name → one timed run (seconds). Inputs come from the simulator; capabilities keep their history."""
    drive = list(drive_samples(seed=1, seconds=1.0))
    tabletop = list(tabletop_samples(seed=1, seconds=4.0, width=256, height=192))
    sweep = next(s for s in drive if isinstance(s, Sweep))
    frame = next(s for s in tabletop if isinstance(s, Frame))
    cdr_points = messages.encode_sample(sweep)[0][1]
    cdr_image = messages.encode_sample(frame)[0][1]
    actions: dict[str, Callable[[], float]] = {
        "decode PointCloud2": _timed(lambda: messages.decode(topics.POINTS.type, cdr_points)),
        "encode PointCloud2": _timed(lambda: messages.encode_sample(sweep)),
        "decode Image 256x192": _timed(lambda: messages.decode(topics.IMAGE.type, cdr_image)),
    }
    names = {
        "lidar": "sweep_to_forecast",
        "state": "image_to_tokens",
        "future": "state_to_future",
        "policy": "state_to_chunk",
    }
    for name in NAMES:
        optional = importlib.import_module(f"wm_ros.{name}").CAPABILITY.optional_outputs
        for wanted in sorted({frozenset[str](), optional}, key=len):
            capability = load(name, bundle_path(f"{name}-lite"))
            capability.wanted = set(wanted)
            label = " + ".join([names[name], *sorted(wanted)])
            actions[label] = _stepper(capability, _inputs(name, drive if name == "lidar" else tabletop))
    return actions


def _inputs(name: str, samples: list[Sample]) -> list[Sample]:
    """What capability `name` takes of `samples`, tokens of the capabilities before it included."""
    pipeline = Pipeline(["state"], {"state": bundle_path("state-lite")})
    if name in ("future", "policy"):
        return [sample for s in samples for sample, _, prediction in pipeline.step(s) if prediction is None]
    return samples


def _stepper(capability: Any, samples: list[Sample]) -> Callable[[], float]:
    """Each call feeds samples up to and including the next trigger, in a ring; only that step is timed."""
    position = 0

    def run() -> float:
        nonlocal position
        while True:
            sample = samples[position % len(samples)]
            if position and position % len(samples) == 0:
                capability.reset()
            position += 1
            if not isinstance(sample, capability.inputs):
                continue
            begin = time.perf_counter()
            prediction = capability.step(sample)
            elapsed = time.perf_counter() - begin
            if prediction is not None:
                return elapsed

    return run


def _timed(action: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        begin = time.perf_counter()
        action()
        return time.perf_counter() - begin

    return run
