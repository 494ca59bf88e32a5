"""Deterministic offline evaluation: samples in time order through the capabilities, without any transport.

The order is that of the stamps and nothing else, so a result does not depend on the speed of the machine, on the
rate of a player or on what a network dropped.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros import topics
from wm_ros.bundle import refuse_other_tokens
from wm_ros.capability import NAMES, Capability, load
from wm_ros.data.sources import Episode, episodes
from wm_ros.errors import UserError
from wm_ros.evaluation.metrics import summarise, tidy_row
from wm_ros.evaluation.scorer import Metric, Scorer
from wm_ros.paths import bundle_path
from wm_ros.types import Frame, LidarPrediction, Prediction, Sample, StatePrediction, StateTokens

# What a capability must see at least, and what the topic for it is called, to be scored at all.
NEEDS: dict[str, tuple[topics.Topic, ...]] = {
    "lidar": (topics.POINTS,),
    "state": (topics.IMAGE,),
    "future": (topics.IMAGE, topics.JOINT_STATES),
    "policy": (topics.IMAGE, topics.JOINT_STATES),
}


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        report: as `metrics.json`. pictures: "capability: caption" → image or strip.
        metrics: by capability, those of each episode; `metrics.summarise` pools them, also with those of other runs.
    """

    report: dict[str, Any]
    pictures: dict[str, NDArray[np.uint8]]
    metrics: dict[str, list[list[Metric]]]


class Pipeline:
    """The capabilities wired as the nodes are: tokens of `state` and `lidar` are samples for `future` and `policy`.

    Args:
        without: sample types that no capability is given.
    """

    def __init__(
        self,
        names: Iterable[str],
        bundles: dict[str, Path],
        device: str = "cpu",
        without: frozenset[type[Sample]] = frozenset(),
    ) -> None:
        self.without = without
        self.names = [name for name in NAMES if name in set(names)]
        self.bundles, self.device = bundles, device
        for name in self.names:
            if "state" in bundles and StateTokens in self._type(name).inputs:
                refuse_other_tokens(bundles["state"], bundles[name])
        self.loaded: dict[str, Capability] = {}
        self.inputs = {name: self._type(name).inputs for name in self.names}

    def reset(self) -> None:
        """Forget the history of all capabilities: a new episode begins."""
        for capability in self.loaded.values():
            capability.reset()

    def step(self, sample: Sample) -> Iterator[tuple[Sample, str, Prediction | None]]:
        """Give `sample`, then for each capability that it triggers its prediction, then the tokens that follow."""
        yield sample, "", None
        if type(sample) in self.without:
            return
        derived: list[Sample] = []
        for name in self.names:
            if not isinstance(sample, self.inputs[name]):
                continue
            prediction = self.capability(name).step(sample)
            if prediction is None:
                continue
            yield sample, name, prediction
            if isinstance(prediction, StatePrediction | LidarPrediction):
                derived.append(prediction.tokens)
        for tokens in derived:
            yield from self.step(tokens)

    @staticmethod
    def _type(name: str) -> type[Capability]:
        kind: type[Capability] = importlib.import_module(f"wm_ros.{name}").CAPABILITY
        return kind

    def capability(self, name: str) -> Capability:
        """The capability `name`, loaded when it is first needed."""
        if name not in self.loaded:
            self.loaded[name] = load(name, self.bundles[name], self.device)
        return self.loaded[name]


def evaluate(
    sources: list[str],
    out: Path,
    *,
    names: Iterable[str] = NAMES,
    bundles: dict[str, str] | None = None,
    threads: int = 1,
    device: str = "cpu",
    without: Iterable[str] = (),
    progress: Callable[[list[Episode]], Iterable[Episode]] = lambda episodes: episodes,
) -> Evaluation:
    """Run the capabilities over every episode of `sources`; write metrics.json, results.jsonl and report.html to `out`.

    Args:
        bundles: capability → bundle folder or name; the shipped lite bundles by default.
        without: topics that the capabilities are not given; what they say is scored against all of them nevertheless.
        progress: wraps the list of episodes, for a progress bar.

    Raises:
        UserError: a source cannot be read or feeds no capability; `without` names no topic.
    """
    found = [episode for source in sources for episode in episodes(source)]
    names, chosen = list(names), bundles or {}
    folders = {name: bundle_path(chosen[name]) for name in chosen}
    folders |= {name: bundle_path(f"{name}-lite") for name in names if name not in chosen}
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    hidden = sorted(set(without))
    pipeline = Pipeline(names, folders, device, frozenset(map(_sample_type, hidden)))
    metrics: dict[str, list[list[Metric]]] = {name: [] for name in names}
    counts = dict.fromkeys(names, 0)
    pictures: dict[str, NDArray[np.uint8]] = {}
    seen: set[type[Sample]] = set()
    out.mkdir(parents=True, exist_ok=True)
    with (out / "results.jsonl").open("w") as results:
        for episode in progress(found):
            pipeline.reset()
            scorers: dict[str, Scorer] = {
                name: importlib.import_module(f"wm_ros.evaluation.{name}").SCORER(folders[name]) for name in names
            }
            predicted = dict.fromkeys(names, 0)
            for original in episode.samples():
                for sample, name, prediction in pipeline.step(original):
                    if prediction is not None:
                        scorers[name].predict(prediction)
                        predicted[name] += 1
                        continue
                    seen.add(type(sample))
                    for scorer in scorers.values():
                        scorer.observe(sample)
            for name in names:
                counts[name] += predicted[name]
                if not predicted[name]:
                    continue
                scores = scorers[name].finish()
                metrics[name].append(scores.metrics)
                for row in scores.rows:
                    row = {"episode": episode.name, "capability": name, **tidy_row(row)}
                    results.write(json.dumps(row, sort_keys=True) + "\n")
                if not any(key.startswith(name) for key in pictures):
                    pictures |= {f"{name}: {title}": image for title, image in scores.pictures.items()}
    report: dict[str, Any] = {
        "schema": 1,
        "inputs": [episode.name for episode in found],
        **({"without": hidden} if hidden else {}),
        "capabilities": {
            name: {"predictions": counts[name], "metrics": summarise(metrics[name])} for name in names if counts[name]
        },
        "skipped": {name: _why(name, seen, pipeline) for name in names if not counts[name]},
    }
    if not report["capabilities"]:
        raise UserError(f"'{sources[0]}' feeds no capability: " + "; ".join(sorted(set(report["skipped"].values()))))
    (out / "metrics.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    from wm_ros.evaluation.report import write_report

    lead = f"The capabilities were not given {', '.join(hidden)}." if hidden else ""
    write_report(out / "report.html", "Offline evaluation", report, pictures, lead=lead)
    return Evaluation(report, pictures, metrics)


def _sample_type(topic: str) -> type[Sample]:
    """What a message of a topic becomes."""
    known = {t.name: t.sample for inputs in topics.INPUTS.values() for t in inputs if t.sample is not None}
    if topic not in known:
        raise UserError(f"without: '{topic}' is not a topic that a node hears; choose among {', '.join(sorted(known))}")
    return known[topic]


def _why(name: str, seen: set[type[Sample]], pipeline: Pipeline) -> str:
    missing = [need for need in NEEDS[name] if need.sample not in seen]
    if missing:
        return f"{name}: no {' and no '.join(f'{need.name} ({need.type})' for need in missing)}"
    if name in pipeline.loaded and pipeline.loaded[name].withheld:
        return f"{name}: {pipeline.loaded[name].withheld}"
    if StateTokens in pipeline.inputs[name] and Frame in seen and StateTokens not in seen:
        return f"{name}: needs the capability state beside it"
    return f"{name}: the recording is too short"
