"""All predictions and the world as it arrives → the error of each prediction once its time has come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from wm_ros import messages, topics
from wm_ros.evaluation.live import LiveScores
from wm_ros.messages.status import OK, Status
from wm_ros.nodes.managed import ManagedNode
from wm_ros.nodes.runner import run
from wm_ros.topics import Topic
from wm_ros.types import ActionChunk, FutureFrames, Sample

SURPRISE = topics.OUTPUTS["monitor"][0].name
PREDICTIONS = tuple(topic.name for node, outputs in topics.OUTPUTS.items() if node != "monitor" for topic in outputs)


class Monitor(ManagedNode):
    """How surprised the models are now: `monitor/surprise` has one row for each kind of prediction, [last, running
    mean] of its error over that of "nothing changes"; 1 means no better than that."""

    name = "monitor"

    def __init__(self, **options: Any) -> None:
        self.scores: LiveScores | None = None
        super().__init__(**options)

    def configure(self) -> None:
        self.scores = LiveScores(self._parameter("window"), self._parameter("sensor_height_m"))

    def clean_up(self) -> None:
        self.scores = None

    def wanted_inputs(self) -> tuple[Topic, ...]:
        images = self._parameter("score_images")
        return tuple(t for t in topics.INPUTS[self.name] if images or not t.name.startswith("future/image"))

    def sample_type(self, topic: Topic) -> type[Sample] | None:
        if topic.name.startswith("future/image"):
            return FutureFrames
        return ActionChunk if topic.name == "action_chunk" else topic.sample

    def is_stamped(self, sample: Sample) -> bool:
        """The policy's safe command means "now" and is no prediction."""
        return super().is_stamped(sample) and not (isinstance(sample, ActionChunk) and len(sample.offsets_s) == 1)

    def watched(self) -> list[str]:
        """What has come once is expected again; a car has no joints, an arm no LiDAR."""
        return [name for name in super().watched() if name in self.heard_s]

    def on_sample(self, topic: Topic, sample: Sample, received_s: float) -> None:
        assert self.scores is not None
        found = self.scores.predict(sample) if topic.name in PREDICTIONS else self.scores.observe(sample)
        if found:
            self.publish(SURPRISE, messages.encode_numbers(self.scores.surprise()))
        self.budget.add(received_s, time.monotonic(), {})

    def on_reset(self) -> None:
        if self.scores is not None:
            self.scores.reset()

    def checks(self) -> list[Status]:
        assert self.scores is not None
        return [
            Status(
                f"{self.name}: {track.name}",
                OK,
                f"{track.shown(track.mean()):.4g} {track.unit} over {len(track.errors)}, "
                f"{track.ratio():.2f} of {track.reference}",
                {
                    "last": f"{track.shown(track.errors[-1]):.6g}",
                    "mean": f"{track.shown(track.mean()):.6g}",
                    track.reference: f"{track.shown(track.reference_mean()):.6g}",
                    "unit": track.unit,
                    "scored": str(track.count),
                },
            )
            for track in self.scores.tracks()
        ]


def main(args: Sequence[str] | None = None) -> None:
    run(Monitor, args)


if __name__ == "__main__":
    main()
