"""`wm probe lidar`: all starts, shares, modes and seeds of the probe; a table, a plot and the numbers behind them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from wm_ros.evaluation.metrics import tidy
from wm_ros.lidar import scoring
from wm_ros.lidar.representation import effective_rank
from wm_ros.training import lidar_probe
from wm_ros.training.lidar_cache import open_sweeps
from wm_ros.training.lidar_probe import MODES, TASKS, ProbeConfig

Array = NDArray[np.float64]
RESAMPLES = 1000
TITLES = {"road_user": "cells of road users", "occupied_1s": "cells occupied 1 s later"}


def run(
    unlabelled: list[str], labelled: str, test: str, transfer: str | None, config: ProbeConfig, out: Path
) -> Iterator[str]:
    """Do everything, saying what is under way; writes probe.json, probe.md and probe.png into `out`.

    Args:
        unlabelled: sources for pre-training. labelled, test: sources with boxes, of different episodes.
        transfer: a third one that only tests, such as labelled real frames.
    """
    cache, model = out / "cache", config.model
    yield "reading sweeps"
    windows = lidar_probe.open_windows([open_sweeps(s, model, cache) for s in unlabelled], model)
    train = lidar_probe.labelled_sweeps(open_sweeps(labelled, model, cache), config)
    tests = {"test": lidar_probe.labelled_sweeps(open_sweeps(test, model, cache), config)}
    if transfer:
        whole = config.model_copy(update={"every": 1})
        tests["transfer"] = lidar_probe.labelled_sweeps(open_sweeps(transfer, model, cache), whole)
    counts: dict[tuple[str, str, str, float], list[Array]] = {}  # (test, start, mode, share) → by seed
    ranks: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in config.seeds:
        for start in config.starts:
            yield f"seed {seed}: {start}"
            begin = time.perf_counter()
            encoder = lidar_probe.pretrained(start, windows, config, seed)
            seconds.setdefault(start, []).append((time.perf_counter() - begin) / config.pretrain_steps)
            ranks.setdefault(start, []).append(_rank(encoder, tests["test"], config))
            for mode in MODES:
                for share in config.shares:
                    yield f"seed {seed}: {start}, {mode}, {share:.0%} of the labels"
                    own, head = lidar_probe.probe(encoder, train, share, mode, config, seed)
                    for name, data in tests.items():
                        found = lidar_probe.score(own, head, data, config)
                        counts.setdefault((name, start, mode, share), []).append(found)
    report = _report(counts, ranks, seconds, config, len(train), {name: len(data) for name, data in tests.items()})
    (out / "probe.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "probe.md").write_text(table(report))
    plot(report, out / "probe.png")


def _rank(encoder: Any, data: list[lidar_probe.Labelled], config: ProbeConfig) -> float:
    maps = lidar_probe.maps(encoder, data[:: max(1, len(data) // 12)], config).float()
    return float(effective_rank(maps.permute(0, 2, 3, 1)[maps.abs().sum(1) > 0]))


def _report(
    counts: dict[tuple[str, str, str, float], list[Array]],
    ranks: dict[str, list[float]],
    seconds: dict[str, list[float]],
    config: ProbeConfig,
    labelled: int,
    tested: dict[str, int],
) -> dict[str, Any]:
    """Figures by test, task, mode and share; the gains of the first start over the others."""
    rows = []
    for name, mode, share in sorted({(n, m, s) for n, _, m, s in counts}):
        for index, task in enumerate(TASKS):
            stacks = {start: np.stack(counts[name, start, mode, share])[:, :, index] for start in config.starts}
            first, *others = config.starts
            if not stacks[first][..., scoring.BINS :].sum():
                continue  # nothing of the kind in this test
            row: dict[str, Any] = {"test": name, "task": task, "mode": mode, "share": share}
            for start, stack in stacks.items():
                each = [scoring.average_precision(one.sum(0)) for one in stack]
                row[start] = {"ap": tidy(float(np.mean(each))), "by_seed": [tidy(ap) for ap in each]}
            for other in others:
                gain, low, high = _gain(stacks[first], stacks[other])
                row[f"gain_over_{other}"] = [tidy(gain), tidy(low), tidy(high)]
            rows.append(row)
    return {
        "schema": 1,
        "config": config.model_dump(mode="json"),
        "labelled_sweeps": labelled,
        "tested_sweeps": tested,
        "effective_rank": {start: [tidy(r, 4) for r in found] for start, found in ranks.items()},
        "seconds_per_step": {start: tidy(float(np.median(found)), 3) for start, found in seconds.items()},
        "rows": rows,
    }


def _gain(ours: Array, theirs: Array) -> tuple[float, float, float]:
    """Mean over seeds of the difference in AP, and its 95 % interval over seeds and episodes drawn anew together.

    Args:
        ours, theirs: (seeds, episodes, 2 · bins).
    """

    def difference(drawn_seeds: Any, weight: Array) -> float:
        pairs = [(weight @ ours[seed], weight @ theirs[seed]) for seed in drawn_seeds]
        return float(np.mean([scoring.average_precision(a) - scoring.average_precision(b) for a, b in pairs]))

    seeds, episodes = ours.shape[:2]
    rng = np.random.default_rng(0)
    drawn = [
        difference(
            rng.integers(seeds, size=seeds),
            np.bincount(rng.integers(episodes, size=episodes), minlength=episodes).astype(np.float64),
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return difference(np.arange(seeds), np.ones(episodes)), float(low), float(high)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    first, *others = report["config"]["starts"]
    names = ["test", "what", "encoder", "labels", first, *others, *(f"{first} over {other}" for other in others)]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in report["rows"]:
        gains = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*row[f"gain_over_{other}"]) for other in others]
        cells = [row["test"], TITLES[row["task"]], row["mode"], f"{row['share']:.0%}"]
        cells += [f"{row[start]['ap']:.3f}" for start in (first, *others)] + gains
        lines.append("| " + " | ".join(cells) + " |")
    said = [
        f"{start} {np.mean(found):.1f} ({report['seconds_per_step'][start]:.2g} s a step)"
        for start, found in report["effective_rank"].items()
    ]
    return "\n".join(lines) + f"\n\nEffective rank of the embedding on held-out sweeps: {', '.join(said)}.\n"


def plot(report: dict[str, Any], path: Path) -> None:
    """Average precision over the share of labels, one panel for each test, task and mode."""
    panels = sorted({(row["test"], row["task"], row["mode"]) for row in report["rows"]})
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.4 * columns, 2.9 * lines), squeeze=False)
    for axis in axes.ravel()[len(panels) :]:
        axis.axis("off")
    for (test, task, mode), axis in zip(panels, axes.ravel(), strict=False):
        rows = [r for r in report["rows"] if (r["test"], r["task"], r["mode"]) == (test, task, mode)]
        share = [100 * row["share"] for row in rows]
        for start in report["config"]["starts"]:
            axis.plot(share, [row[start]["ap"] for row in rows], marker="o", label=start)
            seeds = np.array([row[start]["by_seed"] for row in rows], np.float64)
            axis.fill_between(share, seeds.min(1), seeds.max(1), alpha=0.15)
        axis.set_xscale("log")
        axis.set_xticks(share, [f"{s:g}" for s in share])
        axis.set_title(f"{TITLES[task]}\n{test}, {mode}", fontsize=9)
        axis.set_xlabel("labels, %")
        axis.set_ylabel("AP")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
