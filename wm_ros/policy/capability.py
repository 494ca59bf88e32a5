"""`policy` as one object with one `step`: state tokens, joints and words in, a chunk of joint commands out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.bundle import load_bundle, load_weights
from wm_ros.capability import Capability
from wm_ros.nn.instruction import open_words
from wm_ros.policy.checkpoint import bare_head, is_checkpoint
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.head import Observation, PolicyHead
from wm_ros.policy.history import History, grid_ns
from wm_ros.types import (
    ActionChunk,
    BevTokens,
    Instruction,
    JointCommand,
    Joints,
    PolicyPrediction,
    Sample,
    StateTokens,
)


class Policy(Capability):
    """Absolute joint positions for the next second, in the bundle's joint order.

    A chunk is asked for whenever state tokens arrive. It is withheld while a joint of the bundle is not measured or
    the joints are stale. Instruction and BEV tokens may be missing; the model was trained to do without.
    """

    name = "policy"
    inputs = (StateTokens, BevTokens, Joints, Instruction)
    trigger = StateTokens

    def __init__(self, config: PolicyModelConfig, head: PolicyHead, device: str = "cpu") -> None:
        super().__init__()
        self.config, self.device = config, torch.device(device)
        self.head = head.eval().requires_grad_(False).to(self.device)
        period_s = 1.0 / config.rate_hz
        self._offsets_s = np.arange(1, config.chunk_steps + 1, dtype=np.float64) * period_s
        self._joint_steps = list(range(config.joint_history - 1, -1, -1))
        self._state_steps = list(config.token_history[::-1])
        self._joints = History(config.joint_history * period_s + 1.0)
        self._states = History((max(config.token_history) + 1) * period_s + 1.0)
        self._bev = History(0.0)
        self._words = open_words(config.language)
        self._text = self._words([""])[0]
        self._columns: dict[tuple[str, ...], NDArray[np.int64]] = {}
        self._refused = ""

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

    def reset(self) -> None:
        """Forget everything, the instruction too."""
        self._forget()
        self._text = self._words([""])[0]
        self._refused = self.withheld = ""

    def warm_up(self) -> None:
        """One inference on made-up input."""
        config = self.config
        zeros = np.zeros(len(config.joint_names))
        self.step(Joints(0, "", config.joint_names, zeros))
        self.step(StateTokens(0, "", np.zeros((config.state_tokens, config.state_width), np.float32)))
        self.reset()

    def step(self, sample: Sample) -> PolicyPrediction | None:
        """Take a sample; a chunk if it is state tokens and the joints are known, else None."""
        if isinstance(sample, JointCommand):
            return None  # a kind of Joints, but not a measurement
        if isinstance(sample, Joints):
            self._take_joints(sample)
        elif isinstance(sample, Instruction):
            self._text = self._words([sample.text])[0]
        elif isinstance(sample, BevTokens):
            self._take_bev(sample)
        elif isinstance(sample, StateTokens):
            return self._act(sample)
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

    def _forget(self) -> None:
        for history in (self._joints, self._states, self._bev):
            history.clear()

    # ------------------------------------------------------------------------- output

    def _act(self, sample: StateTokens) -> PolicyPrediction | None:
        start = time.perf_counter()
        wanted = (self.config.state_tokens, self.config.state_width)
        if sample.tokens.shape != wanted:
            self.withheld = f"state tokens of shape {sample.tokens.shape}, this bundle was trained on {wanted}"
            return None
        if not np.isfinite(sample.tokens).all():
            self.withheld = "state tokens are not finite"
            return None
        if self._states.newest_ns is not None and sample.stamp_ns < self._states.newest_ns:
            self._forget()
        self._states.add(sample.stamp_ns, sample.tokens.astype(np.float32))
        seen, self.withheld = self._observe(sample.stamp_ns)
        if seen is None:
            return None
        observed = time.perf_counter()
        with torch.inference_mode():
            chunk = self.head(seen)[0][0].cpu().numpy()
        self.timings_ms = {"history": (observed - start) * 1e3, "inference": (time.perf_counter() - observed) * 1e3}
        if not np.isfinite(chunk).all():
            self.withheld = "the chunk is not finite"
            return None
        names = self.config.joint_names
        return PolicyPrediction(
            sample.stamp_ns, sample.frame_id, ActionChunk(sample.stamp_ns, "", names, self._offsets_s, chunk)
        )

    def _observe(self, now_ns: int) -> tuple[Observation | None, str]:
        """What the head sees at `now_ns`, or why it cannot see."""
        config = self.config
        if self._joints.newest_ns is None:
            return None, self._refused or "no joints measured yet"
        joints, joints_pad, measured_ns = self._joints.at(grid_ns(now_ns, self._joint_steps, config.rate_hz))
        age_s = (now_ns - measured_ns) / 1e9
        if abs(age_s) > config.stale_s:
            side = "before" if age_s > 0 else "after"
            why = f"; newer ones were refused: {self._refused}" if self._refused else ""
            return None, f"joints were measured {abs(age_s):.2f} s {side} the image{why}"
        joints_pad[-1] = False
        state, state_pad, _ = self._states.at(grid_ns(now_ns, self._state_steps, config.rate_hz))
        bev, bev_pad = None, None
        if self._bev.newest_ns is not None:
            values, _, bev_ns = self._bev.at([now_ns])
            bev = self._batch(values[0])
            bev_pad = torch.tensor([abs(now_ns - bev_ns) > config.stale_s * 1e9], device=self.device)
        seen = Observation(
            self._batch(joints),
            self._batch(joints_pad),
            self._batch(state),
            self._batch(state_pad),
            self._text[None].to(self.device),
            bev,
            bev_pad,
        )
        return seen, ""

    def _batch(self, array: NDArray[np.float32] | NDArray[np.bool_]) -> torch.Tensor:
        return torch.from_numpy(array)[None].to(self.device)
