"""What is fitted on training data beside the network: logistic regression, calibrations, thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.errors import UserError
from wm_ros.lidar import baselines, scoring
from wm_ros.lidar.encoder import to_sparse
from wm_ros.lidar.knn import Bank, cell_classes
from wm_ros.lidar.model import LidarModel
from wm_ros.lidar.occupancy import warp
from wm_ros.lidar.voxels import voxelise
from wm_ros.training.lidar_cache import Sweeps
from wm_ros.training.lidar_windows import SweepWindows

CELLS_PER_EXAMPLE = 4000
Double = NDArray[np.float64]


def examples(data: SweepWindows, count: int, seed: int) -> list[int]:
    """Rows to fit on, spread over all episodes."""
    order = np.random.default_rng(seed).permutation(len(data))[:count]
    return sorted(int(row) for row in order)


def fit_linear(data: SweepWindows, rows: list[int], seed: int) -> Double:
    """(K, 17) weights of the logistic regression, one per horizon, on a sample of scored cells."""
    rng = np.random.default_rng(seed)
    horizons = len(data.config.occupancy.horizons_s)
    inputs: list[list[Double]] = [[] for _ in range(horizons)]
    targets: list[list[Double]] = [[] for _ in range(horizons)]
    for row in rows:
        example: dict[str, Any] = data.example(row, -1)
        flat = example["features"].reshape(baselines.FEATURES, -1)
        for k in range(horizons):
            scored = np.flatnonzero(example["scored"][k])
            chosen = rng.permutation(scored)[:CELLS_PER_EXAMPLE]
            inputs[k].append(flat[:, chosen].T.astype(np.float64))
            targets[k].append(example["truth"][k].ravel()[chosen].astype(np.float64))
    weights: list[Double] = []
    for x, y in zip(inputs, targets, strict=True):
        known = sum(map(len, y))
        if not known and not weights:
            raise UserError("no sweep is followed by another at the first horizon; give longer or denser recordings")
        # A horizon beyond every recording takes over what was fitted for the one before.
        weights.append(baselines.fit_logistic(np.concatenate(x), np.concatenate(y)) if known else weights[-1])
    return np.stack(weights)


def score_rows(
    model: LidarModel, logistic: Double, data: SweepWindows, rows: list[int]
) -> Iterator[tuple[int, str, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]]:
    """(horizon, method, score, truth, scored) of every method on every example whose truth is known."""
    linear = logistic.astype(np.float32)
    for row in rows:
        example: dict[str, Any] = data.example(row, -1)
        logits = _logits(model, data, example)
        for k in range(len(linear)):
            truth, scored = example["truth"][k], example["scored"][k]
            if not scored.any():
                continue
            said = {"model": logits[k], "hold": baselines.logit(example["hold"][k].astype(np.float32))}
            said |= baselines.scores(example["past"], example["features"], linear, k)
            for method in scoring.METHODS:
                yield k, method, said[method], truth, scored


@torch.no_grad()
def _logits(model: LidarModel, data: SweepWindows, example: dict[str, Any]) -> NDArray[np.float32]:
    def bev(name: str) -> torch.Tensor:
        return model.encode(to_sparse([example[name]], data.config.voxels))

    past_from_here = torch.from_numpy(example["past_from_here"])[None]
    old = warp(bev("past_voxels"), past_from_here, model.cell_m)
    features, seen = (torch.from_numpy(example[name])[None] for name in ("features", "rasters"))
    logits: NDArray[np.float32] = model.head(features, seen, bev("voxels"), old)[0].numpy()
    return logits


def calibrate(
    model: LidarModel, logistic: Double, data: SweepWindows, count: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """`logistic` (K, 17), `calibration` (methods, K, 2) and `threshold` (methods, K), methods as in `scoring.METHODS`.

    Both come from histograms of scores, so that memory does not grow with the number of examples.
    """
    horizons = len(data.config.occupancy.horizons_s)
    counts = np.zeros((len(scoring.METHODS), horizons, 2, scoring.BINS))
    for k, method, score, truth, scored in score_rows(model, logistic, data, examples(data, count, seed)):
        counts[scoring.METHODS.index(method), k] += scoring.histograms(score, truth, scored).reshape(2, -1)
    lines, thresholds = np.zeros((*counts.shape[:2], 2)), np.zeros(counts.shape[:2])
    centre = (np.arange(scoring.BINS) + 0.5) * (2 * scoring.EDGE / scoring.BINS) - scoring.EDGE
    for method, k in np.ndindex(*counts.shape[:2]):
        negative, positive = counts[method, k]
        lines[method, k] = _line(centre, negative, positive)
        # IoU if everything at or above each bin is said to be occupied
        hits, alarms = np.cumsum(positive[::-1])[::-1], np.cumsum(negative[::-1])[::-1]
        best = int(np.argmax(hits / np.maximum(positive.sum() + alarms, 1)))
        edge = best * (2 * scoring.EDGE / scoring.BINS) - scoring.EDGE
        thresholds[method, k] = lines[method, k, 0] * edge + lines[method, k, 1]
    return {
        "logistic": logistic,
        "calibration": lines,
        "threshold": thresholds,
    }


@torch.no_grad()
def knn_bank(model: LidarModel, sources: list[Sweeps], count: int, seed: int) -> dict[str, torch.Tensor]:
    """Embeddings of cells of known class from up to `count` labelled sweeps; nothing where no source has boxes."""
    places = [(s, int(row)) for s in sources for row in np.flatnonzero(s.table["labelled"])]
    bank = Bank(seed)
    for at in np.random.default_rng(seed).permutation(len(places))[:count].tolist():
        sweeps, row = places[at]
        labels = sweeps.labels(row)
        assert labels is not None
        voxels = voxelise(sweeps.cloud(row), model.config.voxels)
        embedding = model.encode(to_sparse([voxels], model.config.voxels))[0].numpy()
        bank.add(embedding, cell_classes(labels.boxes, labels.names, model.config))
    found = bank.arrays()
    if found is None:
        return {}
    return {"knn_bank": torch.from_numpy(found[0]).half(), "knn_classes": torch.from_numpy(found[1]).to(torch.uint8)}


def _line(score: NDArray[Any], negative: Double, positive: Double) -> Double:
    """Logistic regression of counts on a score: (a, b) of the log-odds."""
    rows = np.stack([score, np.ones_like(score)], 1)
    weight, total = np.array([1.0, 0.0]), negative + positive
    for _ in range(30):
        probability = 1 / (1 + np.exp(-np.clip(rows @ weight, -30, 30)))
        hessian = rows.T @ (rows * (total * np.maximum(probability * (1 - probability), 1e-6))[:, None])
        gradient = rows.T @ (total * probability - positive)
        step = np.linalg.solve(hessian + 1e-3 * np.eye(2), gradient)
        weight = weight - np.clip(step, -1, 1)
    return weight


def report(model: LidarModel, data: SweepWindows, fitted: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Average precision of every method at every horizon on held-out episodes."""
    horizons = data.config.occupancy.horizons_s
    totals = np.zeros((len(scoring.METHODS), len(horizons), 2 * scoring.BINS))
    for k, method, score, truth, scored in score_rows(model, fitted["logistic"], data, list(range(len(data)))):
        totals[scoring.METHODS.index(method), k] += scoring.histograms(score, truth, scored)
    return {
        f"{method}_ap@{horizon:g}s": round(scoring.average_precision(totals[m, k]), 4)
        for m, method in enumerate(scoring.METHODS)
        for k, horizon in enumerate(horizons)
        if totals[m, k].sum()
    }
