"""The card of a policy bundle: what it is, what it has seen, what it is worth."""

from __future__ import annotations

from wm_ros.bundle import BundleConfig
from wm_ros.nn.instruction import described
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.training.policy_config import PolicyTrainConfig

METHODS = ("action", "heard", "hold")


def policy_card(config: BundleConfig[PolicyModelConfig], trained: PolicyTrainConfig, windows: int) -> str:
    """Markdown text of CARD.md."""
    model, training = config.model, config.training
    validation = config.metrics.get("validation", {})
    reach_s = model.chunk_steps / model.rate_hz
    horizons = sorted({key.split("@")[1] for key in validation if "_mae@" in key}, key=lambda h: float(h[:-1]))
    horizons = [h for h in horizons if float(h[:-1]) <= reach_s + 1e-6]
    rows = "\n".join(
        "| "
        + " | ".join([h, *(f"{validation[f'{m}_mae@{h}']:.5f}" for m in METHODS if f"{m}_mae@{h}" in validation)])
        + " |"
        for h in horizons
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
    heard = (
        "It sees no commands."
        if model.past is None or not model.past.commands
        else f"Where they are known it hears the last {model.past.commands} commands."
    )
    without = ", ".join(f"`{name}`" for name in model.does_without) or "nothing"
    return f"""# {config.name}

An action chunk of {model.chunk_steps} absolute joint positions at {model.rate_hz:g} Hz, from
{sight}, {model.joint_history}
measurement(s) of {len(model.joint_names)} joints and an instruction. ACT-JEPA (arXiv 2501.14622) at a small size:
{size.layers} encoder layers of width {size.width}, {size.decoder_layers} decoder layer; trained jointly with the
objective `{trained.objective.kind}` (weight {trained.objective.weight:g}), a part that is not in the bundle. {heard}
Instructions are read by {described(model.language)}.

- Training data: {sources} ({windows} windows). Licences: {training.data_licence}.
- Licence of the weights: Apache-2.0.
- Command: `{training.command}` ({training.steps} steps, seed {training.seed}, torch {training.torch_version}).
{tokens}
- Does without: {without}.
- BEV tokens: {f"{model.bev_tokens} × {model.bev_width}" if model.bev_width else "not in the training data, ignored"}.

Held-out episodes of the training sources, mean absolute error in rad over all joints and all steps up to the horizon:

| horizon | this policy, without commands |{" with commands |" if "heard_mae@1s" in validation else ""} hold |
|---|---|---|{"---|" if "heard_mae@1s" in validation else ""}
{rows}
{_past(config, training.data)}
Limits: imitates recorded motions and has not been tried on a robot. Hand joints are 0 (closed) to 1 (open) and count
as rad in the figures, places of a hand in metres too. What it does not do without it waits for: its chunk is withheld
while that is missing or older than {model.stale_s:g} s.
"""


def _past(config: BundleConfig[PolicyModelConfig], sources: list[str]) -> str:
    """What is fitted on the past alone, and how far the rest is heeded beside it."""
    past, found = config.model.past, config.metrics.get("validation", {})
    if past is None:
        return ""
    heeds = "\n".join(
        f"| `{source}` | {'yes' if commands else 'no'} | {found[f'heed_{name}']:g} "
        f"| {found[f'unheeded_{name}']:.5f} | {found[f'heeded_{name}']:.5f} |"
        for number, source in enumerate(sources)
        for commands in (False, True)
        if f"heed_{(name := f'{number}_commands' if commands else f'{number}')}" in found
    )
    return f"""
{past.members} MLPs of width {past.width} for each source, from joints alone and, where commands are heard, from
those too, are fitted first (`wm_ros.policy.past`); what the transformer adds is heeded as far as held-out episodes gain
by it (mean absolute error in rad over the whole chunk):

| source | commands | heed | of the past alone | as heeded |
|---|---|---|---|---|
{heeds}
"""
