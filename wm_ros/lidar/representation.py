"""What an embedding is worth before any head is trained: its spread, what it knows of hidden cells, who is near whom.

Spectrum and effective rank (exp of the entropy of the eigenvalues) of the channel covariance over occupied cells; the
cosine of prediction and target at hidden cells, and occupancy read off it without labels, at a distance to the empty
token of 0.5; a kNN probe with k = 20, cosine, weights exp(similarity / 0.07) (AD-L-JEPA's released evaluation; its
covariance there is of samples, not of channels, which is not repeated here).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

NEIGHBOURS, TEMPERATURE = 20, 0.07
Array = NDArray[np.float64]


def moments(values: NDArray[np.floating]) -> Array:
    """(1 + C + C²,) count, sum and sum of outer products of the rows of `values` (N, C): they add up over sweeps."""
    rows = values.astype(np.float64)
    outer = np.einsum("ni,nj->ij", rows, rows)  # einsum: no BLAS, the same bytes at any thread count
    return np.concatenate([[len(rows)], rows.sum(0), outer.ravel()])


def covariance(total: Array) -> Array:
    """(C, C) from summed `moments`."""
    channels = round((-1 + np.sqrt(1 + 4 * (len(total) - 1))) / 2)
    count, mean = max(total[0], 1.0), total[1 : 1 + channels] / max(total[0], 1.0)
    return np.asarray(total[1 + channels :].reshape(channels, channels) / count - np.outer(mean, mean))


def spectrum(cov: Array) -> Array:
    """Eigenvalues in descending order, as shares of their sum."""
    values = np.linalg.eigvalsh(cov)[::-1].clip(0)
    return np.asarray(values / max(values.sum(), 1e-12))


def rank_of(total: Array) -> float:
    """Effective rank from summed `moments`."""
    share = spectrum(covariance(total))
    return float(np.exp(-(share * np.log(share.clip(1e-12))).sum()))


def spread_of(total: Array) -> float:
    """Mean standard deviation of the channels, from summed `moments`."""
    return float(np.sqrt(np.diag(covariance(total)).clip(0)).mean())


def effective_rank(values: Tensor) -> Tensor:
    """The same of the rows of `values` (N, C), where gradients or a GPU are at hand."""
    centred = values.float() - values.float().mean(0)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / max(len(values) - 1, 1)).clamp_min(0)
    share = eigenvalues / eigenvalues.sum().clamp_min(1e-12)
    return torch.exp(-(share * share.clamp_min(1e-12).log()).sum())


def nearest_classes(rows: Tensor, bank: Tensor, classes: Tensor) -> Tensor:
    """(N,) class of each row by its nearest neighbours in the bank.

    Args:
        rows: (N, C). bank: (M, C). classes: (M,) int64, 0 to K - 1.
    """
    similarity = F.normalize(rows, dim=1) @ F.normalize(bank, dim=1).T
    best, index = similarity.topk(min(NEIGHBOURS, len(bank)), dim=1)
    votes = torch.zeros(len(rows), int(classes.max()) + 1)
    votes.scatter_add_(1, classes[index], torch.exp(best / TEMPERATURE))
    return votes.argmax(1)
