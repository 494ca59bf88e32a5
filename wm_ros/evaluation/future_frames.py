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
from wm_ros.future.solvers import make_solver
from wm_ros.nn.image_quality import psnr, ssim, texture_distance
from wm_ros.nn.preprocessing import resize_area, to_tensor
from wm_ros.types import Frame, FuturePrediction, Sample

EVERY = 3  # predictions per painted one, doubled whenever `KEPT` are held
KEPT = 240
CONTROLS = ("copy_last", "no_trajectory", "shuffled")
HAND = "hand_in_frame"
SAMPLED = 4  # painted predictions per one of which a sample is drawn too
SAMPLE = "frame_texture_sample"
FIGURES = {"frame_psnr": psnr, "frame_ssim": ssim, "frame_texture": texture_distance}
UNITS = {
    "frame_psnr": ("dB", "higher"),
    "frame_ssim": ("1", "higher"),
    "frame_texture": ("1", "lower"),
    SAMPLE: ("1", "lower"),
    HAND: ("mm", "lower"),
}
# Of each figure: name, what is scored, beside what.
ON_TRAJECTORIES = (("", "predicted", CONTROLS), ("_true", "true", CONTROLS))
VARIANTS: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "frame_psnr": ON_TRAJECTORIES,
    "frame_ssim": ON_TRAJECTORIES,
    "frame_texture": (("", "predicted", ("copy_last",)),),
    SAMPLE: (("", "sample", ("predicted", "copy_last")),),
    HAND: (
        ("", "predicted", ()),
        ("_true", "true", CONTROLS[:2]),
        ("_shuffled", "shuffled", ()),
        ("_seen", "seen", ()),
    ),
}
Images = NDArray[np.uint8]
Hands = tuple[float, ...]


@dataclass
class Painted:
    """One prediction's frames. `shown`, `seen`: (H, W, 3) by index of the horizon; `seen` fills as time goes on."""

    moment: Moment
    shown: Images
    hand_error_m: Hands
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
        frames = prediction.frames
        self.kept.append(Painted(moment, frames.rgb, frames.hand_error_m, self._sized(moment.frame.rgb)))
        if len(self.kept) > KEPT:
            self.kept, self._every = self.kept[::2], 2 * self._every

    def metrics(
        self, moving: dict[int, bool], true_body: Callable[[int], Tensor], rows: list[dict[str, Any]]
    ) -> list[Metric]:
        """frame_psnr and frame_ssim at each horizon, `_true` on the true trajectory, `_moving` on moving frames.

        frame_texture: distance of local contrast, `_sample` of a sample, drawn for one in `SAMPLED`, instead of the
        mean. hand_in_frame: how far the hand in a frame is from the trajectory that it was painted on, as a reader sees
        it (frames that were painted on none: from the true one); `_seen`: the same of the frames that came, which says
        what the reader itself errs by.

        Args:
            moving: by stamp of the prediction. true_body: stamp → (1, F, V) bodies that came.
        """
        by_stamp = {row["stamp_ns"]: row for row in rows}
        found: dict[tuple[str, int], list[tuple[int, dict[str, float]]]] = {}
        for number, painted in enumerate(self.kept):
            if not painted.seen:
                continue
            stamp_ns, (pictures, hands) = painted.moment.stamp_ns, self._pictures(number, true_body)
            sample = None if number % SAMPLED else self._sample(painted.moment)
            for index, truth in sorted(painted.seen.items()):
                for key in FIGURES:
                    values = _measured(key, {name: frames[index] for name, frames in pictures.items()}, truth)
                    found.setdefault((key, index), []).append((stamp_ns, values))
                if sample is not None:
                    shown = {name: pictures[name][index] for name in ("predicted", "copy_last")}
                    values = _measured("frame_texture", shown | {"sample": sample[index]}, truth)
                    found.setdefault((SAMPLE, index), []).append((stamp_ns, values))
                if hands["true"]:
                    values = {name: 1e3 * error_m[index] for name, error_m in hands.items()}
                    found.setdefault((HAND, index), []).append((stamp_ns, values))
        metrics = []
        for (key, index), told in found.items():
            at = f"{self.config.frame_horizons_s[index]:.2f}".rstrip("0").ljust(3, "0")
            unit, better = UNITS[key]
            columns = {name: np.array([[values[name]] for _, values in told]) for name in told[0][1]}
            chosen = np.array([moving[stamp_ns] for stamp_ns, _ in told])
            for variant, figure, against in VARIANTS[key]:
                whole = {"model": columns[figure], **{name: columns[name] for name in against}}
                metrics.append(Metric(f"{key}{variant}@{at}s", unit, better, whole))
                some = {name: column[chosen] for name, column in whole.items()}
                metrics.append(Metric(f"{key}{variant}_moving@{at}s", unit, better, some))
                for (stamp_ns, _), value in zip(told, columns[figure][:, 0], strict=True):
                    by_stamp[stamp_ns][f"{key}{variant}@{at}s"] = float(value)
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

    def _pictures(self, number: int, true_body: Callable[[int], Tensor]) -> tuple[dict[str, Images], dict[str, Hands]]:
        """Method → (K, H, W, 3), and how far the hand is from the trajectory that it was painted on: method → (K,) m,
        nothing without a reader. Pictures that were painted on none are held against the true one."""
        painted = self.kept[number]
        moment = painted.moment
        # Another time of the episode, half of it away, so that the two have little in common.
        other = self.kept[(number + max(1, len(self.kept) // 2)) % len(self.kept)]
        true, off = true_body(moment.stamp_ns), true_body(other.moment.stamp_ns)
        pictures, hands = {"predicted": painted.shown}, {"predicted": painted.hand_error_m}
        for name, path in (("true", true), ("no_trajectory", None), ("shuffled", off)):
            painting = self.twin.paint(moment, path)
            pictures[name], hands[name] = painting.rgb, painting.hand_error_m
        pictures["copy_last"] = np.repeat(painted.now[None], len(self.config.frame_steps), 0)
        if hands["true"]:
            seen = np.stack([painted.seen.get(i, painted.now) for i in range(len(self.config.frame_steps))])
            for name, images in (("seen", seen), *((name, pictures[name]) for name in CONTROLS[:2])):
                hands[name] = self.twin.painter.hand_error_m(moment, images, true)
        return pictures, hands

    def _sample(self, moment: Moment) -> Images:
        """Frames on the predicted trajectory, drawn as one possible future instead of the mean of all."""
        sizes = self.config.frames
        return self.twin.paint(moment, moment.forecast.body, make_solver(sizes, max(2, sizes.sample_steps))).rgb

    def _sized(self, rgb: Images) -> Images:
        return resize_area(rgb, self.config.image_height, self.config.image_width)


def _measured(key: str, pictures: dict[str, Images], truth: Images) -> dict[str, float]:
    """One figure of pictures (H, W, 3) of the same moment, by name."""
    images = to_tensor(np.stack(list(pictures.values())))
    values = FIGURES[key](images, to_tensor(truth)[None].expand_as(images))
    return dict(zip(pictures, values.tolist(), strict=True))
