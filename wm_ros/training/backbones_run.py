"""`wm backbones`: every backbone and length of the past, their figures, tables and plot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from wm_ros.errors import UserError
from wm_ros.evaluation.bench import machine
from wm_ros.evaluation.metrics import summarise, tidy
from wm_ros.evaluation.scorer import Metric
from wm_ros.training.backbones import (
    HORIZONS_S,
    Arm,
    BackbonesConfig,
    Data,
    Errors,
    baseline_errors,
    call_times,
    hand_errors,
    moving,
    read,
    train,
    untrained,
)

Key = tuple[Arm, int]  # and history_steps


def run(state: Path, data: list[str], test: str, config: BackbonesConfig, out: Path) -> Iterator[str]:
    """Train and score everything, saying what is under way; writes backbones.json, backbones.md and backbones.png.

    Args:
        state: bundle whose tokens are used. data: sources for training. test: a source that no training sees.

    Raises:
        UserError: a past shorter than the linear path's, or nothing moves in `test`.
    """
    if min(config.history_steps) < config.trajectory.ridge_states:
        shortest, least = min(config.history_steps), config.trajectory.ridge_states
        raise UserError(f"history_steps = {shortest}: the linear path sees {least} states; give {least} or more")
    out.mkdir(parents=True, exist_ok=True)
    yield "windows of all episodes"
    with TemporaryDirectory() as cache:
        windows = read(state, data, test, config, Path(cache))
    if not moving(windows).any():
        raise UserError(f"'{test}': the right wrist never moves; give recordings in which it does")
    keys = [(backbone, length) for length in config.history_steps for backbone in config.arms]
    errors: dict[Key, list[Errors]] = {key: [] for key in keys}
    step_s: dict[Key, list[float]] = {key: [] for key in keys}
    for seed in config.seeds:
        for key in keys:
            yield f"seed {seed}: {key[0]}, a past of {key[1]} steps"
            model, taken_s = train(windows, *key, config, seed)
            errors[key].append(hand_errors(model, windows, key[0]))
            step_s[key] += taken_s
    yield "timing"
    models = [untrained(windows, *key, config.seeds[0]).eval().requires_grad_(False) for key in keys]
    call_s = call_times(models, windows, config.calls)
    costs = [
        {
            "backbone": key[0],
            "history_steps": key[1],
            "parameters": sum(p.numel() for p in model.parameters()),
            "training_step_ms": tidy(float(np.median(step_s[key])) * 1e3, 4),
            "call_p50_ms": tidy(float(np.percentile(times, 50)) * 1e3, 4),
            "call_p95_ms": tidy(float(np.percentile(times, 95)) * 1e3, 4),
        }
        for key, model, times in zip(keys, models, call_s, strict=True)
    ]
    report = {
        "config": config.model_dump(mode="json"),
        "rate_hz": windows.config.rate_hz,
        "machine": machine() | {"threads": torch.get_num_threads()},
        "test_windows": int(moving(windows).sum()),
        "rows": _rows(errors, windows),
        "costs": costs,
    }
    (out / "backbones.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "backbones.md").write_text(table(report))
    plot(report, out / "backbones.png")


def _rows(errors: dict[Key, list[Errors]], data: Data) -> list[dict[str, Any]]:
    """Means over seeds beside the baselines and the first backbone of that length; gains are paired over episodes."""
    rows, baselines, chosen = [], baseline_errors(data), moving(data)
    first = next(iter(errors))[0]
    for (backbone, length), found in errors.items():
        methods = {"model": np.mean(found, 0), **baselines, first: np.mean(errors[first, length], 0)}
        # Against no error at all the gain is minus the error, and so are its edges.
        methods["nothing"] = np.zeros_like(methods["model"])
        for column, horizon_s in enumerate(HORIZONS_S):
            there = chosen & np.isfinite(methods["model"][:, column])
            episodes = []
            for number in np.unique(data.episode[there]):
                some = there & (data.episode == number)
                statistics = {name: error[some, column] for name, error in methods.items()}
                episodes.append([Metric("hand_ade", "mm", "lower", statistics)])
            if not episodes:
                continue  # no episode lasts that long
            entry = summarise(episodes)["hand_ade"]
            _, low, high = entry["gains"].pop("nothing")
            rows.append(
                {
                    "backbone": backbone,
                    "history_steps": length,
                    "horizon_s": horizon_s,
                    "hand_ade_mm": entry["value"],
                    "ci95": [-high, -low],
                    "baselines": {name: entry["baselines"][name] for name in baselines},
                    "gains": entry["gains"],
                    "ci95_over": entry["gain_ci95_over"],
                    "n": entry["n"],
                    "episodes": entry["episodes"],
                    "seeds": [tidy(float(np.mean(each[there, column]))) for each in found],
                }
            )
    return rows


def table(report: dict[str, Any]) -> str:
    """Two tables in Markdown: errors with their gain over the linear path, and what each backbone costs."""
    horizons = list(dict.fromkeys(row["horizon_s"] for row in report["rows"]))
    said = {row["horizon_s"]: row["baselines"] for row in report["rows"]}
    first = report["config"]["backbones"][0]
    lines = [
        "Mean distance of the right wrist up to the horizon while it moves, mm, mean of "
        f"{len(report['config']['seeds'])} seeds; in brackets the gain over `ridge` with its 95 % interval over test",
        f"{report['rows'][0]['ci95_over']}. `vs {first}`: the gain over that backbone up to 1 s.",
        "",
        "| backbone | past, s | " + " | ".join(f"to {h:g} s" for h in horizons) + f" | vs {first} |",
        "|---|---|" + "---|" * (len(horizons) + 1),
    ]
    cells = {(r["backbone"], r["history_steps"], r["horizon_s"]): r for r in report["rows"]}
    for backbone, length in dict.fromkeys((r["backbone"], r["history_steps"]) for r in report["rows"]):
        rows = [cells[backbone, length, h] for h in horizons]
        parts = [f"{row['hand_ade_mm']:.1f} ({_interval(row['gains']['ridge'])})" for row in rows]
        second = cells.get((backbone, length, 1.0))
        beside = _interval(second["gains"][first]) if second and backbone != first else ""
        lines.append(f"| {backbone} | {length / report['rate_hz']:.1f} | " + " | ".join(parts) + f" | {beside} |")
    for name in ("ridge", "constant_velocity", "hold"):
        lines.append(f"| {name} | | " + " | ".join(f"{said[h][name]:.1f}" for h in horizons) + " | |")
    threads = report["machine"]["threads"]
    lines += [
        "",
        f"One window at a time, on {threads} thread{'s' if threads > 1 else ''} of {report['machine']['cpu']}:",
        "",
        "| backbone | past, s | parameters | training, ms per step | forecast, ms (median) | 95 % below |",
        "|---|---|---|---|---|---|",
    ]
    for cost in report["costs"]:
        lines.append(
            f"| {cost['backbone']} | {cost['history_steps'] / report['rate_hz']:.1f} | {cost['parameters']:,} | "
            f"{cost['training_step_ms']:.1f} | {cost['call_p50_ms']:.2f} | {cost['call_p95_ms']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _interval(gain: list[float]) -> str:
    return f"{gain[0]:+.2f} [{gain[1]:.2f}, {gain[2]:.2f}]"


def plot(report: dict[str, Any], file: Path) -> None:
    """Error and gain over `ridge` by horizon at the first length; with several lengths, error up to 1 s by length."""
    lengths = report["config"]["history_steps"]
    backbones = list(dict.fromkeys(row["backbone"] for row in report["rows"]))
    figure, axes = plt.subplots(
        1, 2 + (len(lengths) > 1), figsize=(9 + 3 * (len(lengths) > 1), 3.4), layout="constrained"
    )
    for number, backbone in enumerate(backbones):
        rows = [r for r in report["rows"] if (r["backbone"], r["history_steps"]) == (backbone, lengths[0])]
        at = np.array([r["horizon_s"] for r in rows]) * (1 + 0.03 * (number - len(backbones) / 2))  # side by side
        error = np.array([[r["hand_ade_mm"], *r["ci95"]] for r in rows], float).T
        gain = np.array([r["gains"]["ridge"] for r in rows], float).T
        for axis, (middle, low, high) in zip(axes, (error, gain), strict=False):
            axis.errorbar(at, middle, [middle - low, high - middle], marker="o", markersize=3, label=backbone)
        if len(lengths) > 1:
            ours = [r for r in report["rows"] if (r["backbone"], r["horizon_s"]) == (backbone, 1.0)]
            past_s = [r["history_steps"] / report["rate_hz"] for r in ours]
            axes[2].plot(past_s, [r["hand_ade_mm"] for r in ours], marker="o")
            spans = np.array([[min(r["seeds"]), max(r["seeds"])] for r in ours]).T
            axes[2].fill_between(past_s, *spans, alpha=0.15)
            axes[2].set(xlabel="past, s", ylabel="hand ADE to 1 s, mm (bands: seeds)")
    some = {r["horizon_s"]: r["baselines"]["ridge"] for r in report["rows"]}
    axes[0].plot(list(some), list(some.values()), "k:", label="ridge")
    axes[0].set(xlabel="horizon, s", ylabel="hand ADE, mm", xscale="log")
    axes[1].set(xlabel="horizon, s", ylabel="gain over ridge, mm", xscale="log")
    axes[1].axhline(0, color="black", linestyle=":")
    for axis in axes[:2]:
        axis.set_xticks(list(some), [f"{horizon_s:g}" for horizon_s in some])
        axis.minorticks_off()
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.savefig(file, dpi=110)
    plt.close(figure)
