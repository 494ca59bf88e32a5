"""The policy head behind the interface of LeRobot's policies; `lerobot` itself is not needed.

    policy, before, after = load_checkpoint(folder, tokenizer)     # wm_ros.policy.checkpoint
    policy.reset()
    action = after.after(policy.select_action(before.before(observation)))

Keys of a batch, B items, T = `n_obs_steps`, F = `chunk_size`, A = J joints in the order of `config.model.joint_names`:

    observation.state             (B, J) or (B, T, J)   measured joints, rad
    observation.images.<camera>   (B, 3, H, W) or (B, T, 3, H, W)   0..1, of any size; may be missing: the head is
                                  blind, or does without that camera
    task                          B texts, or one for all; may be missing
    action                        (B, F, A)   for `forward` only
    <key>_is_pad                  (B, T) or (B, F) bool, True where a step is made up

Without the time axis a batch is the next observation of a running episode: it is remembered until `reset`. Steps are
those of `config.model.rate_hz`. The first action of a chunk is due one step after the observation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wm_ros.errors import UserError
from wm_ros.nn.instruction import open_words
from wm_ros.nn.preprocessing import resize_area, to_uint8
from wm_ros.policy.context import Observation
from wm_ros.policy.head import PolicyHead, masked_l1
from wm_ros.policy.lerobot_config import ACTION, STATE, TASK, TYPE, LeRobotConfig

Looks = tuple[Tensor | None, ...]
"""(B, 3, H, W) of each camera, None where there is none."""


class Tokenizer(Protocol):
    """What makes state tokens of images: the capability `state` with the bundle that the head was trained on."""

    def preprocess(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) → the size that `tokenize` takes."""

    def tokenize(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) → (N, tokens, D)."""


class LeRobotPolicy(nn.Module):
    """`forward`, `predict_action_chunk`, `select_action`, `reset`, as a LeRobot user knows them.

    Values are as the processors around the policy leave them (`wm_ros.policy.normalise`).
    """

    name = TYPE

    def __init__(self, config: LeRobotConfig, head: PolicyHead, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config, self.head, self.tokenizer = config, head, tokenizer
        self.cameras = config.cameras
        if not 1 <= config.n_action_steps <= config.chunk_size:
            raise UserError(f"n_action_steps = {config.n_action_steps}: choose 1 to {config.chunk_size}, the chunk's")
        self._words = open_words(config.model.language)
        self._seen: deque[tuple[Tensor, Looks]] = deque(maxlen=config.n_obs_steps)
        self._queue: deque[Tensor] = deque()
        self._generator = torch.Generator().manual_seed(0)

    def reset(self) -> None:
        """A new episode: forget observations and queued actions; what a flow drew once is drawn again."""
        self._seen.clear()
        self._queue.clear()
        self._generator.manual_seed(0)

    def drop_queued_actions(self) -> None:
        """Forget queued actions only: a new task."""
        self._queue.clear()

    def get_optim_params(self) -> list[nn.Parameter]:
        """What is trained."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Mean absolute error of the chunk over what is not padded, in units of the head's usual change (of a flow its
        own loss).

        The latent objective of ACT-JEPA needs joints to come, which a LeRobot batch has not: `wm train policy` has it.
        """
        seen = self._observation(*self._window(batch), batch)
        context, absent = self.head.context(seen)
        truth = batch[ACTION].to(context)
        pad = batch.get(f"{ACTION}_is_pad", torch.zeros(truth.shape[:2], dtype=torch.bool)).to(context.device)
        loss = self.head.action_loss(seen, context, absent, truth, pad, balanced=False)
        with torch.no_grad():
            error = self.head.decode(seen, context, absent) - truth
        name = "l1_loss" if self.head.expert is None else "flow_loss"
        return loss, {name: loss.item(), "action_mae": masked_l1(error, pad).item()}

    @torch.no_grad()
    def predict_action_chunk(self, batch: Mapping[str, Any]) -> Tensor:
        """→ (B, chunk_size, A). Raises UserError where the batch lacks a key or has another shape."""
        self.eval()
        if STATE in batch and batch[STATE].dim() == 3:
            window = self._window(batch)
        else:
            self._remember(batch)
            window = self._history()
        return self._drawn(self._observation(*window, batch))

    @torch.no_grad()
    def select_action(self, batch: Mapping[str, Any]) -> Tensor:
        """→ (B, A), the next action of the running episode; a chunk is asked for when the queue is empty."""
        self.eval()
        self._remember(batch)
        if not self._queue:
            chunk = self._drawn(self._observation(*self._history(), batch))
            self._queue.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self._queue.popleft()

    # ------------------------------------------------------------------------- parts

    def _drawn(self, seen: Observation) -> Tensor:
        """The chunks (B, F, A); of a flow each from noise of its own."""
        model, noise = self.config.model, None
        if self.head.expert is not None:
            shape = (len(seen.joints), model.chunk_steps, len(model.joint_names))
            noise = torch.randn(shape, generator=self._generator).to(seen.joints.device)
        context, pad = self.head.context(seen)
        return self.head.decode(seen, context, pad, noise)

    def _remember(self, batch: Mapping[str, Any]) -> None:
        state = _tensor(batch, STATE, 2, len(self.config.model.joint_names))
        if self._seen and len(self._seen[-1][0]) != len(state):
            raise UserError(
                f"'{STATE}': {len(state)} items after {len(self._seen[-1][0])}; call reset() between episodes"
            )
        self._seen.append((state, tuple(batch.get(key) for key in self.cameras)))

    def _history(self) -> tuple[Tensor, Tensor, list[Looks]]:
        """Joints (B, T, J), their padding (B, T) and the images of the steps, from what is remembered."""
        seen, steps = list(self._seen), self.config.n_obs_steps
        missing = steps - len(seen)
        seen = [(seen[0][0], (None,) * len(self.cameras))] * missing + seen
        joints = torch.stack([state for state, _ in seen], 1)
        pad = (torch.arange(steps) < missing).expand(len(joints), -1)
        return joints, pad, [looks for _, looks in seen]

    def _window(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, list[Looks]]:
        """The same from a batch with a time axis."""
        joints = _tensor(batch, STATE, 3, len(self.config.model.joint_names))
        if joints.shape[1] != self.config.n_obs_steps:
            raise UserError(f"'{STATE}': {joints.shape[1]} steps, but the policy sees {self.config.n_obs_steps}")
        pad = batch.get(f"{STATE}_is_pad", torch.zeros(joints.shape[:2], dtype=torch.bool))
        steps: list[Looks] = []
        for step in range(joints.shape[1]):
            steps.append(tuple(batch[key][:, step] if key in batch else None for key in self.cameras))
        return joints, pad, steps

    def _observation(self, joints: Tensor, pad: Tensor, looks: list[Looks], batch: Mapping[str, Any]) -> Observation:
        model, count = self.config.model, len(joints)
        device = self.head.context.kind.device
        task = batch.get(TASK, "")
        texts = [task] * count if isinstance(task, str) else list(task)
        seen = Observation(
            joints[:, -model.joint_history :].float().to(device),
            pad[:, -model.joint_history :].to(device),
            self._words(texts).to(device),
        )
        if model.cameras.names:
            images, gone = self._images(looks[-1], count)
            return seen._replace(images=images.to(device), images_pad=gone.to(device))
        state, gone = self._states(looks, pad)
        return seen._replace(state=state.to(device), state_pad=gone.to(device))

    def _images(self, looks: Looks, count: int) -> tuple[Tensor, Tensor]:
        """The newest images (B, V, 3, H, W) uint8 and where there is none (B, V), as images of a robot are taken."""
        height, width = self.config.model.cameras.size
        images = torch.zeros(count, len(looks), 3, height, width, dtype=torch.uint8)
        gone = torch.ones(count, len(looks), dtype=torch.bool)
        for place, look in enumerate(looks):
            if look is not None:
                rgb = np.stack([resize_area(picture, height, width) for picture in to_uint8(look)])
                images[:, place], gone[:, place] = torch.from_numpy(rgb).permute(0, 3, 1, 2), False
        return images, gone

    def _states(self, looks: list[Looks], pad: Tensor) -> tuple[Tensor, Tensor]:
        """State tokens of the steps that the head wants, and where there are none."""
        model, count = self.config.model, len(pad)
        wanted = [len(looks) - 1 - back for back in model.token_history[::-1]]
        state = torch.zeros(count, len(wanted), model.state_tokens, model.state_width)
        absent = torch.ones(count, len(wanted), dtype=torch.bool)
        for slot, step in enumerate(wanted):
            (image,) = looks[step]
            if image is not None and self.tokenizer is not None:
                state[:, slot], absent[:, slot] = self._tokens(image), pad[:, step]
        return state, absent

    def _tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 → (B, tokens, D), by the way that images of a robot go."""
        assert self.tokenizer is not None
        rgb = np.stack([self.tokenizer.preprocess(picture) for picture in to_uint8(images)])
        tokens = torch.from_numpy(self.tokenizer.tokenize(rgb))
        wanted = (self.config.model.state_tokens, self.config.model.state_width)
        if tuple(tokens.shape[1:]) != wanted:
            raise UserError(f"state tokens of shape {tuple(tokens.shape[1:])}, but the head was trained on {wanted}")
        return tokens


def _tensor(batch: Mapping[str, Any], key: str, dimensions: int, width: int) -> Tensor:
    if key not in batch:
        raise UserError(f"the batch has no '{key}'; it has {', '.join(sorted(batch)) or 'nothing'}")
    value: Tensor = batch[key]
    if value.dim() != dimensions or value.shape[-1] != width:
        axes = "(B, T, " if dimensions == 3 else "(B, "
        raise UserError(f"'{key}' has shape {tuple(value.shape)}, but the policy takes {axes}{width})")
    return value
