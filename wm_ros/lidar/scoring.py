"""Figures of an occupancy forecast as sums over cells, so that they pool over predictions and can be resampled.

Scores are log-odds (or anything that rises with them). The precision-recall curve is kept as two histograms of the
score, 512 bins between −8 and 8; bins are what distinguishes scores, everything within one counts as tied.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_ros.lidar.baselines import NAMES

Array = NDArray[np.float64]
METHODS = ("model", *NAMES)
BINS, EDGE = 512, 8.0


def histograms(score: NDArray[np.float32], truth: NDArray[np.bool_], scored: NDArray[np.bool_]) -> Array:
    """(2 · BINS,) counts of empty cells, then of occupied ones, by score."""
    place = ((score[scored].astype(np.float64) + EDGE) * (BINS / (2 * EDGE))).clip(0, BINS - 1).astype(np.int64)
    return np.bincount(place + BINS * truth[scored], minlength=2 * BINS).astype(np.float64)


def average_precision(total: Array) -> float:
    """Area under the precision-recall curve by steps, from summed `histograms`; nan without occupied cells."""
    negative, positive = total[:BINS][::-1], total[BINS:][::-1]
    if positive.sum() <= 0:
        return float("nan")
    hits, alarms = np.cumsum(positive), np.cumsum(negative)
    precision = hits / np.maximum(hits + alarms, 1e-12)
    return float((precision * positive).sum() / positive.sum())


def overlap(
    log_odds: NDArray[np.float32], threshold: float, truth: NDArray[np.bool_], scored: NDArray[np.bool_]
) -> Array:
    """(intersection, union) of what is said to be occupied at `threshold` and what is."""
    said = (log_odds > threshold) & scored
    return np.array([(said & truth).sum(), (said | (truth & scored)).sum()], np.float64)


def ratio(total: Array) -> float:
    """First sum over the second: IoU of summed `overlap`, mean cross-entropy of summed `cross_entropy`."""
    return float(total[0] / total[1]) if total[1] > 0 else float("nan")


def calibrated(score: NDArray[np.float32], line: NDArray[np.float64]) -> NDArray[np.float32]:
    """Log-odds a · score + b by a fitted `line` (a, b)."""
    return (score * np.float32(line[0]) + np.float32(line[1])).astype(np.float32)


def cross_entropy(log_odds: NDArray[np.float32], truth: NDArray[np.bool_], scored: NDArray[np.bool_]) -> Array:
    """(sum of nats, cells)."""
    values = log_odds[scored].astype(np.float64)
    signed = np.where(truth[scored], -values, values)
    return np.array([np.logaddexp(0.0, signed).sum(), len(values)])
