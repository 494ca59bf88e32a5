"""Batches of `policy`: windows of episodes, the constants fitted on them, and what training hides or disturbs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.context import Observation
from wm_ros.policy.head import PolicyHead
from wm_ros.policy.objectives import Future
from wm_ros.training.policy_config import DropoutConfig, PolicyTrainConfig
from wm_ros.training.windows import Aligned, Windows

Batch = dict[str, Tensor]
FIT_WINDOWS = 20_000  # for normalisation and baselines
STD_FLOOR_RAD = 1e-3  # joints that never move are not blown up
FIELDS = {"image": "frames", "wrist_image": "wrist"}
"""Camera → its array of `wm_ros.training.aligned`."""


def policy_windows(chosen: list[tuple[Aligned, list[int]]], config: PolicyTrainConfig, stride: int = 1) -> Windows:
    """Windows with what the head is to see, and what the objective is to foresee."""
    commands = config.past.commands if config.past is not None else 0
    history = max(config.joint_history, max(config.token_history, default=0) + 1, commands)
    past: tuple[str, ...] = ("joints", "commands", *(("tokens",) if config.token_history else ()))
    if all("bev" in source.arrays for source, _ in chosen):
        past += ("bev",)
    looks = {"self_prediction": config.objective.later, "bisimulation": config.objective.later[:1]}
    later = looks.get(config.objective.kind, ())
    now = tuple(FIELDS[name] for name in config.cameras.names)
    return Windows(
        chosen, history, config.chunk_steps, past, ("joints", "commands"), stride, now=now, later=later if now else ()
    )


def past_windows(windows: Windows) -> Batch:
    """Every step of the episodes of `windows` once, as one batch of joints and commands alone."""
    episodes = np.unique(windows.index[:, :2], axis=0)
    chosen = [(source, episodes[episodes[:, 0] == number, 1].tolist()) for number, source in enumerate(windows.sources)]
    plain = Windows(chosen, windows.history, windows.future, ("joints", "commands"), ("commands",))
    batch: Batch = torch.utils.data.default_collate([plain[item] for item in range(len(plain))])
    return batch


def balance(windows: Windows, every: int) -> None:
    """Repeat the windows that have a state until they are half of all."""
    starts = [source.starts for source in windows.sources]
    steps = np.asarray([step - starts[number][episode] for number, episode, step in windows.index])
    windows.index = np.concatenate([windows.index, *[windows.index[steps % every == 0]] * max(every - 2, 0)])


def sampled(windows: Windows) -> Batch:
    """Up to FIT_WINDOWS windows, evenly spread, as one batch without images."""
    numbers = np.linspace(0, len(windows) - 1, min(len(windows), FIT_WINDOWS)).round().astype(int)
    now, windows.now = windows.now, ()
    try:
        batch: Batch = torch.utils.data.default_collate([windows[int(i)] for i in numbers])
        return batch
    finally:
        windows.now = now


@torch.no_grad()
def normalise(head: PolicyHead, batch: Batch) -> None:
    """Fit the constants of a head on a batch of training windows."""
    norm, config = head.context.norm, head.config
    joints = batch["joints"][:, -config.joint_history :]
    norm.joint_mean.copy_(joints[:, -1].mean(0))
    norm.joint_std.copy_(joints[:, -1].std(0).clamp_min(STD_FLOOR_RAD))
    norm.move_std.copy_((joints[:, -1] - joints[:, 0]).std(0).clamp_min(STD_FLOOR_RAD))
    keep = (~no_command(batch))[..., None].double()
    action = batch["commands_future"].nan_to_num().double() - (joints[:, -1:] if config.relative else 0.0)
    count = keep.sum(0).clamp_min(1.0)
    mean = torch.zeros_like(action[0]) if config.relative else (action * keep).sum(0) / count
    spread = ((action - mean).square() * keep).sum(0) / count
    norm.action_mean.copy_(mean)
    norm.action_std.copy_(spread.sqrt().clamp_min(STD_FLOOR_RAD))
    if "tokens" in batch:
        state = batch["tokens"][:, -1]
        state = state[state.isfinite().flatten(1).all(1)]
        norm.state_mean.copy_(state.mean(0))
        norm.state_std.copy_(state.std(0).clamp_min(1e-3))
    if "bev" in batch:
        bev = batch["bev"][:, -1].flatten(0, 1)
        bev = bev[torch.isfinite(bev).all(-1)]
        norm.bev_mean.copy_(bev.mean(0))
        norm.bev_std.copy_(bev.std(0).clamp_min(1e-3))


def observation(batch: Batch, config: PolicyModelConfig, words: Tensor) -> Observation:
    """What the head sees of a batch. `words`: of each text of the windows."""
    state, state_pad, bev, bev_pad, images, images_pad = (None,) * 6
    if "tokens" in batch:
        back = [batch["tokens"].shape[1] - 1 - steps for steps in config.token_history[::-1]]
        tokens = batch["tokens"][:, back]
        state, state_pad = tokens.nan_to_num(), _hidden(batch, "state") | tokens.isnan().flatten(2).any(-1)
        state_pad = state_pad | batch["pad"][:, back]
    if "bev" in batch:
        tokens = batch["bev"][:, -1]
        bev, bev_pad = tokens.nan_to_num(), _hidden(batch, "bev")[:, 0] | tokens.isnan().flatten(1).any(-1)
    commands, commands_pad = None, None
    if config.past is not None and config.past.commands:
        commands = batch["commands"][:, -config.past.commands :]
        commands_pad = batch["pad"][:, -config.past.commands :] | commands.isnan().any(-1) | _hidden(batch, "commands")
        commands = commands.nan_to_num()
    if config.cameras.names:
        fields = [FIELDS[name] for name in config.cameras.names]
        images = torch.stack([batch[field] for field in fields], 1).permute(0, 1, 4, 2, 3)
        images_pad = batch.get("hide_cameras", torch.zeros(images.shape[:2], dtype=torch.bool, device=images.device))
    return Observation(
        batch["joints"][:, -config.joint_history :],
        batch["pad"][:, -config.joint_history :] | _hidden(batch, "joints"),
        words.to(batch["text"].device)[batch["text"]],
        state,
        state_pad,
        bev,
        bev_pad,
        images,
        images_pad,
        commands,
        commands_pad,
    )


def future(batch: Batch, head: PolicyHead, words: Tensor, later: tuple[int, ...]) -> Future:
    """What came after a batch; the looks at `later` steps where the batch has them."""
    config = head.config
    actions = head.normalised(batch["joints"][:, -1:], batch["commands_future"].nan_to_num())
    looks = []
    for place, steps in enumerate(later):
        joints = batch["joints_future"][:, steps - 1 : steps].expand(-1, batch["joints"].shape[1], -1)
        look = batch | {"joints": joints, "pad": torch.zeros_like(batch["pad"])}
        look |= {FIELDS[name]: batch[f"{FIELDS[name]}_later"][:, place] for name in config.cameras.names}
        looks.append(observation({k: v for k, v in look.items() if not k.startswith("hide_")}, config, words))
    return Future(batch["joints_future"], actions, no_command(batch), tuple(looks))


def disturbed(batch: Batch, dropout: DropoutConfig, cameras: tuple[str, ...]) -> Batch:
    """Sensor dropout, a shorter history, noise on joints and colours: a run without or with them is nothing new."""
    size, history = batch["pad"].shape
    device = batch["pad"].device

    def drawn(share: float, columns: int = 1) -> Tensor:
        return torch.rand(size, columns, device=device) < share

    begin = torch.randint(0, history, (size, 1), device=device) * drawn(dropout.history)
    noise = torch.randn_like(batch["joints"]) * dropout.joint_noise
    changed = {
        "joints": batch["joints"] + noise,
        "pad": batch["pad"] | (torch.arange(history, device=device) < begin),
        "hide_state": drawn(dropout.state),
        "hide_bev": drawn(dropout.bev),
        "hide_joints": drawn(dropout.joints),
        "hide_commands": drawn(dropout.commands),
    }
    if cameras:
        hidden = drawn(dropout.camera, len(cameras))
        changed["hide_cameras"] = hidden & ~hidden.all(1, keepdim=True)
        for name in cameras:
            changed[FIELDS[name]] = _recoloured(_moved(batch[FIELDS[name]], dropout.shift_px), dropout.colour)
    return batch | changed


def no_command(batch: Batch) -> Tensor:
    """(B, F) True where nothing was commanded: after the episode, or before its first command."""
    return batch["pad_future"] | batch["commands_future"].isnan().any(-1)


def _hidden(batch: Batch, name: str) -> Tensor:
    """(B, 1) True where `disturbed` hides a sensor."""
    none = torch.zeros(len(batch["pad"]), 1, dtype=torch.bool, device=batch["pad"].device)
    return batch.get(f"hide_{name}", none)


def _recoloured(images: Tensor, share: float) -> Tensor:
    """(B, H, W, 3) → float 0..255, contrast and brightness of each channel changed."""
    if not share:
        return images
    contrast, brightness = (torch.rand(2, len(images), 1, 1, 3, device=images.device) * 2 - 1) * share
    return (images.float() - 127.5) * (1 + contrast) + 127.5 * (1 + brightness)


def _moved(images: Tensor, most: int) -> Tensor:
    """(B, H, W, 3) moved by up to `most` pixels each way, edges repeated."""
    if not most:
        return images
    count, height, width, _ = images.shape
    down, right = torch.randint(-most, most + 1, (2, count, 1), device=images.device)
    rows = (down + torch.arange(height, device=images.device)).clamp(0, height - 1)[:, :, None]
    columns = (right + torch.arange(width, device=images.device)).clamp(0, width - 1)[:, None, :]
    return images[torch.arange(count, device=images.device)[:, None, None], rows, columns]
