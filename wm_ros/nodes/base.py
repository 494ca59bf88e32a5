"""The node of a capability: message → sample → `step` → prediction → message, and nothing of the model."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, ClassVar

import torch

from wm_ros import capability as capabilities
from wm_ros import messages, topics
from wm_ros.capability import Capability
from wm_ros.errors import MessageError, UserError
from wm_ros.messages.status import OK, WARN, Status
from wm_ros.nodes.managed import ManagedNode
from wm_ros.paths import bundle_path
from wm_ros.topics import Topic
from wm_ros.types import Instruction, Prediction, Sample


class CapabilityNode(ManagedNode):
    """Runs one capability. Its files differ in these names only.

    Attributes:
        capability_name: one of `wm_ros.capability.NAMES`.
        optional_inputs: sample types without which the node still speaks.
        lazy_outputs: the topics that show each optional output of the capability.
    """

    capability_name: ClassVar[str]
    optional_inputs: ClassVar[tuple[type[Sample], ...]] = ()
    lazy_outputs: ClassVar[dict[str, tuple[str, ...]]] = {}

    capability: Capability | None = None

    def __init__(self, **options: Any) -> None:
        self._instruction: Instruction | None = None
        super().__init__(**options)

    def load(self) -> Capability:
        """The capability in the bundle that the parameters name. Raises UserError or BundleError."""
        device = str(self._parameter("device"))
        if device == "auto":
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError):
            raise UserError(
                f"parameters: {self.name}: device = '{device}' is not here; choose auto, cpu or cuda:0"
            ) from None
        return capabilities.load(self.capability_name, bundle_path(str(self._parameter("bundle"))), device)

    def configure(self) -> None:
        torch.set_num_threads(self._parameter("threads"))
        capability = self.load()
        began_s = time.perf_counter()
        capability.warm_up()
        self.get_logger().info(f"warm-up took {(time.perf_counter() - began_s) * 1e3:.0f} ms")
        self.capability = capability

    def clean_up(self) -> None:
        self.capability = None

    def wanted_inputs(self) -> tuple[Topic, ...]:
        assert self.capability is not None
        return tuple(topic for topic in topics.INPUTS[self.name] if topic.sample in self.capability.inputs)

    def is_trigger(self, topic: Topic) -> bool:
        return self.capability is not None and topic.sample is self.capability.trigger

    def on_sample(self, topic: Topic, sample: Sample, received_s: float) -> None:
        assert self.capability is not None
        if isinstance(sample, Instruction):
            self._instruction = sample
        if not self.is_trigger(topic):
            prediction = self.capability.step(sample)
            if prediction is not None:  # what triggers is not seen
                self.answer(prediction, self.silent_inputs(), set())
            return
        # The clock stands still during a cycle where it comes by /clock: age = that at arrival + the time spent.
        began_s, age_ms = time.monotonic(), (self.now_ns() - sample.stamp_ns) / 1e6
        self.drain()
        wanted = {t.name for t in topics.OUTPUTS[self.name] if t.lazy and self.listened(t.name)}
        self.capability.wanted = {output for output, names in self.lazy_outputs.items() if not wanted.isdisjoint(names)}
        silent = self.silent_inputs()
        prediction = self.capability.step(sample)
        self.withheld = self.capability.withheld
        self.answer(prediction, silent, wanted)
        self.ended_s = ended_s = time.monotonic()
        self.budget.add(received_s, ended_s, self.capability.timings_ms)
        if prediction is not None and self.now_ns() > 0:
            self.ages_ms.add(age_ms + (ended_s - began_s) * 1e3)

    def answer(self, prediction: Prediction | None, silent: list[str], wanted: set[str]) -> None:
        """Publish what a trigger gave, unless it gave nothing or an input that it needs is silent."""
        if prediction is not None and silent:
            self.withheld = f"'{silent[0]}' is silent"
        if prediction is None or silent:
            self.on_withheld()
        else:
            self.publish_prediction(prediction, wanted)

    def publish_prediction(self, prediction: Prediction, wanted: set[str]) -> None:
        """Publish it, unless a value is not finite: then nothing of it."""
        try:
            parts = messages.encode_prediction(prediction, wanted)
        except MessageError as error:
            self.withheld = f"the model's output is not finite ({error})"
            self.refuse("output", f"not finite: {error}")
            self.on_withheld()
            return
        for name, _, cdr in parts:
            self.publish(name, cdr)
        self.streaks.good("output")
        self.on_published(prediction)

    def checks(self) -> list[Status]:
        """Whether the model knows such input, where it measures that."""
        capability = self.capability
        if capability is None or not capability.measures:
            return []
        measures = {name: f"{value:.2f}" for name, value in capability.measures.items()}
        words = f"unlike the training data: {capability.unfamiliar}" if capability.unfamiliar else "familiar input"
        return [Status(f"{self.name}: familiarity", WARN if capability.unfamiliar else OK, words, measures)]

    def on_published(self, prediction: Prediction) -> None:
        """A prediction has gone out."""

    def on_withheld(self) -> None:
        """A trigger gave nothing that may be published; `withheld` says why."""

    def silent_inputs(self) -> list[str]:
        """Inputs without which nothing is said and that have been silent for longer than their timeout."""
        timeout_s = self._parameter("input_timeout_s")
        return [
            name
            for name, (topic, _) in self._inputs.items()
            if name in self.watched() and self.required(name) and not self.is_trigger(topic)
            if self.quiet_s(name) > timeout_s
        ]

    def required(self, topic: str) -> bool:
        without = self.capability.does_without if self.capability is not None else ()
        return self._inputs[topic][0].sample not in (*self.optional_inputs, *without)

    def on_reset(self) -> None:
        if self.capability is None:
            return
        self.capability.reset()
        if self._instruction is not None:  # it is latched: nobody would say it again
            self.capability.step(dataclasses.replace(self._instruction, stamp_ns=self.now_ns()))
