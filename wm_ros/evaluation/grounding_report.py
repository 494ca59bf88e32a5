"""`wm grounding`: the figures over many scenes as JSON and table, and pictures of a few."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.bundle import tokens_checksum
from wm_ros.capability import load
from wm_ros.errors import UserError
from wm_ros.evaluation.grounding import Answer, ask, metrics, subtask_metrics
from wm_ros.evaluation.metrics import summarise, tidy, wilson
from wm_ros.evaluation.scorer import Metric
from wm_ros.future.capability import FutureCapability
from wm_ros.state.capability import StateCapability

PICTURES = 8
ZOOM = 4
COLOURS = {"right": (40, 200, 60), "wrong": (230, 50, 40), "none": (150, 150, 150), "truth": (255, 255, 255)}


def run(state: Path, future: Path, seeds: Sequence[int], choice: int, out: Path) -> Iterator[str]:
    """Ask about every scene, saying what is under way; writes metrics.json, grounding.md and grounding.jpg.

    Raises:
        UserError: the bundles do not belong together, or no scene is asked for.
    """
    out.mkdir(parents=True, exist_ok=True)
    eyes, model = load("state", state), load("future", future)
    assert isinstance(eyes, StateCapability) and isinstance(model, FutureCapability)
    if model.state_tokens_sha256 != tokens_checksum(state):
        raise UserError(f"bundle '{future}' was trained on the tokens of another state bundle than '{state}'")
    if not seeds:
        raise UserError("seeds is empty; give e.g. 100000-100099")
    found: list[list[Metric]] = []
    said: list[tuple[str, str] | None] = []
    shown: list[NDArray[np.uint8]] = []
    for number, seed in enumerate(seeds):
        yield f"scene {number + 1} of {len(seeds)}"
        answer = ask(eyes, model, seed, choice)
        found.append(metrics(answer))
        said.append(answer.subtask)
        if len(shown) < PICTURES:
            shown.append(picture(answer))
    report = figures([own + more for own, more in zip(found, subtask_metrics(said), strict=True)])
    (out / "metrics.json").write_text(json.dumps({"metrics": report}, indent=1) + "\n")
    (out / "grounding.md").write_text(table(report))
    rows = [np.hstack(shown[at : at + 2]) for at in range(0, len(shown) - 1, 2)] or shown
    cv2.imwrite(str(out / "grounding.jpg"), np.vstack(rows)[..., ::-1])


def figures(found: list[list[Metric]]) -> dict[str, dict[str, Any]]:
    """Entries of metrics.json; shares also have Wilson intervals."""
    report = summarise(found)
    for name in ("picked", "follows_wrong", "subtask"):
        rows = [metric.statistics for metrics in found for metric in metrics if metric.name == name]
        methods = [method for method in (rows[0] if rows else ()) if method != "chance"]
        hits = {method: round(sum(row[method].item() for row in rows)) for method in methods}
        if rows:
            report[name]["wilson_ci95"] = {m: [tidy(edge) for edge in wilson(hits[m], len(rows))] for m in methods}
    return report


def table(report: dict[str, dict[str, Any]]) -> str:
    """In Markdown: what each instruction, and what each baseline, comes to."""
    lines = ["| figure | scenes | right words | " + " | ".join(_COLUMNS) + " | gain of right over wrong words |"]
    lines.append("|---" * (len(_COLUMNS) + 4) + "|")
    for name, entry in report.items():
        shares = entry.get("wilson_ci95", {})
        values = {"model": entry["value"], **entry["baselines"]}
        cells = [_cell(values.get(method), shares.get(method)) for method in ("model", *_COLUMNS.values())]
        gain = entry.get("gains", {}).get("wrong")
        said = f"{gain[0]:.3g} [{gain[1]:.3g}, {gain[2]:.3g}]" if gain else "–"
        lines.append(f"| {name} ({entry['unit']}) | {entry['n']} | " + " | ".join(cells) + f" | {said} |")
    return "\n".join(lines) + "\n"


_COLUMNS = {
    "wrong words": "wrong",
    "no words": "none",
    "no motion": "hold",
    "chance": "chance",
    "true motion": "truth",
    "most frequent": "most_frequent",
}


def _cell(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if interval is None else f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def picture(answer: Answer) -> NDArray[np.uint8]:
    """The camera's picture with the wrist's way: right words green, wrong red, none grey, as it came white."""
    size = answer.shown.size
    shown = cv2.resize(
        answer.shown.picture(answer.step), (ZOOM * size[0], ZOOM * size[1]), interpolation=cv2.INTER_CUBIC
    )
    camera = answer.shown.camera(answer.step)
    for name, colour in reversed(COLOURS.items()):
        path = answer.paths[name]
        side = int(np.linalg.norm(path[:, -1] - answer.start, axis=-1).argmax())
        pixels = camera.project(np.concatenate([answer.start[side][None], path[side]]))
        points = np.round((pixels + 0.5) * ZOOM).astype(np.int32)
        cv2.polylines(shown, [points[:, None]], False, colour, 2, cv2.LINE_AA)
        cv2.circle(shown, tuple(map(int, points[-1])), 6, colour, -1, cv2.LINE_AA)
    words = f"{answer.shown.text}  (wrong: {answer.other.words})"
    cv2.putText(shown, words, (6, shown.shape[0] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(shown, np.uint8)
