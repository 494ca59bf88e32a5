"""What a chunk must beat. All see the measured joints only, unless they are given commands in their place.

    hold               the measured joints stay where they are
    constant_velocity  mean speed of the last three measurements, damped by 0.9 per step; of commands that of the
                       last two, damped by 0.8
    phase              the mean way from this phase of an episode to the later one (knows how long the episode is)
    ridge              linear in the last `joint_history` measurements, fitted by ridge regression

All functions are batched: joints (B, H, J) rad, oldest first → chunk (B, F, J) rad.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Double = NDArray[np.float64]

DAMPING = 0.9  # that of joints; of commands 0.8 and two of them are nearer
COMMANDS_DAMPING, COMMANDS_BACK = 0.8, 1
PHASES = 101


def hold(joints: Double, steps: int) -> Double:
    """The last measurement, repeated."""
    return np.repeat(joints[:, -1:], steps, axis=1)


def constant_velocity(joints: Double, steps: int, damping: float = DAMPING, back: int = 2) -> Double:
    """Damped extrapolation of the last measurement and that `back` steps before it (fewer where there are fewer)."""
    back = min(back, joints.shape[1] - 1)
    speed = (joints[:, -1] - joints[:, -1 - back]) / max(back, 1)
    reach = np.cumsum(damping ** np.arange(1, steps + 1))
    chunk: Double = joints[:, -1:] + speed[:, None] * reach[:, None]
    return chunk


def ridge_features(joints: Double) -> Double:
    """(B, 1 + H·J): one, where the joints are, and how far from there they were before."""
    past = (joints[:, :-1] - joints[:, -1:]).reshape(len(joints), -1)
    return np.concatenate([np.ones((len(joints), 1)), joints[:, -1], past], 1)


def fit_ridge(joints: Double, chunks: Double, weights: Double, strength: float) -> Double:
    """Coefficients (1 + H·J, F·J) of `chunk - now`.

    Args:
        chunks: (B, F, J) what was commanded. weights: (B, F), 0 where padded. strength: of the penalty, relative to
            the mean square of a feature; the constant is free.
    """
    features = ridge_features(joints)
    change = chunks - joints[:, -1:]
    penalty = strength * len(features) * np.mean(features[:, 1:] ** 2) * np.eye(features.shape[1])
    penalty[0, 0] = 1e-9
    columns = []
    for step in range(chunks.shape[1]):
        weighted = features * weights[:, step, None]
        columns.append(np.linalg.solve(weighted.T @ features + penalty, weighted.T @ change[:, step]))
    return np.stack(columns, 1).reshape(features.shape[1], -1)


def ridge(joints: Double, coefficients: Double) -> Double:
    """Apply `fit_ridge`'s coefficients."""
    change = ridge_features(joints) @ coefficients
    chunk: Double = joints[:, -1:] + change.reshape(len(joints), -1, joints.shape[-1])
    return chunk


def fit_phase(episodes: Sequence[Double]) -> Double:
    """Mean episode (PHASES, J) of whole episodes (n, J), each stretched to phases 0..1 first."""
    grid = np.linspace(0.0, 1.0, PHASES)
    stretched = [
        np.stack([np.interp(grid, np.linspace(0.0, 1.0, len(values)), column) for column in values.T], 1)
        for values in episodes
    ]
    mean: Double = np.mean(stretched, axis=0)
    return mean


def phase_way(joints_now: Double, now: Double, later: Double, measured: Double, commanded: Double) -> Double:
    """Move from the measured joints as the mean episode does between two phases.

    Args:
        joints_now: (B, J). now: (B,) phase. later: (B, F) phases to come, clipped to 1.
        measured, commanded: (PHASES, J) mean episodes of `fit_phase`.
    """
    grid = np.linspace(0.0, 1.0, PHASES)

    def at(mean: Double, phase: Double) -> Double:
        return np.stack([np.interp(phase, grid, column) for column in mean.T], -1)

    chunk: Double = joints_now[:, None] + at(commanded, np.clip(later, 0, 1)) - at(measured, now)[:, None]
    return chunk
