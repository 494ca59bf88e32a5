"""The `future` capability: image, state tokens, joints and instruction in; hands, joints and frames to come out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wm_ros.capability import Capability
from wm_ros.future import model as bundles
from wm_ros.future.config import FutureConfig
from wm_ros.future.frames import Scene
from wm_ros.future.history import Batch, Window, body_of, collate, future_offsets_s
from wm_ros.future.memory import Memory, RefusedError
from wm_ros.future.trajectory import Forecast
from wm_ros.nn.instruction import open_words
from wm_ros.nn.preprocessing import resize_area, to_tensor, to_uint8
from wm_ros.topics import SIDES
from wm_ros.types import (
    Float,
    Frame,
    FutureFrames,
    FuturePrediction,
    HandTrajectory,
    Instruction,
    JointCommand,
    JointForecast,
    Joints,
    MotionQuery,
    Prediction,
    Sample,
    StateTokens,
)


class Moment(NamedTuple):
    """What the last prediction was made from, so that its frames can be painted on another trajectory."""

    stamp_ns: int
    window: Window
    batch: Batch
    forecast: Forecast
    frame: Frame | None


class FutureCapability(Capability):
    """Stage I on every state; stage II too where `frames` are wanted and the state's image is at hand.

    Attributes:
        state_tokens_sha256: `tokens_sha256` of the state bundle whose tokens the model understands.
        moment: what the last prediction was made from; None before the first.
    """

    name = "future"
    inputs = (Frame, StateTokens, Joints, Instruction, HandTrajectory)
    trigger = StateTokens
    optional_outputs = frozenset({"frames"})

    def __init__(self, model: bundles.FutureModel, device: str = "cpu") -> None:
        super().__init__()
        self.model, self.device = model.to(device), torch.device(device)
        self.config: FutureConfig = model.config
        self.state_tokens_sha256 = model.config.state_tokens_sha256
        self.words = open_words(model.config.language)
        self.memory = Memory(model.config)
        self.moment: Moment | None = None
        self._newest: dict[str, int] = {}

    @classmethod
    def from_bundle(cls, path: Path, device: str = "cpu") -> FutureCapability:
        _, model = bundles.load(path)
        return cls(model, device)

    def reset(self) -> None:
        self.memory.clear()
        self.memory.text = ""
        self.moment = None
        self._newest.clear()
        self.withheld = ""

    def step(self, sample: Sample) -> Prediction | None:
        if isinstance(sample, JointCommand):
            return None  # what was asked for is not what is; the model is state-only
        self._watch_clock(sample)
        try:
            if isinstance(sample, Joints):
                self.memory.take_joints(sample)
            elif isinstance(sample, HandTrajectory):
                self.memory.take_hand(sample)
            elif isinstance(sample, Frame):
                self.memory.take_frame(sample)
            elif isinstance(sample, Instruction):
                self.memory.text = sample.text
            elif isinstance(sample, StateTokens):
                return self._predict(sample)
        except RefusedError as reason:
            self.withheld = str(reason)
        return None

    @torch.inference_mode()
    def _predict(self, sample: StateTokens) -> FuturePrediction:
        self.withheld, self.timings_ms = "", {}
        start = time.perf_counter()
        # History on the model's grid.
        self.memory.take_state(sample)
        window = self.memory.window()
        batch = Batch(*(part.to(self.device) for part in collate([window], self.words)))
        start = self._took("window", start)
        # Stage I: how hands and joints go on.
        forecast: Forecast = self.model.trajectory(batch)
        body = forecast.body[0].cpu().numpy()
        if not np.isfinite(body).all():
            raise RefusedError("the trajectory came out as not finite; the prediction is withheld")
        frame = self.memory.frame_at(sample.stamp_ns)
        self.moment = Moment(sample.stamp_ns, window, batch, forecast, frame)
        start = self._took("trajectory", start)
        # Stage II: the frames on that trajectory.
        frames = None
        if "frames" in self.wanted:
            if frame is None:
                self.withheld = "no image with the stamp of the state tokens, so no frames"
            else:
                rgb = self.paint(self.moment, forecast.body)
                frames = FutureFrames(frame.stamp_ns, frame.frame_id, self.config.frame_horizons_s, rgb)
                self._took("frames", start)
        return self._prediction(sample, window, forecast, body, frames)

    @torch.inference_mode()
    def paint(self, moment: Moment, trajectory: Tensor | None) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """The frames to come of `moment`, (K, H, W, 3) uint8, on a trajectory (1, F, V) or without one.

        Raises:
            ValueError: the moment has no image.
        """
        if moment.frame is None:
            raise ValueError("this moment has no image to paint from")
        rgb = resize_area(moment.frame.rgb, self.config.image_height, self.config.image_width)
        image = to_tensor(rgb)[None].to(self.device)
        scene = Scene.of(moment.batch, self.model.autoencoder.encode(image))
        return to_uint8(self.model.paint(image, scene, trajectory)[0])

    def answer(self, query: MotionQuery) -> FutureFrames:
        """The frames that the camera would see if the joints moved as `query` says, from the newest prediction on.

        Between the knots the motion is straight, from the present posture to the first one too; the last one is held.

        Raises:
            RefusedError: nothing has been predicted yet, an image or joints are lacking, or the query names none of the
                model's joints.
        """
        config, moment = self.config, self.moment
        if moment is None or moment.frame is None or not moment.window.known.joints:
            raise RefusedError("no prediction with an image and joints yet, so nothing to start from")
        ours, theirs = self.memory.match(query.names)
        if not ours or not len(query.offsets_s):
            raise RefusedError(f"the query moves none of the model's joints, e.g. '{config.joint_names[0]}'")
        offsets_s = future_offsets_s(config.horizon_steps, config.rate_hz)
        now = moment.window.body[-1, 6:].astype(np.float64)
        asked = np.repeat(now[None], len(offsets_s), axis=0)
        knots_s = np.concatenate([[min(0.0, float(query.offsets_s[0]) - 1e-3)], query.offsets_s])
        for column, joint in zip(ours, theirs, strict=True):
            course = np.concatenate([[now[column]], query.position_rad[:, joint]])
            asked[:, column] = np.interp(offsets_s, knots_s, course)
        body = body_of(config.joint_names, config.joint_names, asked)
        trajectory = torch.from_numpy(body.astype(np.float32))[None].to(self.device)
        rgb = self.paint(moment, trajectory)
        return FutureFrames(moment.frame.stamp_ns, moment.frame.frame_id, config.frame_horizons_s, rgb)

    def _prediction(
        self, sample: StateTokens, window: Window, forecast: Forecast, body: Float, frames: FutureFrames | None
    ) -> FuturePrediction:
        config = self.config
        offsets = future_offsets_s(config.horizon_steps, config.rate_hz)
        there = np.ones(len(offsets), bool)
        sides = [i for i, side in enumerate(SIDES) if getattr(window.known, side)]
        hands = tuple(
            HandTrajectory(
                sample.stamp_ns, config.hands_frame_id, SIDES[i], offsets, body[:, 3 * i : 3 * i + 3].copy(), there
            )
            for i in sides
        )
        samples = forecast.hands[0].unflatten(-1, (2, 3)).transpose(1, 2)[:, sides].cpu().numpy()
        names = config.joint_names if window.known.joints else ()
        joints = JointForecast(sample.stamp_ns, "", names, offsets, body[:, 6 : 6 + len(names)].copy())
        probability = forecast.log_probability[0].exp().cpu().numpy()
        return FuturePrediction(sample.stamp_ns, sample.frame_id, hands, samples, probability, joints, frames)

    def warm_up(self) -> None:
        config, wanted = self.config, self.wanted
        self.wanted = set(self.optional_outputs)
        rgb = np.full((config.image_height, config.image_width, 3), 127, np.uint8)
        tokens = np.zeros((config.state_tokens, config.state_width), np.float32)
        self.step(Joints(0, "", config.joint_names, np.zeros(len(config.joint_names))))
        self.step(Frame(0, "camera", rgb))
        self.step(StateTokens(0, "camera", tokens))
        self.wanted = wanted
        self.reset()

    def _watch_clock(self, sample: Sample) -> None:
        """A stamp older than the newest of its kind: the clock jumped back, what was measured is forgotten."""
        if isinstance(sample, Instruction):
            return  # its stamp is that of arrival
        kind = type(sample).__name__ + getattr(sample, "side", "") + getattr(sample, "kind", "")
        if sample.stamp_ns < self._newest.get(kind, sample.stamp_ns):
            self.memory.clear()
            self.moment = None
            self._newest.clear()
        self._newest[kind] = sample.stamp_ns

    def _took(self, stage: str, start: float) -> float:
        now = time.perf_counter()
        self.timings_ms[stage] = (now - start) * 1e3
        return now
