"""Rollouts on their own output: what would be seen and done over the next seconds, beside what then was.

One round is both stages of `future` up to its last frame horizon (one second). The next begins from what the last one
says: its last frame is the current image, the states are those that the state bundle sees in the frames it drew, wrists
and joints are where the predicted trajectory ended. Nothing of the recording enters after the start.

Each rollout is scored at every drawn frame, against the recording and against holding the last: the wrist where it
was, the last image copied. `_moving` counts the starts at which the wrist was faster than 0.03 m/s. `frame_texture` is
how far the local contrast is from that of the true frame, where blur and noise show (0: alike); `hand_in_frame` how
far the hand in a drawn frame is from the wrist that was forecast for it, as a reader of hands finds it. Horizons that
the recording does not reach are not scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.evaluation.future import MOVING_MPS, MOVING_OVER_S
from wm_ros.evaluation.future_frames import FIGURES, HAND, UNITS
from wm_ros.evaluation.replay import Pipeline
from wm_ros.evaluation.scorer import Metric
from wm_ros.future.capability import FutureCapability
from wm_ros.future.history import Window, collate
from wm_ros.future.memory import Memory
from wm_ros.future.painter import Moment
from wm_ros.nn.preprocessing import resize_area, to_tensor
from wm_ros.state.capability import StateCapability
from wm_ros.types import Frame, HandTrajectory, JointCommand, Joints, Sample

HISTORY_S = 0.8  # before the first start, so that a window is full
AHEAD_S = 2.0  # of recording after a start, at least
Images = NDArray[np.uint8]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Imagined:
    """A rollout: bodies (N, V) and frames (N, H, W, 3) at `offsets_s` (N,) after `stamp_ns`.

    `hand_error_m`: (N,) how far the hand in a frame is from the body that it was painted on; empty without a reader.
    """

    stamp_ns: int
    offsets_s: Array
    bodies: Array
    frames: Images
    hand_error_m: Array


@dataclass(frozen=True)
class Scored:
    """A rollout beside what came, which lasts for its first n ≤ N offsets.

    Attributes:
        now: the image at the start. seen: (n, H, W, 3) frames that came. moving: whether the wrist moved at the start.
        figures: name → method ("model", "hold") → (n,).
    """

    imagined: Imagined
    now: Images
    seen: Images
    moving: bool
    figures: dict[str, dict[str, Array]]


@torch.inference_mode()
def imagine(future: FutureCapability, state: StateCapability, moment: Moment, seconds: float) -> Imagined:
    """Roll out from `moment` for at least `seconds`, a whole number of rounds.

    Raises:
        ValueError: the moment has no image.
    """
    config = future.config
    stride, gap = config.frame_steps[-1], config.state_gap_steps
    looks = config.trajectory.image != "none"
    bodies, frames, offsets = [], [], []
    hands: list[float] = []
    for number in range(int(np.ceil(seconds * config.rate_hz / stride))):
        # Both stages, up to the last frame.
        forecast = future.model.trajectory(moment.batch)
        painting = future.paint(moment._replace(forecast=forecast), forecast.body)
        painted = painting.rgb
        body = forecast.body[0].cpu().numpy()
        offsets += [(number * stride + step) / config.rate_hz for step in config.frame_steps]
        bodies.append(body[[step - 1 for step in config.frame_steps]])
        frames.append(painted)
        hands += painting.hand_error_m
        # Where the next round begins: at what this one says.
        seen = state.tokenize(np.stack([state.preprocess(rgb) for rgb in painted]))
        before = config.frame_steps.index(stride - gap) if stride - gap in config.frame_steps else None
        window = Window(
            np.concatenate([moment.window.body, body[:stride]])[-config.history_steps :],
            np.stack([np.zeros_like(seen[-1]) if before is None else seen[before], seen[-1]]),
            moment.window.text,
            moment.window.known._replace(previous=before is not None, asked=False, image=looks),
            np.zeros_like(moment.window.asked),
            to_tensor(painted[-1]).numpy() if looks else None,
        )
        batch = collate([window], future.words).to(future.device)
        moment = Moment(moment.stamp_ns, window, batch, forecast, Frame(moment.stamp_ns, "", painted[-1]))
    return Imagined(
        moment.stamp_ns,
        np.array(offsets),
        np.concatenate(bodies).astype(np.float64),
        np.concatenate(frames),
        np.array(hands),
    )


class Rollouts:
    """Starts a rollout every `every_s` seconds of an episode and scores it when the episode is over."""

    def __init__(self, pipeline: Pipeline, every_s: float, seconds: float) -> None:
        """`pipeline`: of `state` and `future`."""
        self.pipeline, self.every_s, self.seconds = pipeline, every_s, seconds
        state, future = pipeline.capability("state"), pipeline.capability("future")
        assert isinstance(state, StateCapability) and isinstance(future, FutureCapability)
        state.wanted, future.wanted = set(), set()
        self.state, self.future, self.config = state, future, future.config

    def run(self, samples: list[Sample]) -> list[Scored]:
        """All rollouts of one episode, given in time order, that the recording outlasts by `AHEAD_S`."""
        truth = Memory(self.config, span_s=float("1e9"))
        frames = {s.stamp_ns: self._sized(s) for s in samples if isinstance(s, Frame)}
        starts: list[Moment] = []
        self.pipeline.reset()
        due_ns = samples[0].stamp_ns + round(HISTORY_S * 1e9)
        for original in samples:
            for sample, _, prediction in self.pipeline.step(original):
                if prediction is not None:
                    continue
                if isinstance(sample, Joints) and not isinstance(sample, JointCommand):
                    truth.take_joints(sample)
                elif isinstance(sample, HandTrajectory):
                    truth.take_hand(sample)
            moment = self.future.moment
            if moment is not None and moment.frame is not None and moment.stamp_ns >= due_ns:
                starts.append(moment)
                due_ns = moment.stamp_ns + round(self.every_s * 1e9)
        if not starts:
            return []
        side = self._side(truth, sorted(frames))
        last_ns = min(truth.newest_ns(), max(frames))
        usable = [moment for moment in starts if moment.stamp_ns + AHEAD_S * 1e9 <= last_ns]
        return [self._scored(moment, truth, frames, last_ns, side) for moment in usable]

    def _scored(self, moment: Moment, truth: Memory, frames: dict[int, Images], last_ns: int, side: int) -> Scored:
        imagined = imagine(self.future, self.state, moment, self.seconds)
        times = moment.stamp_ns + np.round(imagined.offsets_s * 1e9).astype(np.int64)
        times = times[times <= last_ns + 5_000_000]
        wrist = slice(3 * side, 3 * side + 3)
        came = truth.body_at(times)[0][:, wrist]
        now_m = moment.window.body[-1, wrist].astype(np.float64)
        said = {"model": imagined.bodies[: len(times), wrist], "hold": np.repeat(now_m[None], len(times), 0)}
        figures = {"wrist_error": {name: np.linalg.norm(path - came, axis=1) * 1e3 for name, path in said.items()}}
        stamps = np.array(sorted(frames))
        seen = np.stack([frames[int(stamps[np.abs(stamps - time).argmin()])] for time in times])
        assert moment.frame is not None
        now = self._sized(moment.frame)
        shown = {"model": imagined.frames[: len(times)], "hold": np.repeat(now[None], len(times), 0)}
        for key, measure in FIGURES.items():
            figures[key] = {
                name: measure(to_tensor(images), to_tensor(seen)).double().numpy() for name, images in shown.items()
            }
        if len(imagined.hand_error_m):
            figures[HAND] = {"model": 1e3 * imagined.hand_error_m[: len(times)]}
        return Scored(imagined, now, seen, self._moving(moment, side), figures)

    def _moving(self, moment: Moment, side: int) -> bool:
        steps = round(MOVING_OVER_S * self.config.rate_hz)
        path = moment.window.body[-steps - 1 :, 3 * side : 3 * side + 3]
        return bool(np.linalg.norm(np.diff(path, axis=0), axis=1).sum() > MOVING_MPS * MOVING_OVER_S)

    def _side(self, truth: Memory, stamps: list[int]) -> int:
        """The wrist that moves further in the episode."""
        body, known = truth.body_at(np.array([stamp for stamp in stamps if stamp <= truth.newest_ns()]))
        ranges = [float(np.ptp(body[:, 3 * i : 3 * i + 3], axis=0).max()) for i in (0, 1)]
        return int((ranges[1] if known["right"] else -1.0) >= (ranges[0] if known["left"] else -1.0))

    def _sized(self, frame: Frame) -> Images:
        return resize_area(frame.rgb, self.config.image_height, self.config.image_width)


def metrics_of(rollouts: list[Scored]) -> list[Metric]:
    """Of one episode: each figure at each horizon, on all starts and on moving ones."""
    found = []
    for key in rollouts[0].figures if rollouts else ():
        unit, better = UNITS.get(key, ("mm", "lower"))
        for index, at_s in enumerate(rollouts[0].imagined.offsets_s):
            for suffix in ("", "_moving"):
                chosen = [r for r in rollouts if len(r.seen) > index and (r.moving or not suffix)]
                columns = {
                    method: np.array([r.figures[key][method][index] for r in chosen])[:, None]
                    for method in rollouts[0].figures[key]
                    if chosen
                }
                if columns:
                    found.append(Metric(f"{key}{suffix}@{at_s:.2f}s", unit, better, columns))
    return found
