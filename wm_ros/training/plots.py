"""The picture of a training run."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def plot_losses(log: Path, out: Path) -> None:
    """Draw every value of `log` (JSON lines with `step`) against the step, one small panel each, to `out` (PNG)."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    names = sorted({key for row in rows for key in row} - {"step"}, key=lambda n: (n != "loss", n))
    columns = 3
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(11, 2.2 * lines), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axis.plot(*zip(*points, strict=True), marker="." if name.startswith("val_") else "", linewidth=1)
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(out, dpi=90)
    plt.close(figure)
