"""All images of some recordings: boxes to a file, strips, and a summary."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.data.sources import Episode
from wm_ros.errors import UserError
from wm_ros.hands.detector import Detector
from wm_ros.hands.forecast import HORIZONS_S, METHODS, errors
from wm_ros.hands.pictures import Strip
from wm_ros.hands.source import Track, line_of, watch
from wm_ros.topics import SIDES
from wm_ros.types import Frame, HandTrajectory

Summary = dict[str, float | None]


def run(recordings: Iterable[Episode], detector: Detector, folder: Path) -> Summary:
    """Write boxes.jsonl (`line_of`), summary.json and strip_<recording>.png for each recording with images.

    Returns:
        The summary: counts, shares of images with a hand, ms for an image (detector and sides, without decoding), and
        `<method>_ade@<horizon>s` in shares of the image's width over `moments@<horizon>s` of all sides and recordings.

    Raises:
        UserError: no recording holds an image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    took_ms: list[float] = []
    seen_sides: list[tuple[bool, ...]] = []
    ade: dict[str, dict[float, list[NDArray[np.float64]]]] = {m: {h: [] for h in HORIZONS_S} for m in METHODS}
    with (folder / "boxes.jsonl").open("w") as lines:
        for recording in recordings:
            said: dict[str, list[HandTrajectory]] = {side: [] for side in SIDES}
            strip, aspect = Strip(), 0.0
            for seen in watch((s for s in recording.samples() if isinstance(s, Frame)), detector):
                for side, hand in seen.hands.items():
                    said[side].append(hand)
                    lines.write(line_of(recording.name, hand, seen.scores[side]) + "\n")
                seen_sides.append(tuple(bool(seen.hands[side].valid[0]) for side in SIDES))
                took_ms.append(seen.took_ms)
                strip.add(seen)
                aspect = seen.frame.rgb.shape[0] / seen.frame.rgb.shape[1]
            if aspect:
                cv2.imwrite(str(folder / f"strip_{recording.name}.png"), strip.picture()[..., ::-1])
            for side in SIDES:
                for method, by_horizon in errors(Track(said[side]), aspect).items():
                    for horizon, values in by_horizon.items():
                        ade[method][horizon].append(values)
    if not took_ms:
        raise UserError("no image in this source, so no hands; give a video, or a bag or dataset with images")
    summary = _summary(np.array(seen_sides), took_ms, ade)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _summary(
    seen: NDArray[np.bool_], took_ms: list[float], ade: dict[str, dict[float, list[NDArray[np.float64]]]]
) -> Summary:
    summary: Summary = {"frames": len(seen), "share_with_a_hand": float(seen.any(axis=1).mean())}
    summary |= {f"share_with_the_{side}_hand": float(seen[:, i].mean()) for i, side in enumerate(SIDES)}
    summary |= {f"ms_per_frame_p{p}": float(np.percentile(took_ms, p)) for p in (50, 95)}
    for horizon in HORIZONS_S:
        for method in METHODS:
            values = np.concatenate(ade[method][horizon])
            summary[f"moments@{horizon}s"] = len(values)
            summary[f"{method}_ade@{horizon}s"] = float(values.mean()) if len(values) else None
    return summary
