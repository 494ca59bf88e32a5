"""The `future` capability: image, state tokens, joints and instruction in; hands, joints and frames to come out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.capability import Capability
from wm_ros.errors import RefusedError
from wm_ros.future import model as bundles
from wm_ros.future.budget import Limits, Plan
from wm_ros.future.config import FutureConfig
from wm_ros.future.history import Window, body_of, collate, future_offsets_s
from wm_ros.future.memory import Memory
from wm_ros.future.painter import Moment, Painter, Painting
from wm_ros.future.solvers import Solver
from wm_ros.future.trajectory import Forecast
from wm_ros.kinematics import arm_for
from wm_ros.nn.instruction import open_words
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

Double = NDArray[np.float64]


class FutureCapability(Capability):
    """Stage I on every state; stage II too where `frames` are wanted and the state's image is at hand.

    Attributes:
        state_tokens_sha256: `tokens_sha256` of the state bundle whose tokens the model understands.
        moment: what the last prediction was made from; None before the first.
        with_commands: whether it listens to what the joints are commanded too; state-only otherwise.
        limits: what of a prediction is shown; set by `limit`.
        planned: what was planned for the frames of the last prediction; None where nobody wanted any.
        hand_error_m: of the frames of the last prediction, see `FutureFrames`.
    """

    name = "future"
    inputs: tuple[type[Sample], ...] = (Frame, StateTokens, Joints, JointCommand, Instruction, HandTrajectory)
    trigger = StateTokens
    optional_outputs = frozenset({"frames"})

    def __init__(
        self,
        model: bundles.FutureModel,
        device: str = "cpu",
        with_commands: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        self.with_commands = with_commands
        self.model, self.device = model.to(device), torch.device(device)
        self.config: FutureConfig = model.config
        self.state_tokens_sha256 = model.config.state_tokens_sha256
        self.words = open_words(model.config.language)
        self.memory = Memory(model.config)
        self.moment: Moment | None = None
        self.clock, self.limits = clock, Limits()
        self.painter = Painter(model, self.device, clock)
        self.planned: Plan | None = None
        self.hand_error_m: tuple[float, ...] = ()
        self._newest: dict[str, int] = {}

    @classmethod
    def from_bundle(cls, path: Path, device: str = "cpu") -> FutureCapability:
        _, model = bundles.load(path)
        return cls(model, device)

    def limit(self, limits: Limits) -> None:
        """Show only so much of a prediction. Raises UserError where the bundle has less."""
        config = self.config
        limits.check(config.samples.count, list(future_offsets_s(config.horizon_steps, config.rate_hz)))
        self.limits = self.painter.limits = limits
        self.painter.budget.budget_ms = limits.budget_ms

    def reset(self) -> None:
        self.memory.clear()
        self.memory.text = ""
        self.moment = None
        self._newest.clear()
        self.withheld = ""

    def step(self, sample: Sample) -> Prediction | None:
        if isinstance(sample, JointCommand) and not self.with_commands:
            return None
        self._watch_clock(sample)
        try:
            if isinstance(sample, JointCommand):
                self.memory.take_command(sample)
            elif isinstance(sample, Joints):
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
        self.withheld, self.timings_ms, self.planned, self.hand_error_m = "", {}, None, ()
        began_s = start = self.clock()
        # History on the model's grid.
        self.memory.take_state(sample)
        window = self.memory.window()
        batch = collate([window], self.words).to(self.device)
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
                painting = self.painter.paint_within(self.moment, forecast.body, (start - began_s) * 1e3)
                self.withheld, self.planned = painting.reason, self.painter.plan
                self.hand_error_m = painting.hand_error_m
                frames = self._frames(frame, painting) if len(painting.rgb) else None
                self._took("frames", start)
        return self._prediction(sample, window, forecast, body, frames)

    def paint(self, moment: Moment, trajectory: Tensor | None, solver: Solver | None = None) -> Painting:
        """All frames to come of `moment` on a trajectory (1, F, V) or without one.

        `solver` is of the flow; that of the bundle by default.

        Raises:
            ValueError: the moment has no image.
        """
        return self.painter.paint(moment, trajectory, solver)

    def answer(self, query: MotionQuery) -> FutureFrames:
        """The frames that the camera would see if the joints moved as `query` says, from the newest prediction on.

        Between the knots the motion is straight, from the present posture to the first one too; the last one is held.

        Raises:
            RefusedError: nothing has been predicted yet, an image or joints are lacking, or the query names none of the
                model's joints.
        """
        moment = self.moment
        if moment is None or moment.frame is None or not moment.window.known.joints:
            raise RefusedError("no prediction with an image and joints yet, so nothing to start from")
        trajectory = torch.from_numpy(self._asked(moment, query).astype(np.float32))[None].to(self.device)
        return self._frames(moment.frame, self.paint(moment, trajectory))

    @torch.inference_mode()
    def judge(self, queries: Sequence[MotionQuery]) -> Double:
        """Energies (K,) of the paths of both wrists if the joints moved as each query says; lower is more plausible.

        The paths start from the newest prediction. After the last point of a query they go on as it forecast, from
        where the hand then is; a hand whose arm is not named in a query goes as forecast.

        Raises:
            RefusedError: nothing has been predicted yet, joints are lacking, or a query names no whole arm of the
                model or ends before the first step of a prediction.
        """
        moment = self.moment
        if moment is None or not moment.window.known.joints:
            raise RefusedError("no prediction with joints yet, so nothing to start from")
        forecast = moment.forecast.body[0, :, :6].cpu().numpy().astype(np.float64)
        offsets_s = future_offsets_s(self.config.horizon_steps, self.config.rate_hz)
        paths = np.repeat(forecast[None], len(queries), axis=0)
        for path, query in zip(paths, queries, strict=True):
            asked = self._asked(moment, query)
            steps = int((offsets_s <= query.offsets_s[-1] + 1e-6).sum())
            moved = [index for index, side in enumerate(SIDES) if arm_for(query.names, side) is not None]
            if not moved or not steps:
                raise RefusedError("the query names no arm, so where the hands would go is not known")
            for hand in (slice(3 * index, 3 * index + 3) for index in moved):
                path[:steps, hand] = asked[:steps, hand]
                path[steps:, hand] += asked[steps - 1, hand] - forecast[steps - 1, hand]
        hands = torch.from_numpy(paths.astype(np.float32))[None].to(self.device)
        energies: Double = self.model.trajectory.plausibility(moment.forecast, hands)[0].double().cpu().numpy()
        return energies

    def _asked(self, moment: Moment, query: MotionQuery) -> Double:
        """Wrists and joints (F, V) on the motion of a query. Raises RefusedError where it moves nothing we know."""
        config = self.config
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
        return body_of(config.joint_names, config.joint_names, asked)

    def _frames(self, frame: Frame, painting: Painting) -> FutureFrames:
        horizons_s = self.config.frame_horizons_s[: len(painting.rgb)]
        return FutureFrames(frame.stamp_ns, frame.frame_id, horizons_s, painting.rgb, painting.hand_error_m)

    @property
    def looks(self) -> bool:
        """Whether stage I looks the instruction up in the image."""
        return self.config.trajectory.image != "none"

    @property
    def reader_error_m(self) -> float | None:
        """What the reader of hands errs by in frames that were seen, in recordings like this; None without one."""
        reader, moment = self.model.reader, self.moment
        return None if reader is None or moment is None else float(reader.error_m[moment.forecast.kind[0]])

    def _prediction(
        self, sample: StateTokens, window: Window, forecast: Forecast, body: Float, frames: FutureFrames | None
    ) -> FuturePrediction:
        config = self.config
        offsets = future_offsets_s(config.horizon_steps, config.rate_hz)
        shown = self.limits.within(list(offsets))
        offsets, body = offsets[:shown], body[:shown]
        there = np.ones(shown, bool)
        sides = [i for i, side in enumerate(SIDES) if getattr(window.known, side)]
        hands = tuple(
            HandTrajectory(
                sample.stamp_ns, config.hands_frame_id, SIDES[i], offsets, body[:, 3 * i : 3 * i + 3].copy(), there
            )
            for i in sides
        )
        fan = self.model.trajectory.imagine(forecast, self.limits.samples or None)
        samples = fan.hands[0].unflatten(-1, (2, 3)).transpose(1, 2)[:, sides, :shown].cpu().numpy()
        names = config.joint_names if window.known.joints else ()
        joints = JointForecast(sample.stamp_ns, "", names, offsets, body[:, 6 : 6 + len(names)].copy())
        probability = fan.probability[0].cpu().numpy()
        return FuturePrediction(
            sample.stamp_ns, sample.frame_id, hands, samples, probability, joints, frames, self._subtask(forecast)
        )

    def _subtask(self, forecast: Forecast) -> str:
        return "" if forecast.subtask is None else self.config.subtasks[int(forecast.subtask[0].argmax())]

    def warm_up(self) -> None:
        config, wanted = self.config, self.wanted
        self.wanted = set(self.optional_outputs)
        rgb = np.full((config.image_height, config.image_width, 3), 127, np.uint8)
        tokens = np.zeros((config.state_tokens, config.state_width), np.float32)
        # Once to load what is loaded lazily, and once more to measure; both draw everything, whatever the budget.
        self.painter.budget.budget_ms = 0.0
        for stamp_ns in (0, round(1e9 / config.rate_hz)):
            self.painter.budget.forget()
            self.step(Joints(stamp_ns, "", config.joint_names, np.zeros(len(config.joint_names))))
            self.step(Frame(stamp_ns, "camera", rgb))
            self.step(StateTokens(stamp_ns, "camera", tokens))
        self.painter.budget.budget_ms = self.limits.budget_ms
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
        now = self.clock()
        self.timings_ms[stage] = (now - start) * 1e3
        return now
