"""`policy` as one object with one `step`: images or state tokens, joints and words in, a chunk of commands out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from wm_ros.bundle import load_bundle, load_weights
from wm_ros.capability import Capability
from wm_ros.errors import UserError
from wm_ros.nn.instruction import open_words
from wm_ros.policy.checkpoint import bare_head, is_checkpoint
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.context import Observation
from wm_ros.policy.execution import end_ns, positions_at
from wm_ros.policy.head import PolicyHead, Steer, unsteered
from wm_ros.policy.imagination import Imagination
from wm_ros.policy.realtime import guide, prefix_weights
from wm_ros.policy.senses import Senses
from wm_ros.types import (
    ActionChunk,
    BevTokens,
    Frame,
    Instruction,
    JointCommand,
    Joints,
    PolicyPrediction,
    Sample,
    StateTokens,
    WristFrame,
)


class Policy(Capability):
    """Absolute joint positions for the next second, in the bundle's joint order.

    A chunk is asked for whenever an image of the first camera arrives, or state tokens where the bundle reads those. It
    is withheld while a joint of the bundle is not measured or the joints are stale. Instruction and BEV tokens may be
    missing. What else the bundle does without is its `does_without`: then it acts without joints, or on the images of
    one camera while those of the other are stale; never on none.

    Attributes:
        running: the chunk that is being executed and the delay of an inference (ns), set by those who execute chunks
            in real time: what a flow draws goes on from there.
        imagination: chooses among several chunks; None, as by default: the first one is it. Set by `imagine`.
    """

    name = "policy"
    inputs: tuple[type[Sample], ...] = (StateTokens, Frame, WristFrame, BevTokens, Joints, Instruction)
    trigger: type[Sample] = StateTokens

    def __init__(self, config: PolicyModelConfig, head: PolicyHead, device: str = "cpu") -> None:
        super().__init__()
        self.config, self.device = config, torch.device(device)
        self._senses = Senses(config, self.device, self._jumped)
        self._cameras = self._senses.cameras
        self.trigger, self.does_without = self._senses.trigger, self._senses.does_without
        self.inputs = (*(self._cameras or (StateTokens,)), BevTokens, Joints, Instruction)
        if config.past is not None and config.past.commands:
            self.inputs, self.does_without = (*self.inputs, JointCommand), (*self.does_without, JointCommand)
        self.head = head.to(self.device).settle()
        period_s = 1.0 / config.rate_hz
        self._offsets_s = np.arange(1, config.chunk_steps + 1, dtype=np.float64) * period_s
        self.running: tuple[ActionChunk, int] | None = None
        self.imagination: Imagination | None = None
        self._generator = torch.Generator()
        self._words = open_words(config.language)
        self._text = self._words([""])[0]
        self._generator.manual_seed(0)

    @classmethod
    def from_bundle(cls, path: Path, device: str = "cpu") -> Policy:
        """Load a bundle that `wm train policy` wrote, or a checkpoint in LeRobot's layout whose head takes radians.

        Raises:
            BundleError: it is damaged, or not of this capability.
        """
        if is_checkpoint(path):
            model, head = bare_head(path)
            return cls(model, head, device)
        config, tensors = load_bundle(path, cls.name, PolicyModelConfig)
        head = PolicyHead(config.model)
        load_weights(head, tensors, "model", path)
        return cls(config.model, head, device)

    def imagine(self, imagination: Imagination) -> None:
        """Choose each chunk among several from now on.

        What `future` takes is taken too, and does without what the policy itself does not ask for: while that is
        silent, nothing can be judged and the first chunk is it.

        Raises:
            UserError: `future` was trained on the tokens of another state bundle than the policy.
        """
        ours, theirs = self.config.state_tokens_sha256, imagination.future.state_tokens_sha256
        if not self._cameras and ours and theirs and ours != theirs:
            raise UserError("imagine_future: this bundle was trained on the tokens of another state bundle")
        more = tuple(kind for kind in imagination.inputs if kind not in self.inputs)
        self.inputs, self.does_without = (*self.inputs, *more), (*self.does_without, *more)
        self.imagination = imagination

    @property
    def lacking(self) -> tuple[str, ...]:
        """What the last chunk was made without, by name."""
        return self._senses.lacking

    def reset(self) -> None:
        """Forget everything, the instruction too."""
        self._senses.reset()
        self.running = None
        if self.imagination is not None:
            self.imagination.reset()
        self._text = self._words([""])[0]
        self.withheld = ""
        self._generator.manual_seed(0)  # what was drawn once is drawn again

    def warm_up(self) -> None:
        """One inference on made-up input."""
        config = self.config
        zeros = np.zeros(len(config.joint_names))
        self.step(Joints(0, "", config.joint_names, zeros))
        if self._cameras:
            black = np.zeros((*config.cameras.size, 3), np.uint8)
            for camera in reversed(self._cameras):
                self.step(camera(0, "", black))
        else:
            self.step(StateTokens(0, "", np.zeros((config.state_tokens, config.state_width), np.float32)))
        self.reset()

    def step(self, sample: Sample) -> PolicyPrediction | None:
        """Take a sample; a chunk if it is what chunks are asked for with and enough is known, else None."""
        senses = self._senses
        if isinstance(sample, JointCommand):  # a kind of Joints, but not a measurement
            senses.take_command(sample)
            return None
        if self.imagination is not None:
            self.imagination.observe(sample)
        if isinstance(sample, Joints):
            senses.take_joints(sample)
        elif isinstance(sample, Instruction):
            self._text = self._words([sample.text])[0]
        elif isinstance(sample, BevTokens):
            senses.take_bev(sample)
        elif isinstance(sample, StateTokens) and not self._cameras:
            self.withheld = senses.take_state(sample)
            return None if self.withheld else self._act(sample)
        elif isinstance(sample, Frame | WristFrame) and type(sample) in self._cameras:
            return self._act(sample) if senses.take_image(sample) else None
        return None

    def _jumped(self) -> None:
        self.running = None

    # ------------------------------------------------------------------------- output

    def _act(self, sample: Sample) -> PolicyPrediction | None:
        start = time.perf_counter()
        seen, self.withheld = self._senses.observe(sample.stamp_ns, self._text)
        if seen is None:
            return None
        observed = time.perf_counter()
        # A steered flow asks for gradients inside, which inference_mode rules out for good.
        with torch.inference_mode() if self.head.expert is None else torch.no_grad():
            context, pad = self.head.context(seen)
            drawn = self._drawn(seen, sample.stamp_ns)
            count = len(drawn[0]) if drawn else 1
            context, pad = context.expand(count, -1, -1), pad.expand(count, -1)
            chunks = self.head.decode(seen, context, pad, *drawn).cpu().numpy()
        self.timings_ms = {"history": (observed - start) * 1e3, "inference": (time.perf_counter() - observed) * 1e3}
        chunk = chunks[0]
        if self.imagination is not None:
            chunk = self.imagination.choose(sample.stamp_ns, self._offsets_s, chunks)
            self.timings_ms["imagination"] = self.imagination.record.took_ms
        if not np.isfinite(chunk).all():
            self.withheld = "the chunk is not finite"
            return None
        names = self.config.joint_names
        return PolicyPrediction(
            sample.stamp_ns, sample.frame_id, ActionChunk(sample.stamp_ns, "", names, self._offsets_s, chunk)
        )

    def _drawn(self, seen: Observation, stamp_ns: int) -> tuple[torch.Tensor, Steer] | tuple[()]:
        """For a flow the noise that its chunks start from, and what makes them go on from the one that runs."""
        config, head = self.config, self.head
        if head.expert is None:
            return ()
        count = 1 if self.imagination is None else self.imagination.config.samples
        shape = (count, config.chunk_steps, len(config.joint_names))
        noise = torch.randn(shape, generator=self._generator).to(self.device)
        running = self.running  # once: another thread sets it
        if running is None:
            return noise, unsteered
        chunk, delay_ns = running
        due_ns = stamp_ns + np.rint(self._offsets_s * 1e9).astype(np.int64)
        left = int((due_ns <= end_ns(chunk)).sum())
        if not left:
            return noise, unsteered
        going = torch.from_numpy(positions_at(chunk, due_ns).astype(np.float32)).to(self.device)[None]
        going = head.change(seen, going)
        committed = int((due_ns <= stamp_ns + delay_ns).sum())
        weights = torch.from_numpy(prefix_weights(config.chunk_steps, committed, left)).float()
        return noise, lambda velocity: guide(velocity, going, weights)
