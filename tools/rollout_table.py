"""Tables of what `wm rollout`, `wm delays` and `wm foresee` wrote, for cards.

python tools/rollout_table.py 'two cameras=build/two' 'blind=build/blind' > table.md
python tools/rollout_table.py --delays build/delays > delays.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

HARD = ("reach", "push", "pick-place")
RESAMPLES = 10_000


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rollouts", nargs="*", help="NAME=FOLDER of `wm rollout`")
    parser.add_argument("--delays", type=Path, help="folder of `wm delays`")
    parser.add_argument("--foresee", type=Path, help="folder of `wm foresee`")
    given = parser.parse_args()
    if given.rollouts:
        named = [item.partition("=") for item in given.rollouts]
        print(rollouts({name: json.loads((Path(f) / "rollout.json").read_text()) for name, _, f in named}))
    if given.delays:
        print(delays(json.loads((given.delays / "delays.json").read_text())["delays"]))
    if given.foresee:
        print(foresee(json.loads((given.foresee / "foresee.json").read_text())["metrics"]))


def rollouts(found: dict[str, dict[str, Any]]) -> str:
    """Success of each task, the mean, that of the three tasks whose goal lies somewhere else each time, and how much
    more often the first one succeeds, in points, where the episodes are the same ones."""
    first = next(iter(found.values()))
    tasks = list(first["tasks"])
    titles = (*tasks, "mean", ", ".join(HARD), "the first one's gain", "round trip ms")
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, report in found.items():
        cells, trips = [], []
        for task in tasks:
            success = report["tasks"][task]["success"]
            low, high = (100 * edge for edge in success["ci95"])
            cells.append(f"{success['hits']} / {success['n']} [{low:.0f}, {high:.0f}]")
            trips.append(report["tasks"][task]["round_trip_ms"]["median"])
        hard = [report["tasks"][task]["success"]["value"] for task in HARD if task in report["tasks"]]
        together = f"{100 * sum(hard) / len(hard):.1f} %" if hard else ""
        trip = sorted(t for t in trips if t is not None)
        middle = f"{trip[len(trip) // 2]:.1f}" if trip else ""
        lines.append(
            f"| {name} | {' | '.join(cells)} | **{100 * report['mean_success']:.1f} %** | {together} | "
            f"{'' if report is first else gain(first, report)} | {middle} |"
        )
    return "\n".join(lines)


def gain(first: dict[str, Any], other: dict[str, Any]) -> str:
    """Points of success more, with the 95 % bootstrap interval over episodes; "" where they are other episodes."""
    pairs = []
    for task, told in first["tasks"].items():
        ours, theirs = ({e["seed"]: e["success"] for e in each["episodes"]} for each in (told, other["tasks"][task]))
        if ours.keys() != theirs.keys():
            return ""
        pairs += [100.0 * ours[seed] - 100.0 * theirs[seed] for seed in ours]
    drawn = np.random.default_rng(0).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    low, high = np.percentile(np.asarray(pairs)[drawn].mean(1), [2.5, 97.5])
    return f"{np.mean(pairs):+.1f} [{low:+.1f}, {high:+.1f}]"


def delays(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Success, jerk and safe commands of each strategy at each delay."""
    lines = ["| delay | strategy | success | 95 % | jerk m/s³ | safe commands |", "|---|---|---|---|---|---|"]
    for delay, row in found.items():
        for strategy, figures in row.items():
            success = figures["success"]
            low, high = (100 * edge for edge in success["ci95"])
            lines.append(
                f"| {delay} | {strategy} | {success['hits']} / {success['n']} | {low:.0f} … {high:.0f} | "
                f"{figures['jerk_rms_mps3_median']:.0f} | {figures['dry']} |"
            )
    return "\n".join(lines)


def foresee(metrics: dict[str, Any]) -> str:
    """Errors of the states to come, and by how much the first bundle is better."""
    lines = [
        "| | " + " | ".join(f"{name} ({entry['unit']})" for name, entry in metrics.items()) + " |",
        "|---|---|---|",
    ]
    lines.append("| this policy | " + " | ".join(f"{entry['value']:.4f}" for entry in metrics.values()) + " |")
    for name in sorted(metrics["rmse"]["baselines"]):
        cells = []
        for entry in metrics.values():
            gain, low, high = entry["gains"][name]
            cells.append(f"{entry['baselines'][name]:.4f} ({gain:+.4f} [{low:.4f}, {high:.4f}])")
        lines.append(f"| {Path(name).parent.name or name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
