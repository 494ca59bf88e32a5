"""How each kind of prediction is judged against the world that came: occupancy, hands, frames, actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.evaluation.tracks import NANO, History, Judge, interpolate
from wm_ros.kinematics import hands_of
from wm_ros.lidar.config import LidarConfig, OccupancyConfig
from wm_ros.lidar.grid import Scan, truth
from wm_ros.lidar.poses import PoseTrack
from wm_ros.nn.preprocessing import resize_area
from wm_ros.types import (
    ActionChunk,
    EgoPose,
    Frame,
    FutureFrames,
    HandTrajectory,
    JointCommand,
    Joints,
    OccupancyForecast,
    Sample,
    Sweep,
)

TRAJECTORY_HORIZONS_S = (0.5, 1.0)
STILL_M = 0.005  # below this a hand's "hold" error is noise: a resting hand cannot surprise
STILL_RAD = 0.01


class HandJudge(Judge):
    """Mean distance (mm) of a predicted hand's path from the measured one; reference: the hand stays where it was."""

    name = "hands"

    def reset(self) -> None:
        super().reset()
        self.hands: dict[str, History[NDArray[np.float64]]] = {}

    def takes(self, prediction: Sample) -> bool:
        return isinstance(prediction, HandTrajectory)

    def predict(self, prediction: Sample) -> None:
        assert isinstance(prediction, HandTrajectory)
        for horizon in TRAJECTORY_HORIZONS_S:
            steps = int(np.searchsorted(prediction.offsets_s, horizon + 1e-6))
            if steps and prediction.offsets_s[-1] > horizon - 1e-6:
                due_ns = prediction.stamp_ns + round(prediction.offsets_s[steps - 1] * NANO)
                self.pending.append((due_ns, (prediction, steps, horizon)))

    def observe(self, sample: Sample) -> None:
        if type(sample) is Joints:
            for side, wrist in hands_of(sample).items():
                self.hands.setdefault(side, History()).add(sample.stamp_ns, wrist)

    def newest_ns(self) -> int:
        return max((history.newest_ns for history in self.hands.values()), default=-1)

    def settle_one(self, due_ns: int, item: Any) -> bool:
        prediction, steps, horizon = item
        truth = measured_at(self.hands.get(prediction.side), prediction.stamp_ns, prediction.offsets_s[:steps])
        if truth is None:
            return False
        error = np.linalg.norm(prediction.position_m[:steps] - truth[1:], axis=-1).mean()
        held = np.linalg.norm(truth[:1] - truth[1:], axis=-1).mean()
        self.add(
            f"hand {prediction.side} {horizon:g}s",
            float(error) * 1e3,
            max(float(held), STILL_M) * 1e3,
            unit="mm",
            reference="hold",
        )
        return True


class ActionJudge(Judge):
    """Mean absolute difference (rad) of an action chunk from what was commanded, or measured where nothing was."""

    name = "actions"

    def reset(self) -> None:
        super().reset()
        self.commanded: History[NDArray[np.float64]] = History()
        self.measured: History[NDArray[np.float64]] = History()
        self.names: tuple[str, ...] = ()

    def takes(self, prediction: Sample) -> bool:
        return isinstance(prediction, ActionChunk)

    def predict(self, prediction: Sample) -> None:
        assert isinstance(prediction, ActionChunk)
        if prediction.names != self.names:
            self.reset()
            self.names = prediction.names
        for horizon in TRAJECTORY_HORIZONS_S:
            steps = int(np.searchsorted(prediction.offsets_s, horizon + 1e-6))
            if steps and prediction.offsets_s[-1] > horizon - 1e-6:
                due_ns = prediction.stamp_ns + round(prediction.offsets_s[steps - 1] * NANO)
                self.pending.append((due_ns, (prediction, steps, horizon)))

    def observe(self, sample: Sample) -> None:
        if isinstance(sample, Joints) and self.names and set(self.names) <= set(sample.names):
            place = {name: i for i, name in enumerate(sample.names)}
            history = self.commanded if isinstance(sample, JointCommand) else self.measured
            history.add(sample.stamp_ns, sample.position_rad[[place[name] for name in self.names]])

    def newest_ns(self) -> int:
        return self._truth().newest_ns

    def _truth(self) -> History[NDArray[np.float64]]:
        return self.commanded if self.commanded.rows else self.measured

    def settle_one(self, due_ns: int, item: Any) -> bool:
        prediction, steps, horizon = item
        truth = measured_at(self._truth(), prediction.stamp_ns, prediction.offsets_s[:steps])
        if truth is None:
            return False
        self.add(
            f"action {horizon:g}s",
            float(np.abs(prediction.position_rad[:steps] - truth[1:]).mean()),
            max(float(np.abs(truth[:1] - truth[1:]).mean()), STILL_RAD),
            unit="rad",
            reference="hold",
        )
        return True


class FrameJudge(Judge):
    """PSNR of predicted frames; reference: the camera keeps seeing what it saw."""

    name = "frames"
    TOLERANCE_S = 0.04

    def reset(self) -> None:
        super().reset()
        self.size = (96, 128)
        self.frames: History[NDArray[np.uint8]] = History(most=200)

    def takes(self, prediction: Sample) -> bool:
        return isinstance(prediction, FutureFrames)

    def predict(self, prediction: Sample) -> None:
        assert isinstance(prediction, FutureFrames)
        size = (prediction.rgb.shape[1], prediction.rgb.shape[2])
        if size != self.size:
            self.reset()
            self.size = size
        for horizon, rgb in zip(prediction.horizons_s, prediction.rgb, strict=True):
            due_ns = prediction.stamp_ns + round(horizon * NANO)
            self.pending.append((due_ns, (prediction.stamp_ns, horizon, rgb)))

    def observe(self, sample: Sample) -> None:
        if isinstance(sample, Frame):
            self.frames.add(sample.stamp_ns, resize_area(sample.rgb, *self.size))

    def newest_ns(self) -> int:
        return self.frames.newest_ns

    def settle_one(self, due_ns: int, item: Any) -> bool:
        stamp_ns, horizon, rgb = item
        before = self.frames.nearest(stamp_ns, self.TOLERANCE_S)
        after = self.frames.nearest(due_ns, self.TOLERANCE_S)
        if before is None or after is None:
            return False
        self.add(
            f"frame {horizon:g}s",
            squared_error(rgb, after[1]),
            max(squared_error(before[1], after[1]), 1e-5),
            unit="dB PSNR",
            reference="copy_last",
            shown=lambda error: float(-10 * np.log10(max(error, 1e-10))),
        )
        return True


class OccupancyJudge(Judge):
    """Binary cross-entropy (nats) over the cells that the later sweep sees; reference: their share that is occupied.

    Geometry (obstacle band, visibility, ego-motion) is that of the evaluation of bags, `wm_ros.lidar.grid`.
    """

    name = "occupancy"
    TOLERANCE_S = 0.06

    def __init__(self, window: int, sensor_height_m: float) -> None:
        self.config = LidarConfig(sensor_height_m=sensor_height_m)
        self.mounting = np.eye(4)
        self.mounting[2, 3] = sensor_height_m
        super().__init__(window)

    def reset(self) -> None:
        super().reset()
        self.poses = PoseTrack(self.config.extrapolate_s)
        self.sweeps: History[tuple[str, Scan]] = History(most=60)

    def takes(self, prediction: Sample) -> bool:
        return isinstance(prediction, OccupancyForecast)

    def predict(self, prediction: Sample) -> None:
        assert isinstance(prediction, OccupancyForecast)
        cells = prediction.probability.shape[-1]
        corner = -cells * prediction.cell_m / 2
        if prediction.probability.shape[1] != cells or not np.allclose(prediction.origin_m, corner, atol=1e-3):
            return  # only square grids around the sensor have a truth here
        grid = OccupancyConfig(cells=cells, cell_m=prediction.cell_m)
        for index, horizon in enumerate(prediction.horizons_s):
            percent = np.rint(prediction.probability[index] * 100).astype(np.uint8)  # a quarter of the memory
            due_ns = prediction.stamp_ns + round(horizon * NANO)
            self.pending.append((due_ns, (prediction.stamp_ns, horizon, percent, grid)))

    def observe(self, sample: Sample) -> None:
        if isinstance(sample, EgoPose):
            self.poses.add(sample)
        elif isinstance(sample, Sweep):
            finite = sample.points[np.isfinite(sample.points[:, :3]).all(1)]
            self.sweeps.add(sample.stamp_ns, (sample.frame_id, Scan.of(finite, self.config)))

    def newest_ns(self) -> int:
        return self.sweeps.newest_ns

    def settle_one(self, due_ns: int, item: Any) -> bool:
        stamp_ns, horizon, percent, grid = item
        sweep = self.sweeps.nearest(due_ns, self.TOLERANCE_S)
        if sweep is None:
            return False
        seen_ns, (frame_id, scan) = sweep
        here, there = self._sensor_at(stamp_ns, frame_id), self._sensor_at(seen_ns, frame_id)
        if here is None or there is None:
            return False
        occupied, scored = truth(scan, np.linalg.inv(here) @ there, grid)
        target = occupied[scored].astype(np.float64)
        if not len(target):
            return False
        odds = np.clip(percent[scored] / 100.0, 0.01, 0.99)
        share = float(np.clip(target.mean(), 1e-3, 1 - 1e-3))
        error = -(target * np.log(odds) + (1 - target) * np.log(1 - odds)).mean()
        entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
        self.add(f"occupancy {horizon:g}s", float(error), float(entropy), unit="nats", reference="base_rate")
        return True

    def _sensor_at(self, stamp_ns: int, frame_id: str) -> NDArray[np.float64] | None:
        pose, _ = self.poses.at(stamp_ns)
        return pose if pose is None or self.poses.body == frame_id else pose @ self.mounting


def measured_at(
    history: History[NDArray[np.float64]] | None, stamp_ns: int, offsets_s: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Measured values at the stamp itself and at each offset, (1 + T, …); None where they are not all known."""
    if history is None:
        return None
    stamps = stamp_ns + np.rint(np.concatenate([[0.0], offsets_s]) * NANO).astype(np.int64)
    return interpolate(history, stamps)


def squared_error(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean squared difference of two images on a scale of 0 to 1."""
    return float(np.square((a.astype(np.float32) - b) / 255.0).mean())
