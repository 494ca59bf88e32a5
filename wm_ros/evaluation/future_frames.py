"""Painted frames beside the frames that came, and beside frames painted as controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.evaluation.scorer import Metric
from wm_ros.future.capability import FutureCapability
from wm_ros.future.painter import Moment
from wm_ros.nn.image_quality import psnr, ssim
from wm_ros.nn.preprocessing import resize_area, to_tensor
from wm_ros.types import Frame, FuturePrediction, Sample

EVERY = 3  # predictions per painted one, doubled whenever `KEPT` are held
KEPT = 240
CONTROLS = ("copy_last", "no_trajectory", "shuffled")
Images = NDArray[np.uint8]


@dataclass
class Painted:
    """One prediction's frames. `shown`, `seen`: (H, W, 3) by index of the horizon; `seen` fills as time goes on."""

    moment: Moment
    shown: Images
    now: Images
    seen: dict[int, Images] = field(default_factory=dict)


class PaintLog:
    """Holds every `EVERY`-th prediction with the frames that came after it, in bounded memory."""

    def __init__(self, twin: FutureCapability) -> None:
        self.twin, self.config = twin, twin.config
        self.kept: list[Painted] = []
        self._every, self._count = EVERY, 0

    def observe(self, sample: Sample) -> None:
        """Keep a frame where it is the truth of a held prediction (nearest within half a step of the grid)."""
        if not isinstance(sample, Frame):
            return
        tolerance_s = 0.5 / self.config.rate_hz
        for painted in reversed(self.kept):
            age_s = (sample.stamp_ns - painted.moment.stamp_ns) * 1e-9
            if age_s > self.config.frame_horizons_s[-1] + tolerance_s:
                break
            for index, step in enumerate(self.config.frame_steps):
                if index not in painted.seen and abs(age_s - step / self.config.rate_hz) < tolerance_s:
                    painted.seen[index] = self._sized(sample.rgb)

    def predict(self, prediction: FuturePrediction, moment: Moment) -> None:
        """Hold this prediction if it is its turn."""
        turn, self._count = self._count % self._every == 0, self._count + 1
        if not turn or moment.frame is None or prediction.frames is None:
            return
        self.kept.append(Painted(moment, prediction.frames.rgb, self._sized(moment.frame.rgb)))
        if len(self.kept) > KEPT:
            self.kept, self._every = self.kept[::2], 2 * self._every

    def metrics(
        self, moving: dict[int, bool], true_body: Callable[[int], Tensor], rows: list[dict[str, Any]]
    ) -> list[Metric]:
        """frame_psnr and frame_ssim at each horizon, `_true` on the true trajectory, `_moving` on moving frames.

        Args:
            moving: by stamp of the prediction. true_body: stamp → (1, F, V) bodies that came.
        """
        by_stamp = {row["stamp_ns"]: row for row in rows}
        found: dict[tuple[str, int], dict[str, list[float]]] = {}
        stamps: dict[int, list[int]] = {}
        for number, painted in enumerate(self.kept):
            if not painted.seen:
                continue
            pictures = self._pictures(number, true_body)
            for index, truth in sorted(painted.seen.items()):
                stamps.setdefault(index, []).append(painted.moment.stamp_ns)
                names = list(pictures)
                images = to_tensor(np.stack([pictures[name][index] for name in names]))
                wanted = to_tensor(truth)[None].expand_as(images)
                for key, values in (("psnr", psnr(images, wanted)), ("ssim", ssim(images, wanted))):
                    for name, value in zip(names, values.tolist(), strict=True):
                        found.setdefault((key, index), {}).setdefault(name, []).append(value)
        metrics = []
        for (key, index), methods in found.items():
            at = f"{self.config.frame_horizons_s[index]:.2f}".rstrip("0").ljust(3, "0")
            unit = "dB" if key == "psnr" else "1"
            columns = {name: np.array(column)[:, None] for name, column in methods.items()}
            chosen = np.array([moving[stamp] for stamp in stamps[index]])
            for variant, figure in (("", "predicted"), ("_true", "true")):
                whole = {"model": columns[figure], **{name: columns[name] for name in CONTROLS}}
                metrics.append(Metric(f"frame_{key}{variant}@{at}s", unit, "higher", whole))
                some = {name: column[chosen] for name, column in whole.items()}
                metrics.append(Metric(f"frame_{key}{variant}_moving@{at}s", unit, "higher", some))
                for stamp, value in zip(stamps[index], columns[figure][:, 0], strict=True):
                    by_stamp[stamp][f"frame_{key}{variant}@{at}s"] = float(value)
        return metrics

    def pictures(self) -> dict[str, Images]:
        """A strip of the prediction in the middle: now and what came, above now and what was painted."""
        whole = [p for p in self.kept if len(p.seen) == len(self.config.frame_steps)]
        if not whole:
            return {}
        painted = max(whole, key=lambda p: float(np.abs(p.seen[len(p.seen) - 1].astype(int) - p.now).mean()))
        seen = [painted.now, *(painted.seen[i] for i in sorted(painted.seen))]
        shown = [painted.now, *painted.shown]
        strip = np.concatenate([np.concatenate(seen, 1), np.concatenate(shown, 1)], 0)
        horizons = ", ".join(f"{h:g}" for h in self.config.frame_horizons_s)
        return {f"frames: above now and what came after {horizons} s, below what was predicted": strip}

    # ------------------------------------------------------------------ methods

    def _pictures(self, number: int, true_body: Callable[[int], Tensor]) -> dict[str, Images]:
        """Method → (K, H, W, 3)."""
        painted = self.kept[number]
        moment = painted.moment
        # Another time of the episode, half of it away, so that the two have little in common.
        other = self.kept[(number + max(1, len(self.kept) // 2)) % len(self.kept)]
        return {
            "predicted": painted.shown,
            "true": self.twin.paint(moment, true_body(moment.stamp_ns)),
            "copy_last": np.repeat(painted.now[None], len(self.config.frame_steps), 0),
            "no_trajectory": self.twin.paint(moment, None),
            "shuffled": self.twin.paint(moment, true_body(other.moment.stamp_ns)),
        }

    def _sized(self, rgb: Images) -> Images:
        return resize_area(rgb, self.config.image_height, self.config.image_width)
