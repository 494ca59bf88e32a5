"""Print the table of README.md from what `make baselines` measured, and put it between the marks in README.md."""

from __future__ import annotations

import json
from pathlib import Path

MARKS = "<!-- baselines -->", "<!-- end of baselines -->"
# capability, metric, baseline that must be beaten, name of the row
ROWS = (
    ("lidar", "occupancy_ap@1.0s", "ego_hold", "occupancy at 1.0 s, average precision"),
    ("lidar", "occupancy_ap@1.0s", "logistic", "the same, against the strongest baseline"),
    ("state", "reconstruction_psnr", "pca", "image from two tokens (256 numbers), PSNR"),
    ("state", "reconstruction_ssim", "pca", "the same, SSIM"),
    ("future", "hand_ade@0.5s", "constant_velocity", "hand trajectory to 0.5 s, mean error"),
    ("future", "hand_ade@0.5s", "ridge", "the same, against the strongest baseline"),
    ("future", "frame_psnr_moving@1.0s", "copy_last", "frame at 1.0 s while the hand moves, PSNR"),
    ("future", "frame_psnr@1.0s", "copy_last", "the same over all frames"),
    ("policy", "action_mae@0.5s", "hold", "action chunk to 0.5 s, mean error"),
    ("policy", "action_mae@0.5s", "ridge_commands", "the same, against the strongest baseline"),
)


def table(folder: Path) -> str:
    """The table in Markdown. Raises FileNotFoundError where `make baselines` has not run."""
    measured: dict[str, dict[str, dict]] = {}  # type: ignore[type-arg]
    for run in ("drive", "tabletop"):
        for name, part in json.loads((folder / run / "metrics.json").read_text())["capabilities"].items():
            measured[name] = part["metrics"]
    lines = ["| what | model | baseline | gain | 95 % interval |", "|---|---|---|---|---|"]
    for capability, metric, baseline, title in ROWS:
        m = measured[capability][metric]
        gain, low, high = m["gains"][baseline]
        unit = "" if m["unit"] in ("1", "") else f" {m['unit']}"
        lines.append(
            f"| {title} | {m['value']:#.3g}{unit} | {m['baselines'][baseline]:#.3g} `{baseline}` | {gain:+#.2g} | "
            f"{low:+#.2g} … {high:+#.2g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print, and write README.md."""
    text = table(Path("build/baselines"))
    print(text)
    readme = Path("README.md").read_text()
    before, _, rest = readme.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    Path("README.md").write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
