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
from wm_ros.evaluation.metrics import tidy
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.state.capability import load_model
from wm_ros.training.cotraining import ARMS, CHUNK, CotrainConfig, Recording, chunk_errors, train_policy
from wm_ros.training.image_cache import build_cache

HORIZONS_S = (0.2, 0.5, 1.0)
RESAMPLES = 1000
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
    hold = (unseen.arm_rad[now[:, None] + np.arange(1, CHUNK + 1)] - unseen.arm_rad[now][:, None]).abs().mean(2)
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
    report = _report(errors, hold.double().numpy(), unseen.episode[now], step_s, config)
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
    hold: Errors,
    episode: NDArray[np.int64],
    step_s: float,
    config: CotrainConfig,
) -> dict[str, Any]:
    """Figures are means over seeds; intervals are of the paired gain over `few`, a bootstrap over test episodes."""
    rows = []
    for (few, arm, seen), found in errors.items():
        mean, base = np.mean(found, 0), np.mean(errors[few, "few", seen], 0)
        for horizon_s in HORIZONS_S:
            steps = int(horizon_s / step_s + 1e-6)
            own, other = mean[:, :steps].mean(1), base[:, :steps].mean(1)
            low, high = _interval(other - own, episode)
            rows.append(
                {
                    "few": few,
                    "arm": arm,
                    "seen": seen,
                    "horizon_s": horizon_s,
                    "mae_rad": tidy(own.mean()),
                    "gain_over_few": tidy((other - own).mean()),
                    "ci95": [tidy(low), tidy(high)],
                }
            )
    still = {f"{h}": tidy(hold[:, : int(h / step_s + 1e-6)].mean()) for h in HORIZONS_S}
    return {"config": config.model_dump(mode="json"), "hold_mae_rad": still, "test_windows": len(hold), "rows": rows}


def _interval(gain: NDArray[np.float64], episode: NDArray[np.int64]) -> tuple[float, float]:
    numbers = np.unique(episode)
    sums = np.array([[gain[episode == n].sum(), (episode == n).sum()] for n in numbers])
    rng = np.random.default_rng(0)
    drawn = sums[rng.integers(len(numbers), size=(RESAMPLES, len(numbers)))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return float(low), float(high)


def table(report: dict[str, Any]) -> str:
    """Errors of the chunk up to 0.5 and 1 s in milliradians, and the gain over `few`, in Markdown."""
    still = ", ".join(f"{1e3 * value:.1f} to {h} s" for h, value in report["hold_mae_rad"].items())
    seeds = len(report["config"]["seeds"])
    lines = [
        f"Mean absolute error of the right arm's joints, 10⁻³ rad, mean of {seeds} seeds; gain over `few` with its",
        f"95 % interval over test episodes. Holding still: {still}.",
        "",
        "| sees | with actions | arm | to 0.5 s | gain | to 1 s | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    cells = {(r["seen"], r["few"], r["arm"], r["horizon_s"]): r for r in report["rows"]}
    for seen, few, arm in dict.fromkeys((r["seen"], r["few"], r["arm"]) for r in report["rows"]):
        parts = []
        for horizon_s in (0.5, 1.0):
            row = cells[seen, few, arm, horizon_s]
            low, high = (1e3 * edge for edge in row["ci95"])
            gain = "" if arm == "few" else f"{1e3 * row['gain_over_few']:+.2f} [{low:.2f}, {high:.2f}]"
            parts += [f"{1e3 * row['mae_rad']:.2f}", gain]
        lines.append(f"| {seen} | {'every one' if arm == 'all' else few} | {arm} | " + " | ".join(parts) + " |")
    return "\n".join(lines) + "\n"


def plot(report: dict[str, Any], file: Path) -> None:
    """Error up to 1 s against the number of episodes with actions, one panel for each kind of observation."""
    figure, axes = plt.subplots(1, len(SEEN), figsize=(8, 3.2), layout="constrained")
    for axis, seen in zip(axes, SEEN, strict=True):
        for arm in ARMS:
            rows = [r for r in report["rows"] if (r["seen"], r["arm"], r["horizon_s"]) == (seen, arm, 1.0)]
            error = [1e3 * r["mae_rad"] for r in rows]
            if arm == "all":
                axis.axhline(error[0], color="grey", linestyle=":", label="actions of all")
            else:
                axis.plot([r["few"] for r in rows], error, marker="o", label=arm)
        axis.set(title=f"sees {seen}", xlabel="episodes with actions", ylabel="error to 1 s, 10⁻³ rad")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)
