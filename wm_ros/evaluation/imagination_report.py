"""`wm imagine`: rollouts over recordings as figures with intervals, curves, and strips of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from wm_ros.data.sources import Episode, episodes
from wm_ros.errors import UserError
from wm_ros.evaluation.imagination import Rollouts, Scored, metrics_of
from wm_ros.evaluation.metrics import summarise, tidy
from wm_ros.evaluation.replay import Pipeline

PANELS = {
    "wrist_error": "wrist error (mm)",
    "frame_psnr": "frame PSNR (dB)",
    "frame_texture": "texture distance",
    "hand_in_frame": "hand in the frame, from the forecast (mm)",
}


def run(
    sources: list[str],
    bundles: dict[str, Path],
    out: Path,
    *,
    seconds: float = 5.0,
    every_s: float = 2.0,
    progress: Callable[[list[Episode]], Iterable[Episode]] = lambda found: found,
) -> dict[str, Any]:
    """Roll out over every episode of `sources`; write metrics.json, horizon.png and {best,median,worst}.png to `out`.

    Args:
        bundles: folders of "state" and "future".

    Raises:
        UserError: a source cannot be read, or no episode is long enough.
    """
    found = [episode for source in sources for episode in episodes(source)]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    rollouts = Rollouts(Pipeline(["state", "future"], bundles), every_s, seconds)
    scored = {episode.name: rollouts.run(list(episode.samples())) for episode in progress(found)}
    scored = {name: each for name, each in scored.items() if each}
    if not scored:
        raise UserError(f"'{sources[0]}': no episode with images and joints is long enough; give longer recordings")
    metrics = summarise([metrics_of(each) for each in scored.values()])
    report = {
        "schema": 1,
        "inputs": list(scored),
        "rollouts": {name: len(each) for name, each in scored.items()},
        "wrist_not_above_hold_until_s": {
            "all": _until_s(metrics, "wrist_error"),
            "moving": _until_s(metrics, "wrist_error_moving"),
        },
        "metrics": metrics,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    _plot(metrics, out / "horizon.png")
    ranked = sorted(scored, key=lambda name: (_error_mm(scored[name]), name))
    for title, place in (("best", 0), ("median", len(ranked) // 2), ("worst", -1)):
        strip = _strip(scored[ranked[place]])
        cv2.imwrite(str(out / f"{title}.png"), np.ascontiguousarray(strip[..., ::-1]))
    return report


def _curve(metrics: dict[str, dict[str, Any]], key: str) -> list[tuple[float, dict[str, Any]]]:
    """The entries of one figure by ascending horizon (s)."""
    found = [(float(name.split("@")[1][:-1]), entry) for name, entry in metrics.items() if name.split("@")[0] == key]
    return sorted(found, key=lambda pair: pair[0])


def _until_s(metrics: dict[str, dict[str, Any]], key: str) -> float | None:
    """The last horizon up to which the model is nowhere worse than holding; 0 where it is so from the start."""
    curve = _curve(metrics, key)
    reached = 0.0
    for at_s, entry in curve:
        if entry["value"] > entry["baselines"]["hold"]:
            return reached
        reached = at_s
    return reached if curve else None


def _error_mm(rollouts: list[Scored]) -> float | None:
    return tidy(float(np.mean(np.concatenate([r.figures["wrist_error"]["model"] for r in rollouts]))))


def _plot(metrics: dict[str, dict[str, Any]], file: Path) -> None:
    """Each figure against the horizon; the band is that of holding, moved by the interval of the gain."""
    figure, axes = plt.subplots(2, len(PANELS), figsize=(14, 6), sharex=True, layout="constrained")
    for row, (suffix, title) in enumerate((("_moving", "moving at the start"), ("", "all starts"))):
        for column, (key, label) in enumerate(PANELS.items()):
            axis, curve = axes[row, column], _curve(metrics, key + suffix)
            at_s = [at for at, _ in curve]
            axis.plot(at_s, [entry["value"] for _, entry in curve], label="imagined", color="tab:orange")
            axis.set_title(f"{label}, {title}", fontsize=9)
            axis.grid(alpha=0.3)
            axis.set_xlabel("horizon (s)")
            curve = [(at, entry) for at, entry in curve if entry["baselines"]]
            hold = np.array([entry["baselines"]["hold"] for _, entry in curve])
            sign = np.array([-1.0 if entry["better"] == "lower" else 1.0 for _, entry in curve])
            edges = np.array([entry["gain_ci95"] for _, entry in curve], np.float64).reshape(-1, 2)
            if not curve:
                continue
            axis.plot(at_s, hold, label="last one held", color="black", linestyle="--")
            axis.fill_between(at_s, hold + sign * edges[:, 0], hold + sign * edges[:, 1], color="tab:orange", alpha=0.2)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def _strip(rollouts: list[Scored]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Imagined above seen, after each second, of the first rollout that the recording follows furthest."""
    chosen = max(rollouts, key=lambda r: len(r.seen))
    offsets_s = chosen.imagined.offsets_s[: len(chosen.seen)]
    whole = [i for i, at in enumerate(offsets_s) if abs(at - round(at)) < 1e-6]
    rows = [
        np.concatenate([chosen.now, *(images[i] for i in whole)], 1) for images in (chosen.imagined.frames, chosen.seen)
    ]
    return np.concatenate(rows, 0)
