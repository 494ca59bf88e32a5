"""Training of `policy`: actions and latent states to come, jointly, as ACT-JEPA does (arXiv 2501.14622)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wm_ros.bundle import BundleConfig, save_bundle
from wm_ros.errors import UserError
from wm_ros.nn.instruction import noted, open_words
from wm_ros.policy import baselines
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.head import PolicyHead
from wm_ros.policy.image_encoder import ImageEncoder
from wm_ros.policy.objectives import LatentObjective, Objective, make_objective
from wm_ros.training import policy_batches as batches_of
from wm_ros.training.policy_batches import no_command, policy_windows, sampled
from wm_ros.training.policy_card import policy_card
from wm_ros.training.policy_config import PolicyTrainConfig
from wm_ros.training.policy_past import calibrate, fit_pasts
from wm_ros.training.state_tokens import state_tokens
from wm_ros.training.task import RunInfo, Task
from wm_ros.training.windows import Aligned, align, split_episodes

HORIZONS_S = (0.2, 0.5, 1.0)
RIDGE_STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class PolicyTask(Task):
    """Head and objective are trained together; only the head is exported."""

    name: ClassVar[str] = "policy"
    config_type = PolicyTrainConfig

    config: PolicyTrainConfig
    fitted: dict[str, Any]

    def prepare(self, sources: list[str], seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
        """Align the sources, compute their state tokens, fit normalisation and baselines, build the modules."""
        config, self.state_sha256 = self.config, ""
        aligned = [self._align(source) for source in sources]
        if not config.cameras.names:
            aligned, self.state_sha256 = state_tokens(aligned, config.state_bundle, config.state_every)
        splits = [split_episodes(len(a.episodes), config.validation, seed) for a in aligned]
        self.train_set = policy_windows([(a, s[0]) for a, s in zip(aligned, splits, strict=True)], config)
        validation = [(a, s[1]) for a, s in zip(aligned, splits, strict=True)]
        self.validation_set = policy_windows(validation, config, stride=config.state_every)
        if not config.cameras.names:
            batches_of.balance(self.train_set, config.state_every)
        self.model = self._model_config(aligned)
        self.words = open_words(self.model.language)(self.train_set.texts)
        head, fit = PolicyHead(self.model), sampled(self.train_set)
        batches_of.normalise(head, fit)
        self.fitted = self._fit_baselines(fit)
        if head.past is not None and self.model.past is not None:
            every = batches_of.past_windows(self.train_set)
            ridge = fit_pasts(head.past, every, self.model.joint_history, self.model.past, seed)
            self.fitted |= {f"ridge.{name}": coefficients.numpy() for name, coefficients in ridge.items()}
        for part in head.modules():
            if isinstance(part, ImageEncoder):
                part.arithmetic = getattr(torch, config.arithmetic)
        # The target starts as a copy, so the normalisation comes first.
        chosen = config.objective
        objective = make_objective(chosen.kind, self.model, head.context, chosen.horizon_steps, chosen.later)
        self.modules = torch.nn.ModuleDict({"head": head} | ({} if objective is None else {"objective": objective}))
        if chosen.end_weight:
            self.modules["end"] = torch.nn.Linear(config.transformer.width, len(config.joint_names))
        return self.train_set, self.validation_set

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Loss on actions, L1, and that of the objective; padded steps are left out."""
        head, config = self._head, self.config
        seen = batches_of.observation(
            batches_of.disturbed(batch, config.dropout, config.cameras.names), self.model, self.words
        )
        # 1. What the head would do, against what was done.
        context, pad = head.context(seen)
        commands = batch["commands_future"].nan_to_num()
        losses = {"action": head.action_loss(seen, context, pad, commands, no_command(batch), config.balanced)}
        losses["loss"] = losses["action"]
        # 2. What comes of it, in latent space.
        if (objective := self._objective) is not None:
            later = self.train_set.later.tolist()
            future = batches_of.future(batch, head, self.words, tuple(later))
            losses[config.objective.kind] = objective(context, pad, seen, future)
            losses["loss"] = losses["action"] + config.objective.weight * losses[config.objective.kind]
        # 3. Where it ends.
        if config.objective.end_weight:
            norm = head.context.norm
            end = (batch["joints_end"] - norm.joint_mean) / norm.joint_std
            losses["end"] = (self.modules["end"](context[:, 0]) - end).abs().mean()
            losses["loss"] = losses["loss"] + config.objective.end_weight * losses["end"]
        return losses

    def after_step(self, step: int) -> None:
        """The target encoder follows."""
        if self._objective is not None:
            self._objective.follow(self._head.context, (step + 1) / self.config.steps)

    def validate(self, batches: Iterable[dict[str, Tensor]]) -> dict[str, float]:
        """Mean absolute error of the chunk up to each horizon, without commands and, where it hears them, with; that
        of holding still; and the spread of the targets."""
        sums: dict[str, float] = {}
        spread, count = 0.0, 0
        total = dict.fromkeys(HORIZONS_S, 0.0)
        for batch in batches:
            seen = batches_of.observation(batch, self.model, self.words)
            chunks = {"action": self._head(seen._replace(commands=None, commands_pad=None))}
            if seen.commands is not None:
                chunks["heard"] = self._head(seen)
            truth, padded = batch["commands_future"].nan_to_num(), no_command(batch)
            for horizon in HORIZONS_S:
                steps = horizon_steps(horizon, self.model.rate_hz)
                keep = (~padded[:, :steps])[..., None]
                total[horizon] += float(keep.sum())
                for method, guess in (*chunks.items(), ("hold", batch["joints"][:, -1:])):
                    error = ((guess - truth).abs()[:, :steps] * keep).mean(-1).sum()
                    key = f"{method}_mae@{horizon:g}s"
                    sums[key] = sums.get(key, 0.0) + float(error)
            if isinstance(self._objective, LatentObjective):
                now = batch["joints"][:, -1]
                latent = self._objective.targets(seen.text, batch["joints_future"], now, batch["pad_future"])
                spread, count = spread + float(latent.flatten(0, 1).std(0).mean()), count + 1
        found = {key: value / max(total[float(key.split("@")[1][:-1])], 1.0) for key, value in sums.items()}
        return found | ({"latent_std": spread / count} if count else {})

    def export(self, out: Path, run: RunInfo) -> None:
        """Write head and baselines to a bundle; the objective stays behind."""
        log = run.log
        self.modules.eval()
        if self._head.past is not None:
            held_out = batches_of.sampled(self.validation_set)
            seen = batches_of.observation(held_out, self.model, self.words)
            facts = calibrate(self._head, seen, held_out["commands_future"].nan_to_num(), no_command(held_out))
            with torch.no_grad():
                log = log | self.validate([held_out]) | facts
        config = BundleConfig[PolicyModelConfig](
            capability="policy",
            name=self.config.name,
            model=self.model,
            training=run.record(),
            metrics={"validation": log},
        )
        precision = small if self._head.past is not None else lambda value: value
        tensors = {f"model.{name}": value for name, value in self._head.state_dict().items()}
        tensors |= {
            f"baseline.{name}": torch.from_numpy(value.astype(np.float32)) for name, value in self.fitted.items()
        }
        tensors = {name: precision(value) for name, value in tensors.items()}
        save_bundle(out, config, tensors, policy_card(config, self.config, len(self.train_set)))

    # ------------------------------------------------------------------------- parts

    @property
    def _head(self) -> PolicyHead:
        head = self.modules["head"]
        assert isinstance(head, PolicyHead)
        return head

    @property
    def _objective(self) -> Objective | None:
        objective = dict(self.modules.items()).get("objective")
        assert objective is None or isinstance(objective, Objective)
        return objective

    def _align(self, source: str) -> Aligned:
        config, cache = self.config, self.work_dir / "cache"
        if not config.cameras.names:
            return align(source, config.joint_names, cache, rate_hz=config.rate_hz)
        height, width = config.cameras.size
        aligned = align(source, config.joint_names, cache, rate_hz=config.rate_hz, width=width, height=height)
        for camera in config.cameras.names:
            if batches_of.FIELDS[camera] not in aligned.arrays:
                raise UserError(f"source '{source}' has no '{camera}'; train with cameras.names that it has")
        return aligned

    def _model_config(self, aligned: list[Aligned]) -> PolicyModelConfig:
        config = self.config
        bev = aligned[0]["bev"].shape[1:] if "bev" in self.train_set.past else (0, 0)
        state = aligned[0]["tokens"].shape[1:] if config.token_history else (1, 1)
        return PolicyModelConfig(
            rate_hz=aligned[0].rate_hz,
            state_tokens=state[0],
            state_width=state[1],
            bev_tokens=bev[0],
            bev_width=bev[1],
            state_tokens_sha256=self.state_sha256,
            past=None if config.past is None else config.past.model_copy(update={"kinds": len(aligned)}),
            language=noted(config.language),
            **{name: getattr(config, name) for name in SAME},
        )

    def _fit_baselines(self, train: dict[str, Tensor]) -> dict[str, Any]:
        """`ridge` coefficients (strength chosen on validation episodes) and the mean episode for `phase`.

        Where there are paths of the past, each has a ridge of its own, and each kind a mean episode.
        """
        alike = self.model.past is None
        return ({"ridge": self._ridge(train)} if alike else {}) | self._mean_episodes(alike)

    def _ridge(self, train: dict[str, Tensor]) -> Any:
        history, validation = self.model.joint_history, sampled(self.validation_set)

        def arrays(batch: dict[str, Tensor]) -> tuple[Any, Any, Any]:
            truth = batch["commands_future"].double()
            return (
                batch["joints"][:, -history:].double().numpy(),
                truth.nan_to_num().numpy(),
                (~no_command(batch)).double().numpy(),
            )

        joints, truth, weight = arrays(validation)
        fits = [baselines.fit_ridge(*arrays(train), strength) for strength in RIDGE_STRENGTHS]
        errors = [float((np.abs(baselines.ridge(joints, f) - truth).mean(-1) * weight).sum()) for f in fits]
        return fits[int(np.argmin(errors))]

    def _mean_episodes(self, alike: bool) -> dict[str, Any]:
        """(kinds, PHASES, J) of joints and of commands, (PHASES, J) where all sources are `alike`."""
        kinds = 1 if alike else len(self.train_set.sources)
        whole: dict[str, list[list[Any]]] = {name: [[] for _ in range(kinds)] for name in ("joints", "commands")}
        for number, episode in np.unique(self.train_set.index[:, :2], axis=0):
            source = self.train_set.sources[number]
            steps = slice(source.starts[episode], source.starts[episode + 1])
            known = np.isfinite(source["commands"][steps]).all(1)
            if known.sum() > 1:
                for name, values in whole.items():
                    values[0 if alike else number].append(np.asarray(source[name][steps], np.float64)[known])
        return {
            name: means[0] if alike else np.stack(means)
            for name, field in (("phase_measured", "joints"), ("phase_commanded", "commands"))
            for means in [[baselines.fit_phase(episodes) for episodes in whole[field]]]
        }


SAME = (
    *("joint_names", "chunk_steps", "joint_history", "token_history", "cameras"),
    *("decoder", "flow_steps", "relative", "does_without", "stale_s", "transformer"),
)
"""Fields that the model's configuration takes over from that of the training."""


def small(value: Tensor) -> Tensor:
    """Weights in half precision, which is more than they are known by; constants and biases as they are."""
    return value.half() if value.dim() > 1 and value.is_floating_point() else value


def horizon_steps(horizon_s: float, rate_hz: float) -> int:
    """Whole steps of a chunk up to a horizon: 0.5 s at 15 Hz are 7."""
    return int(horizon_s * rate_hz + 1e-6)


TASK = PolicyTask
