"""`wm illumination`: the curves of several state bundles side by side, as JSON, table and plot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from wm_ros.capability import load
from wm_ros.evaluation.illumination import CHANGES, measure, read_clips
from wm_ros.state.capability import StateCapability


def run(bundles: dict[str, Path], source: str, out: Path, per_episode: int = 12) -> Iterator[str]:
    """Measure every bundle on the same frames, saying what is under way; writes illumination.{json,md,png}."""
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {}
    for name, bundle in bundles.items():
        yield f"light changes for {name}"
        state = load("state", bundle)
        assert isinstance(state, StateCapability)
        report[name] = measure(bundle, read_clips(source, state, per_episode))
    (out / "illumination.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "illumination.md").write_text(table(report))
    plot(report, out / "illumination.png")


def table(report: dict[str, Any]) -> str:
    """Token and action drift of each bundle at each step of each change, in Markdown."""
    lines = ["| change | " + " | ".join(f"{name}: tokens | action" for name in report) + " |"]
    lines.append("|---|" + "---|---|" * len(report))
    for change, (_, values) in CHANGES.items():
        for index, value in enumerate(values):
            cells = []
            for curves in report.values():
                curve = curves[change]
                action = f"{curve['action_drift'][index]:.2f}" if curve["action_drift"] else "–"
                cells.append(f"{curve['token_drift'][index]:.2f} | {action}")
            lines.append(f"| {change} {value:g} | " + " | ".join(cells) + " |")
    lines.append("")
    lines.append("Tokens: 1 is the mean distance between the states of two random frames. Action: 1 is its own size.")
    return "\n".join(lines) + "\n"


def plot(report: dict[str, Any], file: Path) -> None:
    """One column for each change; tokens above, the decoded action below."""
    figure, axes = plt.subplots(2, len(CHANGES), figsize=(11, 4.6), sharey="row", layout="constrained")
    for column, change in enumerate(CHANGES):
        for row, drift in enumerate(("token_drift", "action_drift")):
            for name, curves in report.items():
                if curves[change][drift]:
                    axes[row, column].plot(
                        curves[change]["values"], curves[change][drift], marker="o", ms=3, label=name
                    )
            axes[row, column].grid(alpha=0.3)
        axes[0, column].set_title(change)
    axes[0, 0].set_ylabel("token drift")
    axes[1, 0].set_ylabel("drift of the action")
    axes[0, -1].legend(fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)
