"""A capability in a thread of its own, so that commands go out while it thinks, and when it never answers. No ROS here.

Samples are given in the order of arrival. Of those that ask for a prediction only the newest waits: while one is in
work, older ones are overtaken.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from wm_ros.capability import Capability
from wm_ros.types import Instruction, Prediction, Sample

MOST_WAITING = 1000  # samples; while the capability hangs, the oldest measurements are let go


@dataclass(frozen=True)
class Answer:
    """What the capability made of a trigger.

    Attributes:
        prediction: None where it gave none; `withheld` then says why. failure: of a step that raised, "" otherwise.
        received_s: steady time at which the sample had come. timings_ms: of the stages.
    """

    sample: Sample
    received_s: float
    prediction: Prediction | None
    withheld: str
    failure: str
    timings_ms: dict[str, float]


class Background:
    """Runs `capability.step`; `notify` is called in its thread whenever an answer has come."""

    def __init__(self, capability: Capability, notify: Callable[[], None]) -> None:
        self.capability, self.notify = capability, notify
        self._waiting: list[tuple[Sample, float]] = []
        self._reset_due = False
        self._answers: deque[Answer] = deque()
        self._round = 0  # answers to triggers of an earlier round are void
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def put(self, sample: Sample) -> None:
        """Hand over a sample. Returns at once."""
        with self._changed:
            if isinstance(sample, self.capability.trigger):
                self._overtake()
            self._waiting.append((sample, time.monotonic()))
            if len(self._waiting) > MOST_WAITING:  # words are said once: they stay
                oldest = next(
                    (i for i, (waiting, _) in enumerate(self._waiting) if not isinstance(waiting, Instruction)), 0
                )
                del self._waiting[oldest]
            self._changed.notify()

    def answers(self) -> list[Answer]:
        """The answers that have come since the last call."""
        with self._changed:
            found = list(self._answers)
            self._answers.clear()
        return found

    def void(self) -> None:
        """Take back the triggers that wait or are in work: their answers will not come."""
        with self._changed:
            self._overtake()
            self._answers.clear()
            self._round += 1

    def reset(self) -> None:
        """Forget all that was given, and the capability's history."""
        self.void()
        with self._changed:
            self._waiting.clear()
            self._reset_due = True
            self._changed.notify()

    def close(self, wait_s: float = 1.0) -> None:
        """End the thread; one that hangs in a step is left behind and ends with it."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(wait_s)

    def _overtake(self) -> None:
        trigger = self.capability.trigger
        self._waiting = [(sample, at) for sample, at in self._waiting if not isinstance(sample, trigger)]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._reset_due or self._closed)
                if self._closed:
                    return
                reset, self._reset_due = self._reset_due, False
                given = None if reset else self._waiting.pop(0)
                asked_in = self._round
            if given is None:
                self.capability.reset()
                continue
            answer = self._step(*given)
            if answer is None:
                continue
            with self._changed:
                if asked_in == self._round and not self._closed:
                    self._answers.append(answer)
            self.notify()

    def _step(self, sample: Sample, received_s: float) -> Answer | None:
        """None where there is nothing to say: a sample that triggers nothing, and did not fail."""
        capability, prediction, failure = self.capability, None, ""
        try:
            prediction = capability.step(sample)
        except Exception as error:  # the firewall of the node: a fault of one cycle must not end all of them
            failure = f"{type(error).__name__}: {error}"
        if not failure and prediction is None and not isinstance(sample, capability.trigger):
            return None
        return Answer(sample, received_s, prediction, capability.withheld, failure, dict(capability.timings_ms))
