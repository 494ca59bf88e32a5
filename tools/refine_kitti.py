"""Refine the lidar bundle on a real drive without labels, and show on halves that it has not seen what that is worth.

    python tools/refine_kitti.py BAG [--start-from models/lidar-lite] [--out runs/lidar_kitti]

BAG is a KITTI raw drive as `wm convert kitti` writes it. The drive is cut in two; each half is scored by a bundle that
was refined on the other half, and by the one it started from. The bundle that ships, models/lidar_kitti, is then
refined on the whole drive; its card gets the table.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from add_to_card import add_section
from rich.console import Console
from rich.markdown import Markdown

from wm_ros.data.sources import episodes
from wm_ros.evaluation.metrics import summarise
from wm_ros.evaluation.replay import evaluate
from wm_ros.evaluation.scorer import Metric
from wm_ros.training.loop import train

SIMULATED = "sim:drive?seeds=300-307&seconds=4.5&beams=64&azimuths=1800"
CONFIG = Path("config/train/lidar_kitti.yaml")
WEIGHT = 3


def refine(drive: str, start_from: Path, out: Path) -> Path:
    """A bundle refined on `drive` and some simulation."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "cache").exists():  # one cache for all runs
        (out.parent / "cache").mkdir(exist_ok=True)
        (out / "cache").symlink_to((out.parent / "cache").resolve())
    mark = "&" if "?" in drive else "?"
    sources = [f"{drive}{mark}weight={WEIGHT}", SIMULATED]
    return train("lidar", sources, out, config_file=CONFIG, start_from=start_from, force=True)


def score(drive: str, bundle: Path, out: Path) -> list[list[Metric]]:
    """Figures of `bundle` on `drive`, forecast by forecast."""
    out.mkdir(parents=True, exist_ok=True)
    return evaluate([drive], out, names=["lidar"], bundles={"lidar": str(bundle)}).metrics["lidar"]


def table(rows: list[tuple[str, str, dict[str, Any]]]) -> str:
    """Markdown: AP and cross-entropy at 1.0 s of each bundle on each part, beside the strongest simple methods."""
    lines = ["| part of the drive | bundle | AP@1.0s | over `ego_mean5_blur` | over `logistic` | BCE@1.0s, less than `ego_mean5_blur` |"]  # fmt: skip # noqa: E501
    lines.append("|---|---|---|---|---|---|")
    for part, bundle, metrics in rows:
        ap, bce = metrics["occupancy_ap@1.0s"], metrics["occupancy_bce@1.0s"]
        gains = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*ap["gains"][name]) for name in ("ego_mean5_blur", "logistic")]
        saved = 100 * (1 - bce["value"] / bce["baselines"]["ego_mean5_blur"])
        lines.append(f"| {part} | {bundle} | {ap['value']:.3f} | {gains[0]} | {gains[1]} | {bce['value']:.3f}, {saved:.0f} % |")  # fmt: skip # noqa: E501
    return "\n".join(lines)


def main() -> None:
    """Both halves, then the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--start-from", type=Path, default=Path("models/lidar-lite"))
    parser.add_argument("--out", type=Path, default=Path("runs/lidar_kitti"))
    given = parser.parse_args()
    stamps = [sample.stamp_ns for sample in episodes(str(given.bag))[0].samples()]
    middle_s = (stamps[-1] - stamps[0]) / 2e9
    parts = {"first half": f"{given.bag}?end_s={middle_s:.2f}", "second half": f"{given.bag}?start_s={middle_s:.2f}"}
    rows, pooled = [], {"simulation only": [], "refined on the other half": []}
    for part, drive in parts.items():
        (other,) = (d for name, d in parts.items() if name != part)
        name = part.split()[0]
        bundles = {"simulation only": given.start_from}
        bundles["refined on the other half"] = refine(other, given.start_from, given.out / f"for_{name}")
        for number, (title, bundle) in enumerate(bundles.items()):
            found = score(drive, bundle, given.out / f"{name}_{number}")
            rows.append((part, title, summarise(found)))
            pooled[title] += found
    text = table([*rows, *(("both halves", title, summarise(found)) for title, found in pooled.items())])
    whole = refine(str(given.bag), given.start_from, given.out / "whole")
    card = Path("models/lidar_kitti/CARD.md")
    shutil.copytree(whole, card.parent, dirs_exist_ok=True)
    command = f"python tools/refine_kitti.py {given.bag.name}"
    add_section(card, "On the real drive", f"`{command}`; 95 % intervals over blocks of ten forecasts:\n\n{text}")
    Console().print(Markdown(text))


if __name__ == "__main__":
    main()
