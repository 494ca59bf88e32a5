"""How far ahead do the simplest forecasts of `future` tell where a hand will be in the image?"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.future.baselines import constant_velocity, hold
from wm_ros.future.history import past_grid
from wm_ros.hands.source import Track
from wm_ros.training.grid import RATE_HZ

HORIZONS_S = (0.5, 1.0)
HISTORY_STEPS = 3  # what constant velocity looks at
METHODS = {"hold": hold, "constant_velocity": constant_velocity}


def errors(track: Track, aspect: float) -> dict[str, dict[float, NDArray[np.float64]]]:
    """Mean distance of forecast and measured box centres over the steps up to each horizon.

    A moment is an image with the hand whose history and whose way up to the horizon are valid at each step of the
    grid of `future` (15 Hz).

    Args:
        aspect: height of the image over its width.

    Returns:
        method → horizon (s) → (moments,) average displacement errors in shares of the image's width.
    """
    found: dict[str, dict[float, NDArray[np.float64]]] = {method: {} for method in METHODS}
    scale = torch.tensor([1.0, aspect], dtype=torch.float64)
    for horizon in HORIZONS_S:
        steps = int(horizon * RATE_HZ)
        windows = []
        for now in track.stamps_ns[track.valid].tolist():
            grid = past_grid(now + round(steps * 1e9 / RATE_HZ), HISTORY_STEPS + steps, RATE_HZ)
            window = track.at(grid, now)
            if window.valid.all():
                windows.append(window.values[:, :2])
        centres = torch.from_numpy(np.array(windows, np.float64).reshape(-1, HISTORY_STEPS + steps, 2)) * scale
        past, truth = centres[:, :HISTORY_STEPS], centres[:, HISTORY_STEPS:]
        for method, forecast in METHODS.items():
            found[method][horizon] = (forecast(past, steps) - truth).norm(dim=-1).mean(-1).numpy()
    return found
