"""Average precision of detections at 40 recall points (Simonelli et al. 2019), matched as KITTI's development kit does.

A scene says which detections overlap which true objects; what is ignored on either side neither helps nor harms. At a
threshold, each true object in turn takes the free detection that overlaps it most; a detection that nobody took and
that is not ignored is a false alarm. Precision at recall r is the best at any recall of at least r; the figure is its
mean over r = 1/40, 2/40, … 1, in per cent.

The kit samples at most 41 thresholds, chosen so that recall grows by about 1/40 each; with fewer than 40 objects there
are fewer thresholds and even perfect detections score less than 100. By default we take for every recall point the
highest threshold that reaches it, which is the same figure where there are many objects and right where there are few;
`sampling="kit"` gives the kit's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

POINTS = 40
GRID = np.linspace(0.0, 1.0, 101)  # thresholds of `grid_row`
Double = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Detections (D) and true objects (G) of one class in one sweep.

    Attributes:
        overlap: (D, G) intersection over union. scores: (D,).
        found_ignored: (D,) bool. truth_ignored: (G,) bool.
    """

    overlap: Double
    scores: Double
    found_ignored: NDArray[np.bool_]
    truth_ignored: NDArray[np.bool_]

    @property
    def objects(self) -> int:
        """How many there are to be found."""
        return int(np.count_nonzero(~self.truth_ignored))


def average_precision(
    scenes: Sequence[Scene], min_overlap: float, sampling: Literal["exact", "kit"] = "exact"
) -> float:
    """R40 average precision over all scenes in per cent, NaN where there is nothing to be found.

    Args:
        min_overlap: a detection must overlap an object by more than this to be it.
        sampling: of the thresholds; see the top of this file.
    """
    objects = sum(scene.objects for scene in scenes)
    if not objects:
        return float("nan")
    reached = sorted((score for scene in scenes for score in _matched(scene, min_overlap)), reverse=True)
    if sampling == "kit":
        return _kit(scenes, min_overlap, reached, objects)
    ranks = -(-np.arange(1, POINTS + 1) * objects // POINTS) - 1
    thresholds = np.unique([reached[rank] for rank in ranks if rank < len(reached)])
    total = sum((counts(scene, thresholds, min_overlap) for scene in scenes), np.zeros((len(thresholds), 2)))
    return r40(objects, *total.T)


def r40(objects: float, hits: Double, alarms: Double) -> float:
    """The figure in per cent, from hits and false alarms at some thresholds, each (T,)."""
    recall = hits / max(objects, 1)
    precision = hits / np.maximum(hits + alarms, 1)
    wanted = np.arange(1, POINTS + 1)[:, None] / POINTS
    best = np.where(recall >= wanted - 1e-9, precision, 0.0)
    return 100 * float(best.max(1, initial=0.0).mean())


def grid_row(scene: Scene, min_overlap: float) -> Double:
    """(1 + 2 T,) objects, and hits and false alarms at the thresholds of `GRID`: rows that may be added up."""
    return np.concatenate([[scene.objects], counts(scene, GRID, min_overlap).T.ravel()])


def pooled_r40(row: NDArray[Any]) -> float:
    """The figure of added rows of `grid_row`."""
    hits, alarms = np.asarray(row[1:], np.float64).reshape(2, -1)
    return r40(float(row[0]), hits, alarms) if row[0] > 0 else float("nan")


def counts(scene: Scene, thresholds: Double, min_overlap: float) -> Double:
    """(T, 2) hits and false alarms if only detections that score at least the threshold are said."""
    fits = scene.overlap > min_overlap
    near = np.flatnonzero(fits.any(1))
    far = np.sort(scene.scores[~fits.any(1) & ~scene.found_ignored])
    out = np.zeros((len(thresholds), 2))
    known: dict[int, tuple[int, int]] = {}
    for i, threshold in enumerate(thresholds):
        said = near[scene.scores[near] >= threshold]
        if len(said) not in known:  # as thresholds rise detections only leave: their number says which are left
            known[len(said)] = _match(scene, fits, said)
        hits, alarms = known[len(said)]
        out[i] = hits, alarms + len(far) - np.searchsorted(far, threshold)
    return out


def _match(scene: Scene, fits: NDArray[np.bool_], said: NDArray[np.int64]) -> tuple[int, int]:
    """Hits and false alarms among detections `said`."""
    free = np.zeros(len(scene.scores), bool)
    free[said] = True
    hits = 0
    for truth in range(len(scene.truth_ignored)):
        candidates = np.flatnonzero(fits[:, truth] & free)
        if not len(candidates):
            continue
        counted = candidates[~scene.found_ignored[candidates]]
        taken = counted[np.argmax(scene.overlap[counted, truth])] if len(counted) else candidates[0]
        free[taken] = False
        hits += not (scene.truth_ignored[truth] or scene.found_ignored[taken])
    return hits, int(np.count_nonzero(free & ~scene.found_ignored))


def _matched(scene: Scene, min_overlap: float) -> list[float]:
    """Scores of the detections that find an object when each takes its best-scored one."""
    fits = scene.overlap > min_overlap
    free = np.ones(len(scene.scores), bool)
    scores = []
    for truth in range(len(scene.truth_ignored)):
        candidates = np.flatnonzero(fits[:, truth] & free)
        if not len(candidates):
            continue
        # Equal scores: the one that counts, then the one that overlaps more, so that their order has no say.
        keys = scene.overlap[candidates, truth], ~scene.found_ignored[candidates], scene.scores[candidates]
        taken = candidates[np.lexsort(keys)[-1]]
        free[taken] = False
        if not (scene.truth_ignored[truth] or scene.found_ignored[taken]):
            scores.append(float(scene.scores[taken]))
    return scores


def _kit(scenes: Sequence[Scene], min_overlap: float, reached: list[float], objects: int) -> float:
    """As the development kit samples it: a score becomes a threshold where it is nearest to the next recall point."""
    thresholds: list[float] = []
    for i, score in enumerate(reached):
        here, last = (i + 1) / objects, i == len(reached) - 1
        there = here if last else (i + 2) / objects
        goal = len(thresholds) / POINTS
        if last or there - goal >= goal - here:
            thresholds.append(score)
    total = sum((counts(s, np.array(thresholds), min_overlap) for s in scenes), np.zeros((len(thresholds), 2)))
    precision = np.zeros(POINTS + 1)
    kept = min(len(thresholds), POINTS + 1)
    hits, alarms = total[:kept].T
    precision[:kept] = hits / np.maximum(hits + alarms, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float(best[1:].mean())
