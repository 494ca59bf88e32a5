"""What has been heard, by header stamp: joints of any robot and any publisher, wrists, states, frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wm_ros.errors import RefusedError
from wm_ros.future.config import FutureConfig
from wm_ros.future.history import Known, Window, past_grid, resample
from wm_ros.kinematics import arm_for
from wm_ros.nn.preprocessing import resize_area, to_tensor
from wm_ros.topics import SIDES
from wm_ros.types import Frame, HandTrajectory, JointCommand, Joints, StateTokens

MAX_AGE_S = 0.3  # joints further than this from the state's time do not belong to it
MAX_STATE_GAP_S = 0.2  # how far the previous state may lie from where it should
FRAMES_KEPT = 8


class Memory:
    """Everything of the last second. Stamps ascend within each kind; the caller clears it when a clock jumps back."""

    def __init__(self, config: FutureConfig, span_s: float | None = None) -> None:
        """Keep `span_s` seconds; by default what a window takes, and a little more because states arrive late."""
        self._span_s = config.history_steps / config.rate_hz + 0.5 if span_s is None else span_s
        self.config = config
        self.text = ""
        self.clear()

    def clear(self) -> None:
        """Forget what was measured. The instruction is an order, not a measurement: it stands until the next."""
        self._rows: deque[tuple[int, NDArray[np.float64]]] = deque()
        self._asked: deque[tuple[int, NDArray[np.float64]]] = deque()
        self._wrists: dict[str, deque[tuple[int, NDArray[np.float64]]]] = {side: deque() for side in SIDES}
        self._states: deque[StateTokens] = deque()
        self._frames: deque[Frame] = deque(maxlen=FRAMES_KEPT)
        self._columns: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}

    # ------------------------------------------------------------------ taking

    def take_joints(self, sample: Joints) -> None:
        """Joints of one message; what other messages said of other joints is carried on."""
        self._take(sample, self._rows, "joint_states")

    def take_command(self, sample: JointCommand) -> None:
        """The same of what was commanded."""
        self._take(sample, self._asked, "joint_command")

    def _take(self, sample: Joints, track: deque[tuple[int, NDArray[np.float64]]], topic: str) -> None:
        if not np.isfinite(sample.position_rad).all() or len(sample.position_rad) != len(sample.names):
            raise RefusedError(f"{topic} hold a value that is not a finite number, or more names than values")
        ours, theirs = self.match(sample.names)
        if not ours:
            raise RefusedError(f"{topic} have none of the model's joints, e.g. '{self.config.joint_names[0]}'")
        row = track[-1][1].copy() if track else np.full(len(self.config.joint_names), np.nan)
        row[ours] = sample.position_rad[theirs]
        self._append(track, sample.stamp_ns, row)

    def take_hand(self, sample: HandTrajectory) -> None:
        """The present of a hand's path, of the kind and in the frame that the model was trained on."""
        if sample.kind != self.config.hands_kind:
            raise RefusedError(
                f"hand_{sample.side} is of kind '{sample.kind}', the model was trained on '{self.config.hands_kind}'"
            )
        past = (sample.offsets_s <= 1e-6) & sample.valid & np.isfinite(sample.position_m).all(-1)
        if sample.frame_id != self.config.hands_frame_id:
            raise RefusedError(
                f"hand_{sample.side} is in frame '{sample.frame_id}', not '{self.config.hands_frame_id}'"
            )
        if sample.side in self._wrists and past.any():
            position = sample.position_m[np.flatnonzero(past)[-1]].astype(np.float64)
            self._append(self._wrists[sample.side], sample.stamp_ns, position)

    def take_state(self, sample: StateTokens) -> None:
        """State tokens; of the shape that the model was trained on, else they are another encoder's."""
        wanted = (self.config.state_tokens, self.config.state_width)
        if sample.tokens.shape != wanted:
            raise RefusedError(f"state tokens are {sample.tokens.shape}, the model was trained on {wanted}")
        if not np.isfinite(sample.tokens).all():
            raise RefusedError("state tokens hold a value that is not a finite number")
        self._states.append(sample)
        while self._states[0].stamp_ns < sample.stamp_ns - self._span_ns():
            self._states.popleft()

    def take_frame(self, sample: Frame) -> None:
        """An image, kept until its state arrives."""
        self._frames.append(sample)

    # ------------------------------------------------------------------ giving

    def frame_at(self, stamp_ns: int) -> Frame | None:
        """The image of a state: the one with its stamp, or nearer to it than half a grid step."""
        nearest = min(self._frames, key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None)
        near = nearest is not None and abs(nearest.stamp_ns - stamp_ns) * 1e-9 * self.config.rate_hz < 0.5
        return nearest if near else None

    def window(self) -> Window:
        """All that the model takes, at the time of the newest state. Raises RefusedError saying what is missing."""
        config, now = self.config, self._states[-1]
        grid = past_grid(now.stamp_ns, config.history_steps, config.rate_hz)
        body, known = self.body_at(grid)
        if not (known["left"] or known["right"]):
            raise RefusedError(self._why_no_hands(now.stamp_ns))
        states, previous = self._two_states()
        asked, image = self._asked_at(grid, body) if known["joints"] else None, self._image(now.stamp_ns)
        there = Known(**known, previous=previous, asked=asked is not None, image=image is not None)
        heard = np.zeros_like(body[:, 6:]) if asked is None else asked
        return Window(body.astype(np.float32), states, self.text, there, heard.astype(np.float32), image)

    def _asked_at(self, grid: NDArray[np.int64], body: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Commanded minus measured joints (G, J); None where not all of the joints were commanded lately."""
        commands = self._resampled(self._asked, grid)
        return commands - body[:, 6:] if commands is not None and np.isfinite(commands).all() else None

    def _image(self, stamp_ns: int) -> NDArray[np.float32] | None:
        """The image of a state as a model that looks takes it."""
        frame = self.frame_at(stamp_ns) if self.config.trajectory.image != "none" else None
        if frame is None:
            return None
        rgb = resize_area(frame.rgb, self.config.image_height, self.config.image_width)
        return to_tensor(rgb).numpy()

    def body_at(self, grid: NDArray[np.int64]) -> tuple[NDArray[np.float64], dict[str, bool]]:
        """Wrists and joints (G, V) at ascending times (G,), and which of "joints", "left", "right" are known."""
        body = np.zeros((len(grid), self.config.values))
        joints = self._resampled(self._rows, grid)
        known = {"joints": False, "left": False, "right": False}
        if joints is not None:
            finite = np.isfinite(joints).all(0)
            known["joints"] = bool(finite.all())
            body[:, 6:] = np.where(finite, joints, 0.0)
        for index, side in enumerate(SIDES):
            wrist = self._wrist(side, joints)
            if wrist is None:
                wrist = self._resampled(self._wrists[side], grid)
            if wrist is not None:
                known[side] = True
                body[:, 3 * index : 3 * index + 3] = wrist
        return body, known

    def newest_ns(self) -> int:
        """Time of the newest joints or wrist; 0 before any."""
        return max((track[-1][0] for track in (self._rows, *self._wrists.values()) if track), default=0)

    def _wrist(self, side: str, joints: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        arm = arm_for(self.config.joint_names, side)
        if joints is None or arm is None:
            return None
        angles = joints[:, [self.config.joint_names.index(name) for name in arm.joint_names]]
        return arm.wrist(angles) if np.isfinite(angles).all() else None

    def _two_states(self) -> tuple[NDArray[np.float32], bool]:
        now = self._states[-1]
        due_ns = now.stamp_ns - round(self.config.state_gap_steps * 1e9 / self.config.rate_hz)
        previous = min(self._states, key=lambda state: abs(state.stamp_ns - due_ns))
        # Early in a recording the previous state may be nearer than it should; the present one is none.
        there = previous is not now and abs(previous.stamp_ns - due_ns) < MAX_STATE_GAP_S * 1e9
        before = previous.tokens if there else np.zeros_like(now.tokens)
        return np.stack([before, now.tokens]).astype(np.float32), there

    def _resampled(
        self, track: deque[tuple[int, NDArray[np.float64]]], grid: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """A track on the grid; None if it has nothing near the present. What came late is held backwards."""
        if not track:
            return None
        times = np.array([time for time, _ in track])
        if np.abs(times - grid[-1]).min() > MAX_AGE_S * 1e9:
            return None
        values = np.stack([value for _, value in track])
        for column in np.flatnonzero(np.isnan(values[0]) & ~np.isnan(values[-1])):
            first = np.flatnonzero(~np.isnan(values[:, column]))[0]
            values[:first, column] = values[first, column]
        return resample(times, values, grid)

    def _why_no_hands(self, stamp_ns: int) -> str:
        if not self._rows:
            return "no joint_states yet, so where the hands are is not known"
        age_s = (stamp_ns - self._rows[-1][0]) * 1e-9
        if abs(age_s) > MAX_AGE_S:
            return f"joint_states are {age_s:.2f} s older than the image (limit {MAX_AGE_S} s)"
        lacking = [n for n, v in zip(self.config.joint_names, self._rows[-1][1], strict=True) if np.isnan(v)]
        return f"joint_states lack '{lacking[0]}' and {len(lacking) - 1} more, so where the hands are is not known"

    def match(self, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """Columns of the model and of a message that are the same joint; an arm may be spelled as in its URDF."""
        key = tuple(names)
        if key not in self._columns:
            alias = {name: name for name in self.config.joint_names}
            for side in SIDES:
                ours, theirs = arm_for(self.config.joint_names, side), arm_for(names, side)
                if ours is not None and theirs is not None:
                    alias |= dict(zip(theirs.joint_names, ours.joint_names, strict=True))
            pairs = [(self.config.joint_names.index(alias[n]), i) for i, n in enumerate(names) if n in alias]
            self._columns[key] = ([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
        return self._columns[key]

    def _append(self, track: deque[tuple[int, NDArray[np.float64]]], stamp_ns: int, value: NDArray[np.float64]) -> None:
        if track and track[-1][0] == stamp_ns:
            track.pop()
        track.append((stamp_ns, value))
        while track[0][0] < stamp_ns - self._span_ns():
            track.popleft()

    def _span_ns(self) -> int:
        return round(self._span_s * 1e9)
