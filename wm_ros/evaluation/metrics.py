"""From per-prediction statistics to `metrics.json`: figures, best baselines, gains and their intervals.

A gain is against the best baseline, in the metric's own unit, and positive when the model is better; `gains` has the
same against each baseline as [gain, low, high]. Intervals are a bootstrap of the paired difference: over episodes where
there are at least five, else over blocks of ten predictions, which keeps neighbours in time together. The generator is
seeded, so equal runs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.evaluation.scorer import Metric

RESAMPLES = 1000
BLOCK = 10
MIN_EPISODES = 5
Array = NDArray[np.float64]


def summarise(episodes: list[list[Metric]]) -> dict[str, dict[str, Any]]:
    """Merge the metrics of episodes by name and give each its entry of `metrics.json`.

    A figure that is not defined (no such object in any episode, say) has none.
    """
    by_name: dict[str, list[Metric]] = {}
    for metrics in episodes:
        for metric in metrics:
            if len(metric.statistics["model"]):
                by_name.setdefault(metric.name, []).append(metric)
    return {name: _entry(parts) for name, parts in sorted(by_name.items()) if _defined(parts)}


def _defined(parts: list[Metric]) -> bool:
    rows = [_rows(part.statistics["model"]) for part in parts]
    total, count = np.sum([r.sum(0) for r in rows], 0), np.array([sum(map(len, rows))], np.float64)
    return bool(np.isfinite(_figure(parts[0].pooled)(total, count)))


def _entry(parts: list[Metric]) -> dict[str, Any]:
    first = parts[0]
    figure = _figure(first.pooled)
    units = {method: _resampling_units([_rows(p.statistics[method]) for p in parts]) for method in first.statistics}
    values = {method: figure(*(part.sum(0) for part in unit)) for method, unit in units.items()}
    baselines = {method: value for method, value in values.items() if method != "model"}
    entry: dict[str, Any] = {
        "value": tidy(values["model"]),
        "unit": first.unit,
        "better": first.better,
        "baselines": {method: tidy(value) for method, value in sorted(baselines.items())},
        "n": sum(len(part.statistics["model"]) for part in parts),
        "episodes": len(parts),
    }
    if baselines:
        sign = 1.0 if first.better == "higher" else -1.0
        best = max(sorted(baselines), key=lambda method: sign * baselines[method])
        gains = {name: sign * (values["model"] - value) for name, value in baselines.items()}
        edges = {name: _interval(units["model"], units[name], figure, sign) for name in baselines}
        entry["best_baseline"] = best
        entry["gain"] = tidy(gains[best])
        entry["gain_ci95"] = [tidy(edge) for edge in edges[best]]
        entry["gains"] = {name: [tidy(x) for x in (gains[name], *edges[name])] for name in sorted(baselines)}
        entry["gain_ci95_over"] = "episodes" if len(parts) >= MIN_EPISODES else f"blocks of {BLOCK} predictions"
    return entry


def _rows(statistic: Array) -> Array:
    array = np.asarray(statistic, np.float64)
    return array[:, None] if array.ndim == 1 else array


def _figure(pooled: Callable[[Array], float] | None) -> Callable[[Array, Array], float]:
    """The figure of summed rows and their number: the pooled one, or the mean."""
    if pooled is None:
        return lambda total, count: float(total[0] / count[0])
    return lambda total, count: float(pooled(total))


def _resampling_units(episodes: list[Array]) -> tuple[Array, Array]:
    """Sums (units, k) and counts (units, 1) of what the bootstrap draws: episodes, or blocks of rows within them."""
    if len(episodes) < MIN_EPISODES:
        blocks = [rows[at : at + BLOCK] for rows in episodes for at in range(0, len(rows), BLOCK)]
    else:
        blocks = episodes
    return np.stack([block.sum(0) for block in blocks]), np.array([[len(block)] for block in blocks], np.float64)


def _interval(
    model: tuple[Array, Array], baseline: tuple[Array, Array], figure: Callable[[Array, Array], float], sign: float
) -> tuple[float, float]:
    """95 % percentile interval of the gain, drawing the same units for both."""
    count = len(model[0])
    rng = np.random.default_rng(0)
    gains = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        weight = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
        ours = figure(weight @ model[0], weight @ model[1])
        theirs = figure(weight @ baseline[0], weight @ baseline[1])
        gains[i] = sign * (ours - theirs)
    low, high = np.nanpercentile(gains, [2.5, 97.5])
    return float(low), float(high)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), which is right for shares near 0 and 1 too. `count` is positive."""
    z, share = 1.959964, hits / count
    middle, half = share + z**2 / (2 * count), z * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = (middle - half) / (1 + z**2 / count), (middle + half) / (1 + z**2 / count)
    return max(0.0, float(low)), min(1.0, float(high))  # rounding


def tidy(value: float, digits: int = 6) -> float | None:
    """Round to significant digits, so that the last bits of a sum do not show; None for what is not finite."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def tidy_row(row: dict[str, Any]) -> dict[str, Any]:
    """The same for every float of a row of `results.jsonl`, nested ones included."""

    def visit(value: Any) -> Any:
        if isinstance(value, bool | int | str) or value is None:
            return value
        if isinstance(value, float | np.floating):
            return tidy(float(value))
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, dict):
            return {str(key): visit(item) for key, item in value.items()}
        return [visit(item) for item in value]

    return {key: visit(value) for key, value in row.items()}
