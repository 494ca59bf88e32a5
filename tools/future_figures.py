"""Put what `wm eval` measured of a future bundle into its card, so that no figure is typed by hand.

    wm eval 'DATASET?episodes=36-43' --capability state --capability future --bundle future=runs/future/bundle --out E
    python tools/future_figures.py runs/future/bundle 'Eight episodes of the humanoid' E/metrics.json

One section for each recording: wrists while they move, frames at all moments and while the wrist moves, the hand in the
frames, samples. A gain stands with its 95 % interval over episodes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from add_to_card import add_section

HORIZONS_S = ("0.2", "0.5", "1.0", "2.0")
FRAMES_S = ("0.33", "0.67", "1.0")
Entry = dict[str, Any]


def main() -> None:
    """Read the metrics and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("title")
    parser.add_argument("metrics", type=Path)
    parser.add_argument("--command", default="", help="that printed them")
    given = parser.parse_args()
    report = json.loads(given.metrics.read_text())
    metrics = report["capabilities"]["future"]["metrics"]
    tables = [hands(metrics), frames(metrics), hand_in_frame(metrics), samples(metrics)]
    text = "\n\n".join(filter(None, tables))
    print(text)
    if given.command:
        text = f"`{given.command}`\n\n{text}"
    add_section(given.bundle / "CARD.md", given.title, text)


def hands(metrics: dict[str, Entry]) -> str:
    """Error of the wrist while it moves, state-only and with commands, and as a share of the best simple baseline."""
    head = "| while the wrist moves, mm | model | constant velocity | ridge | of the best of hold, velocity, phase |"
    lines = [head, "|---|---|---|---|---|"]
    for suffix, said in (("", ""), ("_commands", "with commands, ")):
        for horizon in HORIZONS_S:
            entry = metrics.get(f"hand_ade{suffix}_moving@{horizon}s")
            if entry is None:
                continue
            best = min(entry["baselines"][name] for name in ("hold", "constant_velocity", "phase"))
            row = [f"{said}to {horizon} s", f"{entry['value']:.2f}"]
            row += [_against(entry, name, 2) for name in ("constant_velocity", "ridge")]
            lines.append(f"| {' | '.join(row)} | {entry['value'] / best:.3f} |")
    return "\n".join(lines)


def frames(metrics: dict[str, Entry]) -> str:
    """PSNR of frames on the predicted trajectory and on the true one, beside the controls."""
    lines = [
        "| frames, PSNR dB | model | copy of the last | no trajectory | shuffled trajectory |",
        "|---|---|---|---|---|",
    ]
    for moving, when in (("", ""), ("_moving", ", while the wrist moves")):
        for variant, said in (("", "predicted"), ("_true", "true")):
            for horizon in FRAMES_S:
                entry = metrics.get(f"frame_psnr{variant}{moving}@{horizon}s")
                if entry is None:
                    continue
                row = [f"{said}, {horizon} s{when}", f"{entry['value']:.1f}"]
                row += [_against(entry, name, 2, 1) for name in ("copy_last", "no_trajectory", "shuffled")]
                lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def hand_in_frame(metrics: dict[str, Entry]) -> str:
    """Where the hand is in the frames, and how unlike the frames' texture is to that of the frames that came."""
    names = [f"hand_in_frame{variant}_moving@{horizon}s" for variant in ("", "_true", "_seen") for horizon in FRAMES_S]
    if not all(name in metrics for name in names):
        return ""
    lines = [f"| while the wrist moves | {' | '.join(f'{h} s' for h in FRAMES_S)} |", "|---|---|---|---|"]
    rows = [
        ("hand in the frame, from the predicted trajectory, mm", "hand_in_frame", None),
        ("from the true one, in frames on it", "hand_in_frame_true", None),
        ("from the true one, in frames on none", "hand_in_frame_true", "no_trajectory"),
        ("from the true one, in the last frame", "hand_in_frame_true", "copy_last"),
        ("from the true one, in the frames that came", "hand_in_frame_seen", None),
        ("texture distance of the mean", "frame_texture", None),
        ("of a sample", "frame_texture_sample", None),
        ("of the last frame", "frame_texture", "copy_last"),
    ]
    for said, key, baseline in rows:
        entries = [metrics[f"{key}_moving@{horizon}s"] for horizon in FRAMES_S]
        values = [entry["value"] if baseline is None else entry["baselines"][baseline] for entry in entries]
        digits = 3 if "texture" in key else 1
        lines.append(f"| {said} | {' | '.join(f'{value:.{digits}f}' for value in values)} |")
    return "\n".join(lines)


def samples(metrics: dict[str, Entry]) -> str:
    """Coverage and energy score of the samples of the wrist."""
    horizons = ("0.5", "1.0", "2.0")
    lines = [f"| samples | {' | '.join(f'to {h} s' for h in horizons)} |", "|---|---|---|---|"]
    scores = [metrics[f"hand_energy_score@{h}s"] for h in horizons]
    covered = [metrics[f"hand_region90@{h}s"]["value"] for h in horizons]
    lines.append(f"| true path inside the 90 % region | {' | '.join(f'{value:.3f}' for value in covered)} |")
    scored = [entry["value"] for entry in scores]
    lines.append(f"| energy score, mm | {' | '.join(f'{value:.2f}' for value in scored)} |")
    for name, said in (("equal", "all samples alike"), ("ridge_gaussian", "Gaussian paths around the ridge")):
        lines.append(f"| {said} | {' | '.join(_against(entry, name, 2) for entry in scores)} |")
    told = metrics["hand_plausibility"]["value"]
    return "\n".join([*lines, f"\nThe energy finds the truth more plausible than a sample in {told:.0%} of the cases."])


def _against(entry: Entry, baseline: str, digits: int, value_digits: int | None = None) -> str:
    """A baseline's value, the gain over it and the interval of that."""
    if baseline not in entry["baselines"]:
        return "–"
    gain, low, high = (f"{each:+.{digits}f}" for each in entry["gains"][baseline])
    shown = digits if value_digits is None else value_digits
    return f"{entry['baselines'][baseline]:.{shown}f} ({gain} [{low}, {high}])"


if __name__ == "__main__":
    main()
