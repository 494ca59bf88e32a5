"""How good states are: what two tokens give back of the image, and what their change tells of the arm's.

Reconstructions are the deterministic estimate (the mean image of a state); `sample_distance` has single samples of the
flow, by a distance of textures, where sharp ones should be nearer than the mean. All images are compared at the model's
size, as uint8, baselines too. Baselines come from the bundle: `pca` with as many numbers as a state, `mean_image`,
and for interpolation the image drawn from the `first` state and the mean of the two images, `pixel_mean`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from wm_ros.evaluation.scorer import Metric, Scorer, Scores
from wm_ros.evaluation.state_heads import ActionHeads, change_rows, r_squared
from wm_ros.kinematics import arm_for
from wm_ros.nn.image_quality import psnr, ssim, ssim_within, texture_distance
from wm_ros.nn.preprocessing import resize_area, to_tensor
from wm_ros.state.action import STEPS, pooled_pixels, step_pairs
from wm_ros.state.baselines import load_baselines
from wm_ros.state.motion import interpolate
from wm_ros.training.image_cache import ARM_SIDE, Arm
from wm_ros.types import Frame, Joints, Prediction, Sample, StatePrediction

GAPS = (4, 10, 16)  # frames between the two images whose middle is drawn
MOVING_MPS = 0.03  # mean speed of the wrist over the past 0.2 s
MOVING_S = 0.2
PICTURED = 6
SAMPLED, SAMPLE_STEPS = 8, 8  # images of an episode that a sample is drawn for; steps of each
CHANGED = 24  # of 255: a pixel that differs by more belongs to what moves
Images = NDArray[np.uint8]


class StateScorer(Scorer):
    """See `Scorer`. Holds one episode's images at the model's size, 37 kB each."""

    name: ClassVar[str] = "state"

    def __init__(self, bundle: Path) -> None:
        self.baselines = load_baselines(bundle)
        self.heads = ActionHeads(self.baselines.tensors)
        self.arm = Arm(ARM_SIDE)
        self.wrist: Any = None
        self.frame: Frame | None = None
        self.stamps_ns: list[int] = []
        self.images: list[Images] = []
        self.tokens: list[NDArray[np.float32]] = []
        self.pictures: list[Images | None] = []

    def observe(self, sample: Sample) -> None:
        if isinstance(sample, Frame):
            self.frame = sample
        elif type(sample) is Joints:
            self.arm.hear(sample)
            self.wrist = self.wrist or arm_for(sample.names, ARM_SIDE)

    def predict(self, prediction: Prediction) -> None:
        if not isinstance(prediction, StatePrediction) or self.frame is None:
            return
        config = self.baselines.config
        self.stamps_ns.append(prediction.stamp_ns)
        self.images.append(resize_area(self.frame.rgb, config.image_height, config.image_width))
        self.tokens.append(prediction.tokens.tokens)
        self.pictures.append(prediction.reconstruction)

    def finish(self) -> Scores:
        scores = Scores(rows=[{"stamp_ns": stamp} for stamp in self.stamps_ns])
        if not self.images:
            return scores
        images, tokens = np.stack(self.images), np.stack(self.tokens)
        self._reconstruction(scores, images)
        self._samples(scores, images, tokens)
        self._actions(scores, images, tokens)
        self._interpolation(scores, images, tokens)
        return scores

    def _reconstruction(self, scores: Scores, images: Images) -> None:
        drawn = [i for i, picture in enumerate(self.pictures) if picture is not None]
        if not drawn:
            return
        truth = images[drawn]
        methods = {
            "model": np.stack([picture for picture in self.pictures if picture is not None]),
            "pca": self.baselines.pca_images(truth),
            "mean_image": np.broadcast_to(self.baselines.mean_image(), truth.shape),
        }
        for measure, unit, function in (("psnr", "dB", psnr), ("ssim", "", ssim)):
            values = {name: _quality(function, made, truth) for name, made in methods.items()}
            metric = f"reconstruction_{measure}"
            scores.metrics.append(Metric(metric, unit, "higher", {n: v[:, None] for n, v in values.items()}))
            for row, value in zip(drawn, values["model"], strict=True):
                scores.rows[row][metric] = float(value)
        shown = np.linspace(0, len(drawn) - 1, min(PICTURED, len(drawn))).round().astype(int)
        scores.pictures["image · from two tokens · from PCA (rows)"] = np.concatenate(
            [np.concatenate([part[i] for i in shown], axis=1) for part in (truth, methods["model"], methods["pca"])]
        )

    def _actions(self, scores: Scores, images: Images, tokens: NDArray[np.float32]) -> None:
        times = np.asarray(self.stamps_ns) * 1e-9
        arm = self.arm.at(times)
        if not self.heads or np.isnan(arm).any():
            return
        inputs = {
            "model": torch.from_numpy(tokens).flatten(1),
            "pca": self.baselines.pca_numbers(images),
            "pixels": pooled_pixels(to_tensor(images)),
        }
        same, kind = np.zeros(len(times), np.int64), self.heads.kind(tokens)
        for k in STEPS:
            first, second = step_pairs(same, times, k * self.baselines.config.step_s)
            if not len(first):
                continue
            truth = arm[second] - arm[first]
            statistics = {
                method: change_rows(self.heads.predict(kind, method, k, values[second] - values[first]), truth)
                for method, values in inputs.items()
            }
            scores.metrics.append(Metric(f"action_r2@k{k}", "", "higher", statistics, pooled=r_squared))

    def _samples(self, scores: Scores, images: Images, tokens: NDArray[np.float32]) -> None:
        """One sample of the flow for a few images of the episode."""
        chosen = np.unique(np.linspace(0, len(images) - 1, min(SAMPLED, len(images))).round().astype(int))
        methods = {
            "model": self.baselines.draw(tokens[chosen], SAMPLE_STEPS),
            "mean": self.baselines.render(tokens[chosen]),
            "pca": self.baselines.pca_images(images[chosen]),
        }
        values = {name: _quality(texture_distance, made, images[chosen])[:, None] for name, made in methods.items()}
        scores.metrics.append(Metric("sample_distance", "", "lower", values))

    def _interpolation(self, scores: Scores, images: Images, tokens: NDArray[np.float32]) -> None:
        moving = self._moving()
        quality: dict[str, list[NDArray[np.float64]]] = {}
        similarity: dict[str, list[NDArray[np.float64]]] = {}
        for gap in GAPS:
            first = np.flatnonzero(moving[gap // 2 : max(len(images) - gap, 0) + gap // 2])
            if not len(first) or len(images) <= gap:
                continue
            last, middle = first + gap, images[first + gap // 2]
            numbers = self.baselines.pca_numbers(images)
            methods = {
                "model": self.baselines.render(interpolate(tokens[first], tokens[last], 0.5)),
                "first": self.baselines.render(tokens[first]),
                "pca": self.baselines.pca_decode(interpolate(numbers[first], numbers[last], 0.5)),
                "pixel_mean": ((images[first].astype(np.uint16) + images[last] + 1) // 2).astype(np.uint8),
            }
            region = changing(images[first], images[last])
            kept = region[:, 5:-5, 5:-5].any((1, 2))
            for name, made in methods.items():
                quality.setdefault(name, []).append(_quality(psnr, made, middle))
                inside = _quality(ssim_within, made[kept], middle[kept], region[kept])
                similarity.setdefault(name, []).append(inside)
            scores.metrics.append(
                Metric(f"interpolation_psnr@gap{gap}", "dB", "higher", {n: v[-1][:, None] for n, v in quality.items()})
            )
            for row, value in zip(first + gap // 2, quality["model"][-1], strict=True):
                scores.rows[row][f"interpolation_psnr@gap{gap}"] = float(value)
        for metric, unit, parts in (("psnr", "dB", quality), ("ssim_hand", "", similarity)):
            if parts:
                merged = {name: np.concatenate(values)[:, None] for name, values in parts.items()}
                scores.metrics.append(Metric(f"interpolation_{metric}", unit, "higher", merged))
        if quality:
            self._strip(scores, images, tokens)

    def _moving(self) -> NDArray[np.bool_]:
        """Whether the right wrist moves at each image; all of them where there are no joints."""
        times = np.asarray(self.stamps_ns) * 1e-9
        if self.wrist is None:
            return np.ones(len(times), bool)
        past = np.maximum(times - MOVING_S, times[0])
        path = np.stack(
            [self.wrist.wrist(self.arm.at(past + share * (times - past))) for share in np.linspace(0, 1, 4)]
        )
        length = np.linalg.norm(np.diff(path, axis=0), axis=-1).sum(0)
        return np.asarray(length / np.maximum(times - past, 1e-9) > MOVING_MPS)

    def _strip(self, scores: Scores, images: Images, tokens: NDArray[np.float32]) -> None:
        """From one image to one 16 frames on: what was seen, and states on the straight line between the two."""
        gap = min(GAPS[-1], len(images) - 1)
        start = int(np.argmax(np.square(tokens[gap:] - tokens[:-gap]).sum((1, 2))))
        shares = np.linspace(0, 1, 5)
        seen = images[[start + round(share * gap) for share in shares]]
        states = np.stack([interpolate(tokens[start], tokens[start + gap], float(share)) for share in shares])
        rows = [np.concatenate(list(part), axis=1) for part in (seen, self.baselines.render(states))]
        scores.pictures["seen · states between the first and the last (rows)"] = np.concatenate(rows)


def changing(first: Images, last: Images) -> NDArray[np.bool_]:
    """Where two images differ, and around it: the arm and the hand that moved, (B, H, W, 3) twice → (B, H, W)."""
    differs = torch.from_numpy(np.abs(first.astype(np.int16) - last).max(-1) > CHANGED).float()
    grown = functional.max_pool2d(functional.avg_pool2d(differs[:, None], 3, 1, 1).round(), 9, 1, 4)
    return np.asarray(grown[:, 0].bool().numpy())


def _quality(function: Any, *arguments: NDArray[Any]) -> NDArray[np.float64]:
    """`function` of each pair of (B, H, W, 3) uint8 images; a region (B, H, W) is passed on as it is."""
    parts = [
        function(
            *(
                to_tensor(a[at : at + 64]) if a.dtype == np.uint8 else torch.from_numpy(a[at : at + 64])
                for a in arguments
            )
        )
        for at in range(0, len(arguments[0]), 64)
    ]
    return torch.cat([torch.empty(0), *parts]).double().numpy()


SCORER = StateScorer
