"""A tiny policy with random weights and the samples to feed it, for the tests of `policy`."""

from pathlib import Path

import numpy as np
import torch

from wm_ros.bundle import BundleConfig, TrainingRecord, save_bundle
from wm_ros.policy import Policy, baselines
from wm_ros.policy.config import PolicyModelConfig, TransformerConfig
from wm_ros.policy.head import PolicyHead
from wm_ros.policy.past import place
from wm_ros.types import Instruction, Joints, StateTokens

NAMES = ("shoulder", "elbow", "wrist")
START = 1_000_000_000_000
CONFIG = PolicyModelConfig(
    joint_names=NAMES,
    chunk_steps=15,
    joint_history=4,
    token_history=(0, 2),
    state_width=8,
    bev_tokens=3,
    bev_width=5,
    transformer=TransformerConfig(width=16, heads=2, layers=1, feedforward=32, dropout=0.1),
)


def make_head(config: PolicyModelConfig = CONFIG, seed: int = 0) -> PolicyHead:
    """A head whose zeroed layers are random too, so that its output depends on all of its input."""
    torch.manual_seed(seed)
    head = PolicyHead(config)
    layers = (*(() if head.expert is not None else (head.action,)), *((head.inertia,) if head.past is None else ()))
    for layer in layers:
        torch.nn.init.normal_(layer.weight, std=0.3)
    return head.eval()


def make_policy(config: PolicyModelConfig = CONFIG) -> Policy:
    return Policy(config, make_head(config))


def at(step: float) -> int:
    """Stamp of a step at 15 Hz."""
    return START + round(step * 1e9 / 15)


def joints(step: float, values: tuple[float, ...] = (0.1, 0.2, 0.3), names: tuple[str, ...] = NAMES) -> Joints:
    return Joints(at(step), "", names, np.asarray(values))


def tokens(step: float, seed: int = 0) -> StateTokens:
    values = np.random.default_rng(seed).normal(size=(2, 8)).astype(np.float32)
    return StateTokens(at(step), "camera", values)


def instruction(text: str) -> Instruction:
    return Instruction(START, "", text)


def write_bundle(path: Path, config: PolicyModelConfig = CONFIG) -> Path:
    """A complete bundle: random weights, and baselines fitted on random motion."""
    rng = np.random.default_rng(0)
    size = len(config.joint_names)
    seen = rng.normal(size=(50, config.joint_history, size))
    chunks = rng.normal(size=(50, config.chunk_steps, size))
    mean_way = baselines.fit_phase([seen[:, -1]])
    if config.past is not None:
        mean_way = np.stack([mean_way] * config.past.kinds)
    fitted = {
        "phase_measured": mean_way,
        "phase_commanded": mean_way,
    }
    if config.past is None:
        fitted["ridge"] = baselines.fit_ridge(seen, chunks, np.ones((50, config.chunk_steps)), 1e-3)
    else:
        for kind in range(config.past.kinds):
            for hears, steps in ((False, 0), (True, config.past.commands)):
                inputs = size * (config.joint_history + steps)
                fitted[f"ridge.{place(kind, hears)}"] = np.zeros((1 + inputs, config.chunk_steps * size))
    tensors = {f"model.{name}": value for name, value in make_head(config).state_dict().items()}
    tensors |= {f"baseline.{name}": torch.from_numpy(value.astype(np.float32)) for name, value in fitted.items()}
    record = TrainingRecord(command="none", data=[], data_licence="Apache-2.0", seed=0, steps=0)
    bundle = BundleConfig[PolicyModelConfig](capability="policy", name="tiny", model=config, training=record)
    save_bundle(path, bundle, tensors, "# tiny\n")
    return path
