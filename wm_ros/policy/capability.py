"""`policy` as one object with one `step`: images or state tokens, joints and words in, a chunk of commands out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.bundle import load_bundle, load_weights
from wm_ros.capability import Capability
from wm_ros.errors import UserError
from wm_ros.nn.instruction import open_words
from wm_ros.nn.preprocessing import resize_area
from wm_ros.policy.checkpoint import bare_head, is_checkpoint
from wm_ros.policy.config import Camera, PolicyModelConfig
from wm_ros.policy.execution import end_ns, positions_at
from wm_ros.policy.head import Observation, PolicyHead, Steer, unsteered
from wm_ros.policy.history import History, grid_ns
from wm_ros.policy.imagination import Imagination
from wm_ros.policy.realtime import guide, prefix_weights
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

CAMERAS: dict[Camera, type[Frame] | type[WristFrame]] = {"image": Frame, "wrist_image": WristFrame}
Images = NDArray[np.uint8]


class Policy(Capability):
    """Absolute joint positions for the next second, in the bundle's joint order.

    A chunk is asked for whenever an image of the first camera arrives, or state tokens where the bundle reads those. It
    is withheld while a joint of the bundle is not measured or the joints are stale. Instruction and BEV tokens may be
    missing. What else the bundle does without is its `does_without`: then it acts without joints, or on the images of
    one camera while those of the other are stale; never on none.

    Attributes:
        lacking: what the last chunk was made without, by name.
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
        self._cameras = tuple(CAMERAS[name] for name in config.cameras.names)
        self.trigger = self._cameras[0] if self._cameras else StateTokens
        self.inputs = (*(self._cameras or (StateTokens,)), BevTokens, Joints, Instruction)
        self.does_without = tuple(CAMERAS[n] if n != "joints" else Joints for n in config.does_without)
        self.head = head.eval().requires_grad_(False).to(self.device)
        period_s = 1.0 / config.rate_hz
        self._offsets_s = np.arange(1, config.chunk_steps + 1, dtype=np.float64) * period_s
        self._joint_steps = list(range(config.joint_history - 1, -1, -1))
        self._state_steps = list(config.token_history[::-1])
        self._joints = History(config.joint_history * period_s + 1.0)
        self._states = History((max(config.token_history, default=0) + 1) * period_s + 1.0)
        self._bev = History(0.0)
        self._images: dict[type[Sample], tuple[int, Images]] = {}
        self._unseen_ns: int | None = None
        self.lacking: tuple[str, ...] = ()
        self.running: tuple[ActionChunk, int] | None = None
        self.imagination: Imagination | None = None
        self._generator = torch.Generator()
        self._words = open_words(config.language)
        self._text = self._words([""])[0]
        self._columns: dict[tuple[str, ...], NDArray[np.int64]] = {}
        self._refused = ""
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

    def reset(self) -> None:
        """Forget everything, the instruction too."""
        self._forget()
        if self.imagination is not None:
            self.imagination.reset()
        self._text = self._words([""])[0]
        self._refused = self.withheld = ""
        self.lacking = ()
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
        if isinstance(sample, JointCommand):
            return None  # a kind of Joints, but not a measurement
        if self.imagination is not None:
            self.imagination.observe(sample)
        if isinstance(sample, Joints):
            self._take_joints(sample)
        elif isinstance(sample, Instruction):
            self._text = self._words([sample.text])[0]
        elif isinstance(sample, BevTokens):
            self._take_bev(sample)
        elif isinstance(sample, StateTokens) and not self._cameras:
            return self._act(sample) if self._take_state(sample) else None
        elif isinstance(sample, Frame | WristFrame) and type(sample) in self._cameras:
            return self._act(sample) if self._take_image(sample) else None
        return None

    # ------------------------------------------------------------------------- inputs

    def _take_joints(self, sample: Joints) -> None:
        names = self.config.joint_names
        if sample.names not in self._columns:
            place = {name: index for index, name in enumerate(sample.names)}
            missing = [name for name in names if name not in place]
            if missing:
                more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
                self._refused = f"joints not measured: {', '.join(missing[:3])}{more}"
                return
            self._columns[sample.names] = np.asarray([place[name] for name in names])
        columns = self._columns[sample.names]
        if len(sample.position_rad) <= columns.max():
            self._refused = f"{len(sample.names)} joint names but {len(sample.position_rad)} positions"
            return
        position = sample.position_rad[columns].astype(np.float32)
        if not np.isfinite(position).all():
            self._refused = f"joint {names[int(np.flatnonzero(~np.isfinite(position))[0])]} is not finite"
            return
        self._refused = ""
        if not self._joints.add(sample.stamp_ns, position):
            self._states.clear()
            self._bev.clear()

    def _take_bev(self, sample: BevTokens) -> None:
        wanted = (self.config.bev_tokens, self.config.bev_width)
        if sample.tokens.shape == wanted and np.isfinite(sample.tokens).all():
            self._bev.add(sample.stamp_ns, sample.tokens.astype(np.float32))

    def _take_state(self, sample: StateTokens) -> bool:
        """Whether a chunk is to be made of it."""
        wanted = (self.config.state_tokens, self.config.state_width)
        if sample.tokens.shape != wanted:
            self.withheld = f"state tokens of shape {sample.tokens.shape}, this bundle was trained on {wanted}"
        elif not np.isfinite(sample.tokens).all():
            self.withheld = "state tokens are not finite"
        else:
            if self._states.newest_ns is not None and sample.stamp_ns < self._states.newest_ns:
                self._forget()
            self._states.add(sample.stamp_ns, sample.tokens.astype(np.float32))
            return True
        return False

    def _take_image(self, sample: Frame | WristFrame) -> bool:
        """Whether a chunk is to be made now: it is of the first camera, or that one has been silent for `stale_s`."""
        kind, stamp_ns = type(sample), sample.stamp_ns
        if kind in self._images and stamp_ns < self._images[kind][0]:
            self._forget()
        height, width = self.config.cameras.size
        self._images[kind] = stamp_ns, resize_area(sample.rgb, height, width)
        if kind is self.trigger:
            self._unseen_ns = stamp_ns
            return True
        if self._unseen_ns is None or self._unseen_ns > stamp_ns:
            self._unseen_ns = stamp_ns  # from when on the first camera has not been seen
        return self.trigger in self.does_without and stamp_ns - self._unseen_ns > self.config.stale_s * 1e9

    def _forget(self) -> None:
        for history in (self._joints, self._states, self._bev):
            history.clear()
        self._images.clear()
        self._unseen_ns = self.running = None

    # ------------------------------------------------------------------------- output

    def _act(self, sample: Sample) -> PolicyPrediction | None:
        start = time.perf_counter()
        seen, self.withheld = self._observe(sample.stamp_ns)
        if seen is None:
            return None
        observed = time.perf_counter()
        with torch.no_grad():  # not inference_mode: a steered flow asks for gradients inside
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

    def _observe(self, now_ns: int) -> tuple[Observation | None, str]:
        """What the head sees at `now_ns`, or why it cannot see."""
        joints, joints_pad, refused = self._measured(now_ns)
        if refused and Joints not in self.does_without:
            return None, refused
        state, state_pad, images, images_pad = None, None, None, None
        if self._cameras:
            images, images_pad, missing = self._looked(now_ns)
            if missing:
                return None, missing
        else:
            grid = grid_ns(now_ns, self._state_steps, self.config.rate_hz)
            state, state_pad = (self._batch(array) for array in self._states.at(grid)[:2])
        bev, bev_pad = None, None
        if self._bev.newest_ns is not None:
            values, _, bev_ns = self._bev.at([now_ns])
            bev = self._batch(values[0])
            bev_pad = torch.tensor([abs(now_ns - bev_ns) > self.config.stale_s * 1e9], device=self.device)
        cameras = self.config.cameras.names if images_pad is not None else ()
        absent = [] if images_pad is None else images_pad[0].tolist()
        self.lacking = (*(["joints"] if refused else []), *(n for n, none in zip(cameras, absent, strict=True) if none))
        seen = Observation(
            self._batch(joints),
            self._batch(joints_pad),
            self._text[None].to(self.device),
            state,
            state_pad,
            bev,
            bev_pad,
            images,
            images_pad,
        )
        return seen, ""

    def _measured(self, now_ns: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], str]:
        """Joints on the grid (H, J), where there were none (H,), and why they cannot be used."""
        config = self.config
        absent = np.zeros((config.joint_history, len(config.joint_names)), np.float32)
        none = np.ones(config.joint_history, bool)
        if self._joints.newest_ns is None:
            return absent, none, self._refused or "no joints measured yet"
        joints, joints_pad, measured_ns = self._joints.at(grid_ns(now_ns, self._joint_steps, config.rate_hz))
        age_s = (now_ns - measured_ns) / 1e9
        if abs(age_s) > config.stale_s:
            side = "before" if age_s > 0 else "after"
            why = f"; newer ones were refused: {self._refused}" if self._refused else ""
            return absent, none, f"joints were measured {abs(age_s):.2f} s {side} the image{why}"
        joints_pad[-1] = False
        return joints, joints_pad, ""

    def _looked(self, now_ns: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        """Images (1, V, 3, H, W), where there is none (1, V), and why they cannot be used."""
        black = np.zeros((*self.config.cameras.size, 3), np.uint8)
        found = [self._images.get(camera, (now_ns - 10**18, black)) for camera in self._cameras]
        stale = np.asarray([abs(now_ns - stamp_ns) > self.config.stale_s * 1e9 for stamp_ns, _ in found])
        missing = ""
        for name, camera, absent in zip(self.config.cameras.names, self._cameras, stale, strict=True):
            if absent and camera not in self.does_without:
                missing = f"no image of '{name}' within {self.config.stale_s:g} s"
        images = np.stack([rgb.transpose(2, 0, 1) for _, rgb in found])
        return self._batch(images), self._batch(stale), missing

    def _batch(self, array: NDArray[np.float32] | NDArray[np.bool_] | Images) -> torch.Tensor:
        return torch.from_numpy(array)[None].to(self.device)
