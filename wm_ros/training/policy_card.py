"""The card of a policy bundle: what it is, what it has seen, what it is worth."""

from __future__ import annotations

from wm_ros.bundle import BundleConfig
from wm_ros.nn.instruction import described
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.training.policy_config import PolicyTrainConfig


def policy_card(config: BundleConfig[PolicyModelConfig], trained: PolicyTrainConfig, windows: int) -> str:
    """Markdown text of CARD.md."""
    model, training = config.model, config.training
    validation = config.metrics.get("validation", {})
    reach_s = model.chunk_steps / model.rate_hz
    horizons = sorted({key.split("@")[1] for key in validation if "_mae@" in key}, key=lambda h: float(h[:-1]))
    horizons = [h for h in horizons if float(h[:-1]) <= reach_s + 1e-6]
    rows = "\n".join(
        f"| {h} | {validation[f'action_mae@{h}']:.5f} | {validation[f'hold_mae@{h}']:.5f} |" for h in horizons
    )
    size = model.transformer
    sources = ", ".join(f"`{source}`" for source in training.data)
    height, width = model.cameras.size
    sight = (
        f"images of {' and '.join(f'`{name}`' for name in model.cameras.names)} ({width} × {height})"
        if model.cameras.names
        else f"{len(model.token_history)} states of {model.state_tokens} × {model.state_width} numbers"
    )
    tokens = (
        "- It sees images itself, without state tokens."
        if model.cameras.names
        else f"""- State tokens: of the bundle whose `tokens_sha256` is `{model.state_tokens_sha256}`; with tokens of
  another one its chunks mean nothing."""
    )
    without = ", ".join(f"`{name}`" for name in model.does_without) or "nothing"
    return f"""# {config.name}

An action chunk of {model.chunk_steps} absolute joint positions at {model.rate_hz:g} Hz, from
{sight}, {model.joint_history}
measurement(s) of {len(model.joint_names)} joints and an instruction. ACT-JEPA (arXiv 2501.14622) at a small size:
{size.layers} encoder layers of width {size.width}, {size.decoder_layers} decoder layer; trained jointly with the
objective `{trained.objective.kind}` (weight {trained.objective.weight:g}), a part that is not in the bundle. It sees no
commands. Instructions are read by {described(model.language)}.

- Training data: {sources} ({windows} windows). Licences: {training.data_licence}.
- Licence of the weights: Apache-2.0.
- Command: `{training.command}` ({training.steps} steps, seed {training.seed}, torch {training.torch_version}).
{tokens}
- Does without: {without}.
- BEV tokens: {f"{model.bev_tokens} × {model.bev_width}" if model.bev_width else "not in the training data, ignored"}.

Held-out episodes of the training sources, mean absolute error in rad over all joints and all steps up to the horizon:

| horizon | this policy | hold |
|---|---|---|
{rows}

Limits: imitates recorded motions and has not been tried on a robot. Hand joints are 0 (closed) to 1 (open) and count
as rad in the figures, places of a hand in metres too. What it does not do without it waits for: its chunk is withheld
while that is missing or older than {model.stale_s:g} s.
"""
