"""Checkpoints in the layout of LeRobot's: a folder that is written from a bundle, read back, and never a pickle.

    config.json                             `type`, features, normalisation modes, chunk sizes, and our head's `model`
    model.safetensors                       the head's weights
    policy_preprocessor.json                steps before the policy; the normaliser's statistics in a file of their own
    policy_postprocessor.json               steps after it
    policy_…_step_<n>_….safetensors         statistics, `<key>.<name>`

What can be read: folders of our own head, `type: wm_act_jepa`. LeRobot's own architectures (act, diffusion, pi0,
smolvla, …) are refused: their weights belong to networks that this project does not have. ACT comes nearest, but reads
the feature map of a ResNet where our head reads state tokens, words and a history, so its weights have no place here.
The other way, LeRobot reads processors and statistics of such a folder; the head needs this package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wm_ros.bundle import PICKLE_SUFFIXES, load_bundle, load_weights
from wm_ros.errors import BundleError
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.head import PolicyHead
from wm_ros.policy.lerobot import LeRobotPolicy, Tokenizer
from wm_ros.policy.lerobot_config import TYPE, LeRobotConfig
from wm_ros.policy.normalise import EPS, Feature, Processor, Stats, check_shapes

WEIGHTS = "model.safetensors"
BEFORE, AFTER = "policy_preprocessor", "policy_postprocessor"
NORMALISER = {BEFORE: "normalizer_processor", AFTER: "unnormalizer_processor"}
# Steps of others that change nothing of what our policy reads: batches and devices are the caller's.
PASSED = {"to_batch_processor", "device_processor"}


def policy_of_bundle(bundle: Path, tokenizer: Tokenizer | None = None, **options: Any) -> LeRobotPolicy:
    """The head of a policy bundle behind LeRobot's interface.

    Args:
        options: of `LeRobotConfig.of`: camera, image_size, n_action_steps.

    Raises:
        BundleError: the bundle is missing, damaged, or of another capability.
    """
    config, tensors = load_bundle(bundle, "policy", PolicyModelConfig)
    head = PolicyHead(config.model)
    load_weights(head, tensors, "model", bundle)
    return LeRobotPolicy(LeRobotConfig.of(config.model, **options), head.eval(), tokenizer)


def make_processors(config: LeRobotConfig, stats: Mapping[str, Stats]) -> tuple[Processor, Processor]:
    """What stands before and after a policy. Raises UserError where statistics are missing or do not fit."""
    features = config.input_features | config.output_features
    check_shapes(features, stats)
    modes = config.normalization_mapping
    return Processor(features, modes, stats), Processor(config.output_features, modes, stats)


def save_checkpoint(folder: Path, policy: LeRobotPolicy, stats: Mapping[str, Stats] | None = None) -> None:
    """Write a checkpoint into `folder` (made if missing); see `wm_ros.outputs.fresh_folder` for not overwriting one."""
    folder.mkdir(parents=True, exist_ok=True)
    config = policy.config
    make_processors(config, stats or {})  # refuses what could not be read back
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json"), indent=4) + "\n")
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in policy.state_dict().items()}, folder / WEIGHTS
    )
    normalised = {BEFORE: config.input_features | config.output_features, AFTER: config.output_features}
    around: dict[str, list[dict[str, Any]]] = {
        BEFORE: [
            {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
            {"registry_name": "to_batch_processor", "config": {}},
        ],
        AFTER: [],
    }
    for name, steps in around.items():
        step = _normaliser(name, len(steps), config, normalised[name])
        steps.append(step)
        _write_stats(folder / step["state_file"], stats or {})
        (folder / f"{name}.json").write_text(json.dumps({"name": name, "steps": steps}, indent=2) + "\n")


def load_checkpoint(
    folder: Path, tokenizer: Tokenizer | None = None, device: str = "cpu"
) -> tuple[LeRobotPolicy, Processor, Processor]:
    """Read a checkpoint: the policy, and what stands before and after it.

    Args:
        tokenizer: of images; without one the policy is blind.

    Raises:
        BundleError: a file is missing, damaged or a pickle, the architecture or a processor's step is not one that can
            be read, weights do not fit; one line that names file and field.
    """
    config = _config(folder)
    weights = _tensors(folder, WEIGHTS)
    head = PolicyHead(config.model)
    load_weights(head, weights, "head", folder)
    policy = LeRobotPolicy(config, head, tokenizer).to(device).eval()
    return policy, _processor(folder, BEFORE, config), _processor(folder, AFTER, config)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder says that it is in LeRobot's layout, of whatever architecture; False where it cannot be read."""
    try:
        return "type" in _json(folder, "config.json")
    except BundleError:
        return False


def bare_head(folder: Path) -> tuple[PolicyModelConfig, PolicyHead]:
    """Configuration and head of a checkpoint, for those who give it radians and take radians from it.

    Raises:
        BundleError: as `load_checkpoint`, or the checkpoint normalises joints or actions around its head.
    """
    policy, _, _ = load_checkpoint(folder)
    for kind in ("STATE", "ACTION"):
        mode = policy.config.normalization_mapping.get(kind, "IDENTITY")
        if mode != "IDENTITY":
            raise BundleError(
                f"checkpoint '{folder}': normalization_mapping: {kind} is {mode}, but the node's head takes and gives "
                f"radians (IDENTITY); use it from Python, or train it with IDENTITY"
            )
    return policy.config.model, policy.head


def _config(folder: Path) -> LeRobotConfig:
    raw = _json(folder, "config.json")
    if raw.get("type") != TYPE:
        raise BundleError(
            f"checkpoint '{folder}': type {raw.get('type')!r} cannot be read, only '{TYPE}': the weights of other "
            f"architectures have no place in this head; run them with the lerobot package"
        )
    try:
        return LeRobotConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"checkpoint '{folder}': config.json: {where}: {first['msg']}; write it again") from None


def _normaliser(name: str, place: int, config: LeRobotConfig, features: Mapping[str, Feature]) -> dict[str, Any]:
    registry_name = NORMALISER[name]
    return {
        "registry_name": registry_name,
        "config": {
            "eps": EPS,
            "features": {key: feature.model_dump(mode="json") for key, feature in features.items()},
            "norm_map": dict(config.normalization_mapping),
        },
        "state_file": f"{name}_step_{place}_{registry_name}.safetensors",
    }


def _write_stats(file: Path, stats: Mapping[str, Stats]) -> None:
    flat = {f"{key}.{name}": value.contiguous() for key, values in stats.items() for name, value in values.items()}
    save_file(flat, file)


def _processor(folder: Path, name: str, config: LeRobotConfig) -> Processor:
    """The normaliser among the steps of a file; other steps must change nothing."""
    file = f"{name}.json"
    stats: dict[str, Stats] = {}
    for step in _json(folder, file).get("steps", []):
        kind, settings = step.get("registry_name"), step.get("config", {})
        if kind == NORMALISER[name]:
            if settings.get("norm_map", {}) != config.normalization_mapping:
                raise BundleError(f"checkpoint '{folder}': {file}: norm_map is not that of config.json; write it again")
            for key, value in _tensors(folder, str(step.get("state_file", ""))).items():
                feature, _, statistic = key.rpartition(".")
                stats.setdefault(feature, {})[statistic] = value
        elif kind not in PASSED and not (kind == "rename_observations_processor" and not settings.get("rename_map")):
            raise BundleError(f"checkpoint '{folder}': {file}: step {kind!r} is not known here; remove it")
    before, after = make_processors(config, stats)
    return before if name == BEFORE else after


def _json(folder: Path, name: str) -> dict[str, Any]:
    file = Path(folder) / name
    if not file.is_file():
        raise BundleError(f"checkpoint '{folder}': {name} is missing; give a folder in the layout of LeRobot")
    try:
        read = json.loads(file.read_text())
    except ValueError as error:
        raise BundleError(f"checkpoint '{folder}': {name} is not JSON ({error}); copy it again") from None
    if not isinstance(read, dict):
        raise BundleError(f"checkpoint '{folder}': {name} holds no fields; copy it again")
    return read


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a file in `folder` itself, wherever the name would lead."""
    file = Path(folder) / Path(name).name
    if not name or not file.is_file():
        pickles = sorted(f.name for f in Path(folder).iterdir() if f.suffix in PICKLE_SUFFIXES)
        if pickles:
            raise BundleError(
                f"checkpoint '{folder}': '{pickles[0]}' may hold a pickle and is refused; use safetensors"
            )
        raise BundleError(f"checkpoint '{folder}': {name or 'a state_file'} is missing; copy the whole folder again")
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except SafetensorError as error:
        raise BundleError(f"checkpoint '{folder}': {name} is damaged ({error}); copy the folder again") from None
    return tensors
