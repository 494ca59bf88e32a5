"""What `policy` has sensed lately, checked as it arrives, and what the head sees of it at a moment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.nn.preprocessing import resize_area
from wm_ros.policy.config import Camera, PolicyModelConfig
from wm_ros.policy.context import Observation
from wm_ros.policy.history import History, grid_ns
from wm_ros.types import BevTokens, Frame, JointCommand, Joints, Sample, StateTokens, WristFrame

CAMERAS: dict[Camera, type[Frame] | type[WristFrame]] = {"image": Frame, "wrist_image": WristFrame}
Images = NDArray[np.uint8]


class Senses:
    """Histories of joints, commands, state tokens, BEV tokens and images, of what could be used.

    Args:
        jumped: called when the stamps of what triggers went back and all was forgotten.

    Attributes:
        trigger: what chunks are asked for with. does_without: types that may fall silent.
        lacking: what the last observation was made without, by name.
    """

    def __init__(self, config: PolicyModelConfig, device: torch.device, jumped: Callable[[], None]) -> None:
        self.config, self.device, self.jumped = config, device, jumped
        self.cameras = tuple(CAMERAS[name] for name in config.cameras.names)
        self.trigger: type[Sample] = self.cameras[0] if self.cameras else StateTokens
        self.does_without: tuple[type[Sample], ...] = tuple(
            CAMERAS[n] if n != "joints" else Joints for n in config.does_without
        )
        period_s = 1.0 / config.rate_hz
        self._joint_steps = list(range(config.joint_history - 1, -1, -1))
        self._state_steps = list(config.token_history[::-1])
        self._command_steps = list(range((config.past.commands if config.past is not None else 0) - 1, -1, -1))
        self.joints = History(config.joint_history * period_s + 1.0)
        self.commands = History(len(self._command_steps) * period_s + 1.0)
        self.states = History((max(config.token_history, default=0) + 1) * period_s + 1.0)
        self.bev = History(0.0)
        self.images: dict[type[Sample], tuple[int, Images]] = {}
        self.lacking: tuple[str, ...] = ()
        self._unseen_ns: int | None = None
        self._columns: dict[tuple[str, ...], NDArray[np.int64]] = {}
        self._refused = ""

    def forget(self) -> None:
        """Forget all that was sensed."""
        for history in (self.joints, self.commands, self.states, self.bev):
            history.clear()
        self.images.clear()
        self._unseen_ns = None

    def reset(self) -> None:
        """Forget it, and what was refused and lacking."""
        self.forget()
        self.lacking, self._refused = (), ""

    def _jump(self) -> None:
        self.forget()
        self.jumped()

    # ------------------------------------------------------------------------- taking

    def take_joints(self, sample: Joints) -> None:
        """Measured joints."""
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
        if not self.joints.add(sample.stamp_ns, position):
            self.states.clear()
            self.bev.clear()

    def take_command(self, sample: JointCommand) -> None:
        """What the robot was told; left out where it is not of all joints."""
        place = {name: index for index, name in enumerate(sample.names)}
        columns = [place[name] for name in self.config.joint_names if name in place]
        if not self._command_steps or len(columns) < len(self.config.joint_names):
            return
        if len(sample.position_rad) > max(columns) and np.isfinite(position := sample.position_rad[columns]).all():
            self.commands.add(sample.stamp_ns, position.astype(np.float32))

    def take_bev(self, sample: BevTokens) -> None:
        """BEV tokens; left out where they have another shape."""
        wanted = (self.config.bev_tokens, self.config.bev_width)
        if sample.tokens.shape == wanted and np.isfinite(sample.tokens).all():
            self.bev.add(sample.stamp_ns, sample.tokens.astype(np.float32))

    def take_state(self, sample: StateTokens) -> str:
        """ "" where a chunk is to be made of it, else why not."""
        wanted = (self.config.state_tokens, self.config.state_width)
        if sample.tokens.shape != wanted:
            return f"state tokens of shape {sample.tokens.shape}, this bundle was trained on {wanted}"
        if not np.isfinite(sample.tokens).all():
            return "state tokens are not finite"
        if self.states.newest_ns is not None and sample.stamp_ns < self.states.newest_ns:
            self._jump()
        self.states.add(sample.stamp_ns, sample.tokens.astype(np.float32))
        return ""

    def take_image(self, sample: Frame | WristFrame) -> bool:
        """Whether a chunk is to be made now: it is of the first camera, or that one has been silent for `stale_s`."""
        kind, stamp_ns = type(sample), sample.stamp_ns
        if kind in self.images and stamp_ns < self.images[kind][0]:
            self._jump()
        height, width = self.config.cameras.size
        self.images[kind] = stamp_ns, resize_area(sample.rgb, height, width)
        if kind is self.trigger:
            self._unseen_ns = stamp_ns
            return True
        if self._unseen_ns is None or self._unseen_ns > stamp_ns:
            self._unseen_ns = stamp_ns  # from when on the first camera has not been seen
        return self.trigger in self.does_without and stamp_ns - self._unseen_ns > self.config.stale_s * 1e9

    # ------------------------------------------------------------------------- seeing

    def observe(self, now_ns: int, text: torch.Tensor) -> tuple[Observation | None, str]:
        """What the head sees at `now_ns`, or why it cannot see. `text`: the instruction, one item."""
        joints, joints_pad, refused = self._measured(now_ns)
        if refused and Joints not in self.does_without:
            return None, refused
        state, state_pad, images, images_pad = None, None, None, None
        if self.cameras:
            images, images_pad, missing = self._looked(now_ns)
            if missing:
                return None, missing
        else:
            grid = grid_ns(now_ns, self._state_steps, self.config.rate_hz)
            state, state_pad = (self._batch(array) for array in self.states.at(grid)[:2])
        bev, bev_pad = None, None
        if self.bev.newest_ns is not None:
            values, _, bev_ns = self.bev.at([now_ns])
            bev = self._batch(values[0])
            bev_pad = torch.tensor([abs(now_ns - bev_ns) > self.config.stale_s * 1e9], device=self.device)
        cameras = self.config.cameras.names if images_pad is not None else ()
        absent = [] if images_pad is None else images_pad[0].tolist()
        self.lacking = (*(["joints"] if refused else []), *(n for n, none in zip(cameras, absent, strict=True) if none))
        seen = Observation(
            self._batch(joints),
            self._batch(joints_pad),
            text[None].to(self.device),
            state,
            state_pad,
            bev,
            bev_pad,
            images,
            images_pad,
            *self._told(now_ns),
        )
        return seen, ""

    def _measured(self, now_ns: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], str]:
        """Joints on the grid (H, J), where there were none (H,), and why they cannot be used."""
        config = self.config
        absent = np.zeros((config.joint_history, len(config.joint_names)), np.float32)
        none = np.ones(config.joint_history, bool)
        if self.joints.newest_ns is None:
            return absent, none, self._refused or "no joints measured yet"
        joints, joints_pad, measured_ns = self.joints.at(grid_ns(now_ns, self._joint_steps, config.rate_hz))
        age_s = (now_ns - measured_ns) / 1e9
        if abs(age_s) > config.stale_s:
            side = "before" if age_s > 0 else "after"
            why = f"; newer ones were refused: {self._refused}" if self._refused else ""
            return absent, none, f"joints were measured {abs(age_s):.2f} s {side} the image{why}"
        joints_pad[-1] = False
        return joints, joints_pad, ""

    def _told(self, now_ns: int) -> tuple[torch.Tensor, torch.Tensor] | tuple[()]:
        """Commands in force (1, K, J) and where there were none (1, K); of old ones nothing is known."""
        config = self.config
        if not self._command_steps:
            return ()
        commands = np.zeros((len(self._command_steps), len(config.joint_names)), np.float32)
        pad = np.ones(len(self._command_steps), bool)
        newest_ns = self.commands.newest_ns
        if newest_ns is not None and abs(now_ns - newest_ns) <= config.stale_s * 1e9:
            commands, pad, _ = self.commands.at(grid_ns(now_ns, self._command_steps, config.rate_hz))
        return self._batch(commands), self._batch(pad)

    def _looked(self, now_ns: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        """Images (1, V, 3, H, W), where there is none (1, V), and why they cannot be used."""
        black = np.zeros((*self.config.cameras.size, 3), np.uint8)
        found = [self.images.get(camera, (now_ns - 10**18, black)) for camera in self.cameras]
        stale = np.asarray([abs(now_ns - stamp_ns) > self.config.stale_s * 1e9 for stamp_ns, _ in found])
        missing = ""
        for name, camera, absent in zip(self.config.cameras.names, self.cameras, stale, strict=True):
            if absent and camera not in self.does_without:
                missing = f"no image of '{name}' within {self.config.stale_s:g} s"
        images = np.stack([rgb.transpose(2, 0, 1) for _, rgb in found])
        return self._batch(images), self._batch(stale), missing

    def _batch(self, array: NDArray[np.float32] | NDArray[np.bool_] | Images) -> torch.Tensor:
        return torch.from_numpy(array)[None].to(self.device)
