"""Scores `future`: wrists, joints and frames against what came.

Right wrist, unless only the left one moves in the episode. `hand_ade@h` is the mean distance over the predicted steps
up to h, `hand_fde@h` the distance at h (linear between steps); `joint_ade` and `joint_fde` are mean absolute errors
over the joints. A metric with the suffix `_moving` counts only times at which the wrist moved faster than 0.03 m/s
over the past 0.2 s. The model is state-only, and so are its baselines; with what was commanded too, where that is
recorded, the names are `hand_ade_commands@h` and so on.

Frames are scored on every third prediction, on fewer in long recordings (see `PaintLog`), because controls have to be
painted too: without a trajectory, on a trajectory of another time, and on the true one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.errors import RefusedError
from wm_ros.evaluation.future_fan import FanGuess, fan_guess, fan_metrics
from wm_ros.evaluation.future_frames import PaintLog
from wm_ros.evaluation.future_pictures import trajectory_plot
from wm_ros.evaluation.scorer import Metric, Scorer, Scores
from wm_ros.future.baselines import constant_velocity, hold
from wm_ros.future.capability import FutureCapability
from wm_ros.future.memory import Memory
from wm_ros.future.painter import Moment
from wm_ros.topics import SIDES
from wm_ros.types import FuturePrediction, HandTrajectory, JointCommand, Joints, Prediction, Sample

HORIZONS_S = (0.2, 0.5, 1.0, 2.0)
MOVING_MPS = 0.03
MOVING_OVER_S = 0.2
STILL_M = 0.02  # a wrist whose whole range of motion is smaller does not take part
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Guess:
    """One prediction with what its baselines say: method → (F, V) bodies; `asked`: the same with commands, or none."""

    stamp_ns: int
    past: Array
    bodies: dict[str, Array]
    known: tuple[bool, bool, bool]
    asked: dict[str, Array]


class FutureScorer(Scorer):
    """Listens with a twin of the capability, which gives every method the same history."""

    name: ClassVar[str] = "future"

    def __init__(self, bundle: Path) -> None:
        self.twin = FutureCapability.from_bundle(bundle)
        self.twin.wanted = set()
        self.listener = FutureCapability(self.twin.model, with_commands=True)
        self.listener.wanted = set()
        self.config = self.twin.config
        self.truth = Memory(self.config, span_s=float("1e9"))
        self.offsets_s = np.arange(1, self.config.horizon_steps + 1) / self.config.rate_hz
        self.guesses: list[Guess] = []
        self.fans: list[FanGuess] = []
        self.paints = PaintLog(self.twin)
        self._start_ns: int | None = None

    def observe(self, sample: Sample) -> None:
        if isinstance(sample, self.twin.inputs):
            self.listener.step(sample)
        if isinstance(sample, self.twin.inputs) and not isinstance(sample, JointCommand):
            self.twin.step(sample)
            with suppress(RefusedError):  # the truth takes what the twin takes, by the same rules
                if isinstance(sample, Joints):
                    self.truth.take_joints(sample)
                elif isinstance(sample, HandTrajectory):
                    self.truth.take_hand(sample)
            self.paints.observe(sample)
            self._start_ns = sample.stamp_ns if self._start_ns is None else self._start_ns

    def predict(self, prediction: Prediction) -> None:
        moment = self.twin.moment
        if not isinstance(prediction, FuturePrediction) or moment is None:
            return
        if moment.stamp_ns != prediction.stamp_ns:
            return
        bodies = {"model": _body_of(prediction, moment), **self._baselines(moment)}
        known = moment.window.known
        past = moment.window.body.astype(np.float64)
        there = (known.left, known.right, known.joints)
        self.guesses.append(Guess(moment.stamp_ns, past, bodies, there, self._with_commands(moment, bodies)))
        self.fans.append(fan_guess(self.twin.model, moment))
        self.paints.predict(prediction, moment)

    def finish(self) -> Scores:
        if not self.guesses:
            return Scores()
        side = self._side()
        rows: list[dict[str, Any]] = [{"stamp_ns": guess.stamp_ns, "side": SIDES[side]} for guess in self.guesses]
        moving = np.array([self._moving(guess, side) for guess in self.guesses])
        for row, now in zip(rows, moving, strict=True):
            row["moving"] = bool(now)
        metrics = []
        for horizon in HORIZONS_S:
            metrics += self._body_metrics(horizon, side, moving, rows)
            metrics += self._body_metrics(horizon, side, moving, rows, "_commands")
        hands = [self._true_hands(guess.stamp_ns) for guess in self.guesses]
        metrics += fan_metrics(self.twin.model, self.fans, hands, side, rows)
        moves = {guess.stamp_ns: bool(now) for guess, now in zip(self.guesses, moving, strict=True)}
        metrics += self.paints.metrics(moves, self._true_body, rows)
        pictures = self.paints.pictures()
        pictures["wrist predicted and seen"] = trajectory_plot(
            [(g.stamp_ns, g.bodies["model"][:, 3 * side : 3 * side + 3]) for g in self.guesses],
            *self._seen(side),
            self.offsets_s,
            SIDES[side],
        )
        return Scores(metrics, rows, pictures)

    # ------------------------------------------------------------------ methods

    @torch.inference_mode()
    def _baselines(self, moment: Moment) -> dict[str, Array]:
        model, steps = self.twin.model, self.config.horizon_steps
        body, kind = moment.batch.body, model.norm.kind(moment.batch.states)
        elapsed_s = torch.tensor([(moment.stamp_ns - (self._start_ns or 0)) * 1e-9], dtype=torch.float32)
        offsets_s = torch.from_numpy(self.offsets_s).float()
        futures = {
            "hold": hold(body, steps),
            "constant_velocity": constant_velocity(body, steps),
            "phase": model.phase[int(kind)](body, offsets_s, elapsed_s, self.config.mean_episode_s[int(kind)]),
            "ridge": model.trajectory.base(body, kind),
        }
        return {name: future[0].numpy().astype(np.float64) for name, future in futures.items()}

    @torch.inference_mode()
    def _with_commands(self, moment: Moment, bodies: dict[str, Array]) -> dict[str, Array]:
        """The model that hears commands, beside the one that does not and the baselines; empty without commands."""
        other = self.listener.moment
        if other is None or other.stamp_ns != moment.stamp_ns or not other.window.known.asked:
            return {}
        linear = self.twin.model.trajectory.base_asked(
            torch.cat([other.batch.body, other.batch.asked], -1), other.forecast.kind
        )
        found = {"model": other.forecast.body, "ridge": linear}
        rest = {name: bodies[name] for name in ("hold", "constant_velocity", "phase")}
        return {n: f[0].numpy().astype(np.float64) for n, f in found.items()} | rest | {"state_only": bodies["model"]}

    # ------------------------------------------------------------------ truth

    def _true(self, stamp_ns: int, offsets_s: Array) -> Array:
        """True body (T, V) at offsets after a stamp; NaN where it was not seen."""
        times = stamp_ns + np.round(offsets_s * 1e9).astype(np.int64)
        body, _ = self.truth.body_at(times)
        body[times > self.truth.newest_ns() + 5_000_000] = np.nan
        return body

    def _true_hands(self, stamp_ns: int) -> Array:
        """True wrists (F, 6) on the model's grid, NaN from where the recording ends."""
        left_s = (self.truth.newest_ns() - stamp_ns) * 1e-9
        known = int(np.searchsorted(self.offsets_s, left_s + 0.005))
        hands = np.full((len(self.offsets_s), 6), np.nan)
        if known:
            hands[:known] = self._true(stamp_ns, self.offsets_s[:known])[:, :6]
        return hands

    def _true_body(self, stamp_ns: int) -> torch.Tensor:
        """The same on the model's grid, (1, F, V), the last one held where the recording ends."""
        times = stamp_ns + np.round(self.offsets_s * 1e9).astype(np.int64)
        times = np.minimum(times, self.truth.newest_ns())
        return torch.from_numpy(self.truth.body_at(times)[0]).float()[None]

    def _seen(self, side: int) -> tuple[NDArray[np.int64], Array]:
        stamps = np.array([guess.stamp_ns for guess in self.guesses])
        return stamps, np.stack([guess.past[-1, 3 * side : 3 * side + 3] for guess in self.guesses])

    def _side(self) -> int:
        """1 (right), or 0 (left) where the right wrist is unknown or only the left one moves."""
        moves = []
        for side in (0, 1):
            known = all(guess.known[side] for guess in self.guesses)
            _, path = self._seen(side)
            moves.append(float(np.ptp(path, axis=0).max()) if known else -1.0)
        return 0 if moves[1] < 0 or (moves[1] < STILL_M <= moves[0]) else 1

    def _moving(self, guess: Guess, side: int) -> bool:
        steps = round(MOVING_OVER_S * self.config.rate_hz)
        path = guess.past[-steps - 1 :, 3 * side : 3 * side + 3]
        return bool(np.linalg.norm(np.diff(path, axis=0), axis=1).sum() > MOVING_MPS * MOVING_OVER_S)

    # ------------------------------------------------------------------ figures

    def _body_metrics(
        self, horizon: float, side: int, moving: NDArray[np.bool_], rows: list[dict[str, Any]], variant: str = ""
    ) -> list[Metric]:
        steps = int(horizon * self.config.rate_hz + 1e-6)
        at_s = np.append(self.offsets_s[:steps], horizon)
        found: dict[str, dict[str, list[float]]] = {}
        scored = []
        for number, guess in enumerate(self.guesses):
            truth = self._true(guess.stamp_ns, at_s)
            bodies = guess.asked if variant else guess.bodies
            if not np.isfinite(truth).all() or not bodies:
                continue
            scored.append(number)
            for method, body in bodies.items():
                ahead = np.concatenate([body[:steps], _between(guess.past[-1], body, self.offsets_s, horizon)])
                for key, value in _errors(ahead - truth, side, guess.known[2]).items():
                    found.setdefault(key + variant, {}).setdefault(method, []).append(value)
        metrics = []
        for key, methods in found.items():
            values = {method: np.array(column)[:, None] for method, column in methods.items()}
            for number, value in zip(scored, values["model"][:, 0], strict=True):
                rows[number][f"{key}@{horizon}s"] = float(value)
            unit = "mm" if key.startswith("hand") else "rad"
            chosen = moving[scored]
            metrics.append(Metric(f"{key}@{horizon}s", unit, "lower", values))
            some = {method: column[chosen] for method, column in values.items()}
            metrics.append(Metric(f"{key}_moving@{horizon}s", unit, "lower", some))
        return metrics


def _errors(error: Array, side: int, joints: bool) -> dict[str, float]:
    """Figures of one prediction from errors (T + 1, V): T steps, then the horizon itself."""
    wrist = np.linalg.norm(error[:, 3 * side : 3 * side + 3], axis=1) * 1e3
    figures = {"hand_ade": float(wrist[:-1].mean()), "hand_fde": float(wrist[-1])}
    if joints:
        turned = np.abs(error[:, 6:]).mean(1)
        figures |= {"joint_ade": float(turned[:-1].mean()), "joint_fde": float(turned[-1])}
    return figures


def _between(now: Array, body: Array, offsets_s: Array, horizon_s: float) -> Array:
    """A body (1, V) at `horizon_s`, linear between the steps of (F, V)."""
    path = np.concatenate([now[None], body])
    times = np.append(0.0, offsets_s)
    return np.stack([np.interp(horizon_s, times, column) for column in path.T])[None]


def _body_of(prediction: FuturePrediction, moment: Moment) -> Array:
    """What a prediction says, as bodies (F, V); parts that it does not name stay where they are."""
    body = np.repeat(moment.window.body[-1:].astype(np.float64), len(prediction.joints.offsets_s), axis=0)
    for hand in prediction.hands:
        first = 3 * SIDES.index(hand.side)
        body[:, first : first + 3] = hand.position_m
    if prediction.joints.names:
        body[:, 6:] = prediction.joints.position_rad
    return body


SCORER = FutureScorer
