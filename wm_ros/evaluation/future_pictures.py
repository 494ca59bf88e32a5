"""A plot of the wrist: its path as seen, and predictions fanning out from it."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

EVERY = 8  # predictions per drawn one


def trajectory_plot(
    predicted: list[tuple[int, NDArray[np.float64]]],
    stamps_ns: NDArray[np.int64],
    seen_m: NDArray[np.float64],
    offsets_s: NDArray[np.float64],
    side: str,
) -> NDArray[np.uint8]:
    """Draw x, y and z of the wrist over time.

    Args:
        predicted: stamp and (F, 3) positions of each prediction. stamps_ns, seen_m: (N,) and (N, 3), the wrist as seen.
        offsets_s: (F,) of the predicted positions.

    Returns:
        (H, W, 3) uint8.
    """
    figure = Figure(figsize=(8, 5), dpi=80)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(3, 1, sharex=True)
    start_ns = stamps_ns[0]
    for index, (axis, name) in enumerate(zip(axes, "xyz", strict=True)):
        for stamp_ns, positions in predicted[::EVERY]:
            when = (stamp_ns - start_ns) * 1e-9 + offsets_s
            axis.plot(when, positions[:, index], color="tab:orange", linewidth=0.8)
        axis.plot((stamps_ns - start_ns) * 1e-9, seen_m[:, index], color="black", linewidth=1.4)
        axis.set_ylabel(f"{name} (m)")
        axis.margins(x=0)
    axes[0].set_title(f"{side} wrist, torso frame: seen (black) and predicted over {offsets_s[-1]:g} s (orange)")
    axes[-1].set_xlabel("time (s)")
    figure.tight_layout()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
