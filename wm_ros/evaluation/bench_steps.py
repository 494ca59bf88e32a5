"""Rows of `wm bench`: messages, and one step of `lidar`, `state` and `policy`, on simulated input."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from wm_ros import messages, topics
from wm_ros.capability import load
from wm_ros.data.simulator import drive_samples, tabletop_samples
from wm_ros.evaluation.bench import Row
from wm_ros.evaluation.replay import Pipeline
from wm_ros.paths import bundle_path
from wm_ros.types import Frame, Sample, Sweep

STEPS = {
    "lidar": "sweep_to_forecast",
    "state": "image_to_tokens",
    "policy": "state_to_chunk",
}


def step_rows() -> list[Row]:
    """Inputs come from the simulator; capabilities keep their history."""
    drive = list(drive_samples(seed=1, seconds=1.0))
    tabletop = list(tabletop_samples(seed=1, seconds=4.0, width=256, height=192))
    sweep = next(s for s in drive if isinstance(s, Sweep))
    frame = next(s for s in tabletop if isinstance(s, Frame))
    cdr_points = messages.encode_sample(sweep)[0][1]
    cdr_image = messages.encode_sample(frame)[0][1]
    rows = [
        Row("decode PointCloud2", _timed(lambda: messages.decode(topics.POINTS.type, cdr_points))),
        Row("encode PointCloud2", _timed(lambda: messages.encode_sample(sweep))),
        Row("decode Image 256x192", _timed(lambda: messages.decode(topics.IMAGE.type, cdr_image))),
    ]
    for name, label in STEPS.items():
        optional = importlib.import_module(f"wm_ros.{name}").CAPABILITY.optional_outputs
        for wanted in sorted({frozenset[str](), optional}, key=len):
            if (name, wanted) in (("state", frozenset()), ("future", frozenset())):
                continue  # in files of their own
            capability = load(name, bundle_path(f"{name}-lite"))
            capability.wanted = set(wanted)
            title = " + ".join([label, *sorted(wanted)])
            rows.append(Row(title, stepper(capability, inputs(name, drive if name == "lidar" else tabletop))))
    return rows


def inputs(name: str, samples: list[Sample]) -> list[Sample]:
    """What capability `name` takes of `samples`, tokens of the capabilities before it included."""
    pipeline = Pipeline(["state"], {"state": bundle_path("state-lite")})
    if name in ("future", "policy"):
        return [sample for s in samples for sample, _, prediction in pipeline.step(s) if prediction is None]
    return samples


def stepper(capability: Any, samples: list[Sample]) -> Callable[[int], float]:
    """Each call feeds samples up to and including the next trigger, in a ring; only that step is timed."""
    position = 0

    def run(threads: int) -> float:
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


def _timed(action: Callable[[], object]) -> Callable[[int], float]:
    def run(threads: int) -> float:
        begin = time.perf_counter()
        action()
        return time.perf_counter() - begin

    return run
