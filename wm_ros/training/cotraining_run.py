"""`wm cotrain`: every arm of the co-training table, its figures, table and plot."""

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
from numpy.typing import NDArray

from wm_ros.errors import UserError
from wm_ros.evaluation.metrics import summarise, tidy
from wm_ros.evaluation.scorer import Metric
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.state.capability import load_model
from wm_ros.training.cotraining import (
    ARMS,
    CotrainConfig,
    Recording,
    chunk_errors,
    mean_errors,
    still_errors,
    train_policy,
)
from wm_ros.training.image_cache import build_cache

HORIZONS_S = (0.2, 0.5, 1.0)
SEEN = {"images": False, "images + joints": True}
Errors = NDArray[np.float64]  # (windows, CHUNK)


def run(state: Path, data: list[str], test: str, config: CotrainConfig, out: Path) -> Iterator[str]:
    """Train and score everything, saying what is under way; writes cotrain.json, cotrain.md and cotrain.png.

    Args:
        state: bundle whose tokens are used. data: sources for training. test: a source that no training sees.
    """
    model, _ = load_model(state)
    step_s = model.config.step_s
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as cache:
        yield "tokens of the training episodes"
        train = _read(data, model, Path(cache))
        yield "tokens of the test episodes"
        unseen = _read([test], model, Path(cache))
    now = unseen.windows(step_s)
    windows, scored = train.windows(step_s), unseen.arm_rad[now].isfinite().all(1).numpy()
    episodes = np.unique(train.episode[windows[train.arm_rad[windows].isfinite().all(1).numpy()]])
    if not scored.all() or not len(now):
        raise UserError(f"'{test}' has windows without the arm's joints, or none at all; give recordings with joints")
    if len(episodes) < max(config.few) + 1:
        raise UserError(f"few = {max(config.few)}, but only {len(episodes)} episodes have the arm's joints; give more")
    errors: dict[tuple[int, str, str], list[Errors]] = {}
    for seed in config.seeds:
        drawn = np.random.default_rng(seed).permutation(episodes)
        for few in config.few:
            for arm in ARMS:
                if arm == "all" and few != config.few[0]:
                    continue
                yield f"seed {seed}: {arm}, {few} episodes with actions"
                known = episodes if arm == "all" else drawn[:few]
                policy = train_policy(train.without_actions(known), arm, step_s, config, seed)
                for name, joints in SEEN.items():
                    errors.setdefault((few, arm, name), []).append(chunk_errors(policy, unseen, now, joints))
    trivial = {"hold": still_errors(unseen, now), "mean_chunk": mean_errors(train, windows, unseen, now)}
    report = _report(errors, trivial, unseen.episode[now], step_s, config)
    (out / "cotrain.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "cotrain.md").write_text(table(report))
    plot(report, out / "cotrain.png")


def _read(sources: list[str], model: torch.nn.Module, cache_dir: Path) -> Recording:
    config: Any = model.config
    cache = build_cache(sources, config.image_height, config.image_width, cache_dir)
    parts = np.array_split(np.arange(len(cache.episode)), max(1, len(cache.episode) // 64))
    with torch.inference_mode():
        tokens = torch.cat([model.encode(to_tensor(cache.images[part])).flatten(1) for part in parts])  # type: ignore[operator]
    return Recording(tokens.clone(), torch.from_numpy(cache.arm_rad).float(), cache.episode, cache.stamp_s)


def _report(
    errors: dict[tuple[int, str, str], list[Errors]],
    trivial: dict[str, Errors],
    episode: NDArray[np.int64],
    step_s: float,
    config: CotrainConfig,
) -> dict[str, Any]:
    """Figures are means over seeds, those of `trivial` beside them; gains are paired (see `evaluation.metrics`)."""
    rows = []
    for (few, arm, seen), found in errors.items():
        methods = {"model": np.mean(found, 0), "few": np.mean(errors[few, "few", seen], 0), **trivial}
        for horizon_s in HORIZONS_S:
            steps = int(horizon_s / step_s + 1e-6)
            errors_to = {name: error[:, :steps].mean(1) for name, error in methods.items()}
            episodes = [
                [Metric("chunk_mae", "rad", "lower", {name: e[episode == n] for name, e in errors_to.items()})]
                for n in np.unique(episode)
            ]
            per_seed = [float(error[:, :steps].mean()) for error in found]
            place = {"few": few, "arm": arm, "seen": seen, "horizon_s": horizon_s}
            rows.append(place | summarise(episodes)["chunk_mae"] | {"seeds": [tidy(value) for value in per_seed]})
    return {"config": config.model_dump(mode="json"), "test_windows": len(episode), "rows": rows}


def table(report: dict[str, Any]) -> str:
    """Errors of the chunk up to each horizon in milliradians, and the gain over `few`, in Markdown."""
    trivial = {r["horizon_s"]: r["baselines"] for r in report["rows"]}
    said = {
        name: ", ".join(f"{1e3 * trivial[h][name]:.1f} to {h:g} s" for h in HORIZONS_S)
        for name in ("hold", "mean_chunk")
    }
    seeds = len(report["config"]["seeds"])
    lines = [
        f"Mean absolute error of the right arm's joints, 10⁻³ rad, mean of {seeds} seeds; gain over `few` with its",
        f"95 % interval over test episodes. Holding still: {said['hold']}; the mean chunk: {said['mean_chunk']}.",
        "",
        "| sees | with actions | arm | " + " | ".join(f"to {h:g} s | gain" for h in HORIZONS_S) + " |",
        "|---|---|---|" + "---|---|" * len(HORIZONS_S),
    ]
    cells = {(r["seen"], r["few"], r["arm"], r["horizon_s"]): r for r in report["rows"]}
    for seen, few, arm in dict.fromkeys((r["seen"], r["few"], r["arm"]) for r in report["rows"]):
        parts = []
        for horizon_s in HORIZONS_S:
            row = cells[seen, few, arm, horizon_s]
            gain, low, high = (1e3 * edge for edge in row["gains"]["few"])
            parts += [f"{1e3 * row['value']:.2f}", "" if arm == "few" else f"{gain:+.2f} [{low:.2f}, {high:.2f}]"]
        lines.append(f"| {seen} | {'every one' if arm == 'all' else few} | {arm} | " + " | ".join(parts) + " |")
    return "\n".join(lines) + "\n"


def plot(report: dict[str, Any], file: Path) -> None:
    """Error up to 1 s against the number of episodes with actions for each kind of observation; bands span seeds."""
    figure, axes = plt.subplots(1, len(SEEN), figsize=(8, 3.2), layout="constrained")
    for axis, seen in zip(axes, SEEN, strict=True):
        for arm in ARMS:
            rows = [r for r in report["rows"] if (r["seen"], r["arm"], r["horizon_s"]) == (seen, arm, 1.0)]
            error = [1e3 * r["value"] for r in rows]
            seeds = 1e3 * np.array([r["seeds"] for r in rows])
            if arm == "all":
                axis.axhline(error[0], color="grey", linestyle=":", label="actions of all")
            else:
                axis.plot([r["few"] for r in rows], error, marker="o", label=arm)
                axis.fill_between([r["few"] for r in rows], seeds.min(1), seeds.max(1), alpha=0.15)
        axis.set(title=f"sees {seen}", xlabel="episodes with actions", ylabel="error to 1 s, 10⁻³ rad")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)
