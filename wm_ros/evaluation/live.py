"""Every prediction against the world, once its time has come: how surprised the models are now. No ROS in here."""

from __future__ import annotations

import numpy as np

from wm_ros.evaluation.judges import ActionJudge, FrameJudge, HandJudge, OccupancyJudge
from wm_ros.evaluation.tracks import Judge, Track
from wm_ros.types import Sample


class LiveScores:
    """All judges together.

    Args:
        window: errors of which running means are taken.
        sensor_height_m: height of the LiDAR above the road.
    """

    def __init__(self, window: int, sensor_height_m: float = 1.73) -> None:
        self.judges: tuple[Judge, ...] = (
            OccupancyJudge(window, sensor_height_m),
            HandJudge(window),
            FrameJudge(window),
            ActionJudge(window),
        )

    def reset(self) -> None:
        for judge in self.judges:
            judge.reset()

    def observe(self, sample: Sample) -> bool:
        """Take a sample of the world; True if a prediction was scored by it."""
        scored = False
        for judge in self.judges:
            judge.observe(sample)
            scored |= judge.settle()
        return scored

    def predict(self, prediction: Sample) -> bool:
        """Take a prediction; True if its time had come already and it was scored."""
        scored = False
        for judge in self.judges:
            if judge.takes(prediction):
                judge.predict(prediction)
                scored |= judge.settle()
        return scored

    def tracks(self) -> list[Track]:
        return [track for judge in self.judges for _, track in sorted(judge.tracks.items()) if track.count]

    def surprise(self) -> list[tuple[str, list[float]]]:
        """[last, running mean] error over that of the reference for each judge that has scored."""
        rows = []
        for judge in self.judges:
            tracks = [track for track in judge.tracks.values() if track.count]
            if tracks:
                last, running = (
                    float(np.mean([f(track) for track in tracks])) for f in (Track.last_ratio, Track.ratio)
                )
                rows.append((judge.name, [last, running]))
        return rows
