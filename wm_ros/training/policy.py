"""Training of `policy`: actions and latent states to come, jointly, as ACT-JEPA does (arXiv 2501.14622)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from wm_ros.bundle import BundleConfig, save_bundle
from wm_ros.kinematics import G1_JOINTS
from wm_ros.nn.instruction import LanguageConfig, noted, open_words
from wm_ros.policy import baselines
from wm_ros.policy.config import PolicyModelConfig, TransformerConfig
from wm_ros.policy.head import Observation, PolicyHead
from wm_ros.policy.jepa import LatentObjective, masked_l1
from wm_ros.training.policy_card import policy_card
from wm_ros.training.state_tokens import state_tokens
from wm_ros.training.task import RunInfo, Task, TrainConfig
from wm_ros.training.windows import Aligned, Windows, align, split_episodes

HORIZONS_S = (0.2, 0.5, 1.0)
RIDGE_STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FIT_WINDOWS = 20_000  # for normalisation and baselines
STD_FLOOR_RAD = 1e-3  # joints that never move are not blown up


class PolicyTrainConfig(TrainConfig):
    """`config/train/policy.yaml`.

    Attributes:
        state_bundle: whose tokens the policy sees.
        state_every: only every so manyth image is encoded, the slow part; windows in between are trained without
            state, and are as many as those with. `token_history` must be multiples of it.
        joint_names: of the robot, in the order of the chunk.
        latent_weight: of the loss on latent states to come, 1 in the paper, 0 switches that part off.
        validation: share of episodes held out.
        drop_state, drop_bev: share of training windows without state or BEV tokens.
        drop_history: share of windows whose history begins later. joint_noise_rad: added to measured joints.
    """

    state_bundle: str = "state-lite"
    state_every: int = Field(default=5, ge=1)
    joint_names: tuple[str, ...] = G1_JOINTS
    chunk_steps: int = 15
    joint_history: int = 8
    token_history: tuple[int, ...] = (0, 5, 10)
    transformer: TransformerConfig = TransformerConfig()
    language: LanguageConfig = LanguageConfig()
    latent_weight: float = Field(1.0, ge=0)
    validation: float = Field(0.1, gt=0, lt=1)
    drop_state: float = 0.1
    drop_bev: float = 0.5
    drop_history: float = 0.1
    joint_noise_rad: float = 0.0


class PolicyTask(Task):
    """Head and latent objective are trained together; only the head is exported."""

    name: ClassVar[str] = "policy"
    config_type = PolicyTrainConfig

    config: PolicyTrainConfig
    fitted: dict[str, Any]

    def prepare(self, sources: list[str], seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
        """Align the sources, compute their state tokens, fit normalisation and baselines, build the modules."""
        config, cache = self.config, self.work_dir / "cache"
        aligned = [align(source, config.joint_names, cache) for source in sources]
        aligned, self.state_sha256 = state_tokens(aligned, config.state_bundle, config.state_every)
        splits = [split_episodes(len(a.episodes), config.validation, seed) for a in aligned]
        self.train_set = self._windows([(a, s[0]) for a, s in zip(aligned, splits, strict=True)])
        self._balance(self.train_set)
        validation = [(a, s[1]) for a, s in zip(aligned, splits, strict=True)]
        self.validation_set = self._windows(validation, stride=config.state_every)
        self.model = self._model_config(aligned)
        self.words = open_words(self.model.language)(self.train_set.texts)
        head = PolicyHead(self.model)
        self._normalise(head)
        self.fitted = self._fit_baselines()
        head.start_from(torch.from_numpy(self.fitted["ridge"]).float())
        # The target starts as a copy, so the normalisation comes first.
        self.modules = torch.nn.ModuleDict({"head": head, "latent": LatentObjective(self.model, head.context)})
        return self.train_set, self.validation_set

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Action loss and latent loss, both L1, padded steps left out."""
        head, latent = self._head, self._latent
        seen = self._observation(self._drop(batch))
        chunk, context, pad = head(seen)
        error = (chunk - batch["commands_future"].nan_to_num()) / head.context.norm.action_std.mean()
        losses = {"action": masked_l1(error, _no_command(batch))}
        losses["loss"] = losses["action"]
        if self.config.latent_weight > 0:
            padded = batch["pad_future"]
            target = latent.targets(seen.text, batch["joints_future"], batch["joints"][:, -1], padded)
            losses["latent"] = masked_l1(latent.predict(context, pad) - target, padded)
            losses["loss"] = losses["action"] + self.config.latent_weight * losses["latent"]
        return losses

    def after_step(self, step: int) -> None:
        """The target encoder follows."""
        self._latent.follow(self._head.context, (step + 1) / self.config.steps)

    def validate(self, batches: Iterable[dict[str, Tensor]]) -> dict[str, float]:
        """Mean absolute error of the chunk up to each horizon, that of holding still, and the spread of the targets."""
        sums: dict[str, float] = {}
        spread, count = 0.0, 0
        total = dict.fromkeys(HORIZONS_S, 0.0)
        for batch in batches:
            seen = self._observation(batch)
            chunk = self._head(seen)[0]
            truth, padded = batch["commands_future"].nan_to_num(), _no_command(batch)
            for horizon in HORIZONS_S:
                steps = horizon_steps(horizon, self.model.rate_hz)
                keep = (~padded[:, :steps])[..., None]
                total[horizon] += float(keep.sum())
                for method, guess in (("action", chunk), ("hold", batch["joints"][:, -1:])):
                    error = ((guess - truth).abs()[:, :steps] * keep).mean(-1).sum()
                    key = f"{method}_mae@{horizon:g}s"
                    sums[key] = sums.get(key, 0.0) + float(error)
            future = self._latent.targets(
                seen.text, batch["joints_future"], batch["joints"][:, -1], batch["pad_future"]
            )
            spread += float(future.flatten(0, 1).std(0).mean())
            count += 1
        found = {key: value / max(total[float(key.split("@")[1][:-1])], 1.0) for key, value in sums.items()}
        return found | {"latent_std": spread / max(count, 1)}

    def export(self, out: Path, run: RunInfo) -> None:
        """Write head and baselines to a bundle; the latent part stays behind."""
        head = self._head
        config = BundleConfig[PolicyModelConfig](
            capability="policy",
            name="policy-lite",
            model=self.model,
            training=run.record(),
            metrics={"validation": run.log},
        )
        tensors = {f"model.{name}": value for name, value in head.state_dict().items()}
        tensors |= {
            f"baseline.{name}": torch.from_numpy(value.astype(np.float32)) for name, value in self.fitted.items()
        }
        save_bundle(out, config, tensors, policy_card(config, self.config.latent_weight, len(self.train_set)))

    # ------------------------------------------------------------------------- parts

    @property
    def _head(self) -> PolicyHead:
        head = self.modules["head"]
        assert isinstance(head, PolicyHead)
        return head

    @property
    def _latent(self) -> LatentObjective:
        latent = self.modules["latent"]
        assert isinstance(latent, LatentObjective)
        return latent

    def _windows(self, chosen: list[tuple[Aligned, list[int]]], stride: int = 1) -> Windows:
        history = max(self.config.joint_history, max(self.config.token_history) + 1)
        past: tuple[str, ...] = ("tokens", "joints", "commands")
        if all("bev" in source.arrays for source, _ in chosen):
            past += ("bev",)
        return Windows(chosen, history, self.config.chunk_steps, past, ("joints", "commands"), stride)

    def _balance(self, data: Windows) -> None:
        """Repeat the windows that have a state until they are half of all."""
        every = self.config.state_every
        starts = [source.starts for source in data.sources]
        steps = np.asarray([step - starts[number][episode] for number, episode, step in data.index])
        data.index = np.concatenate([data.index, *[data.index[steps % every == 0]] * max(every - 2, 0)])

    def _model_config(self, aligned: list[Aligned]) -> PolicyModelConfig:
        bev = aligned[0]["bev"].shape[1:] if "bev" in self.train_set.past else (0, 0)
        state = aligned[0]["tokens"].shape[1:]
        return PolicyModelConfig(
            joint_names=self.config.joint_names,
            rate_hz=aligned[0].rate_hz,
            chunk_steps=self.config.chunk_steps,
            joint_history=self.config.joint_history,
            token_history=self.config.token_history,
            state_tokens=state[0],
            state_width=state[1],
            bev_tokens=bev[0],
            bev_width=bev[1],
            state_tokens_sha256=self.state_sha256,
            transformer=self.config.transformer,
            language=noted(self.config.language),
        )

    def _sample(self, data: Windows) -> dict[str, Tensor]:
        """Up to FIT_WINDOWS windows, evenly spread, as one batch."""
        numbers = np.linspace(0, len(data) - 1, min(len(data), FIT_WINDOWS)).round().astype(int)
        return torch.utils.data.default_collate([data[int(i)] for i in numbers])

    def _normalise(self, head: PolicyHead) -> None:
        batch, norm = self._sample(self.train_set), head.context.norm
        joints = batch["joints"][:, -self.config.joint_history :]
        action = (batch["commands_future"] - joints[:, -1:])[~_no_command(batch)]
        norm.joint_mean.copy_(joints[:, -1].mean(0))
        norm.joint_std.copy_(joints[:, -1].std(0).clamp_min(STD_FLOOR_RAD))
        norm.move_std.copy_((joints[:, -1] - joints[:, 0]).std(0).clamp_min(STD_FLOOR_RAD))
        norm.action_std.copy_(action.square().mean(0).sqrt().clamp_min(STD_FLOOR_RAD))
        state = batch["tokens"][:, -1]
        state = state[state.isfinite().flatten(1).all(1)]
        norm.state_mean.copy_(state.mean(0))
        norm.state_std.copy_(state.std(0).clamp_min(1e-3))
        if "bev" in batch:
            bev = batch["bev"][:, -1].flatten(0, 1)
            bev = bev[torch.isfinite(bev).all(-1)]
            norm.bev_mean.copy_(bev.mean(0))
            norm.bev_std.copy_(bev.std(0).clamp_min(1e-3))

    def _observation(self, batch: dict[str, Tensor]) -> Observation:
        config = self.model
        back = [batch["tokens"].shape[1] - 1 - steps for steps in config.token_history[::-1]]
        tokens = batch["tokens"][:, back]
        unseen = batch.get("state_pad", batch["pad"])[:, back] | tokens.isnan().flatten(2).any(-1)
        bev = batch["bev"][:, -1] if "bev" in batch else None
        return Observation(
            batch["joints"][:, -config.joint_history :],
            batch["pad"][:, -config.joint_history :],
            tokens.nan_to_num(),
            unseen,
            self.words.to(batch["text"].device)[batch["text"]],
            None if bev is None else bev.nan_to_num(),
            None if bev is None else bev.isnan().any(-1).any(-1) | batch.get("drop_bev", torch.zeros(()).bool()),
        )

    def _drop(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sensor dropout, a shorter history and noise on the joints, so that a run without them is nothing new."""
        config, (size, history) = self.config, batch["pad"].shape
        device = batch["pad"].device
        blind = torch.rand(size, 1, device=device) < config.drop_state
        begin = torch.randint(0, history, (size, 1), device=device) * (
            torch.rand(size, 1, device=device) < config.drop_history
        )
        pad = batch["pad"] | (torch.arange(history, device=device) < begin)
        noise = torch.randn_like(batch["joints"]) * config.joint_noise_rad
        return batch | {
            "joints": batch["joints"] + noise,
            "pad": pad,
            "state_pad": pad | blind,
            "drop_bev": torch.rand(size, device=device) < config.drop_bev,
        }

    def _fit_baselines(self) -> dict[str, Any]:
        """`ridge` coefficients (strength chosen on validation episodes) and the mean episode for `phase`."""
        history = self.model.joint_history
        train, validation = self._sample(self.train_set), self._sample(self.validation_set)

        def arrays(batch: dict[str, Tensor]) -> tuple[Any, Any, Any]:
            truth = batch["commands_future"].double()
            return (
                batch["joints"][:, -history:].double().numpy(),
                truth.nan_to_num().numpy(),
                (~_no_command(batch)).double().numpy(),
            )

        joints, truth, weight = arrays(validation)
        fits = [baselines.fit_ridge(*arrays(train), strength) for strength in RIDGE_STRENGTHS]
        errors = [float((np.abs(baselines.ridge(joints, f) - truth).mean(-1) * weight).sum()) for f in fits]
        whole: dict[str, list[Any]] = {"joints": [], "commands": []}
        for number, episode in np.unique(self.train_set.index[:, :2], axis=0):
            source = self.train_set.sources[number]
            steps = slice(source.starts[episode], source.starts[episode + 1])
            known = np.isfinite(source["commands"][steps]).all(1)
            if known.sum() > 1:
                for name, values in whole.items():
                    values.append(np.asarray(source[name][steps], np.float64)[known])
        return {
            "ridge": fits[int(np.argmin(errors))],
            "phase_measured": baselines.fit_phase(whole["joints"]),
            "phase_commanded": baselines.fit_phase(whole["commands"]),
        }


def horizon_steps(horizon_s: float, rate_hz: float) -> int:
    """Whole steps of a chunk up to a horizon: 0.5 s at 15 Hz are 7."""
    return int(horizon_s * rate_hz + 1e-6)


def _no_command(batch: dict[str, Tensor]) -> Tensor:
    """(B, F) True where nothing was commanded: after the episode, or before its first command."""
    return batch["pad_future"] | batch["commands_future"].isnan().any(-1)


TASK = PolicyTask
