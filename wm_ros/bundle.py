"""A bundle: `config.json` (typed, versioned), `model.safetensors`, `CARD.md`; complete, verified, never a pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from wm_ros.errors import BundleError

SCHEMA = 1
PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"}


class StrictModel(BaseModel):
    """A typed config that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ModelConfig = TypeVar("ModelConfig", bound=StrictModel)


class TrainingRecord(StrictModel):
    """Where the weights come from."""

    command: str
    data: list[str]
    data_licence: str
    seed: int
    steps: int
    torch_version: str = torch.__version__


class BundleConfig(StrictModel, Generic[ModelConfig]):
    """`config.json`. `model` holds architecture, preprocessing and units; normalisation and baselines are tensors.

    Attributes:
        tokens_sha256: of the weights that make the tokens which other bundles read; the rest may be trained on without
            those having to be trained again.
    """

    schema_version: Literal[1] = 1
    capability: Literal["lidar", "state", "future", "policy"]
    name: str
    model: ModelConfig
    training: TrainingRecord
    metrics: dict[str, Any] = {}
    weights_sha256: str = ""
    tokens_sha256: str = ""
    tensors: dict[str, list[int]] = {}


def checksum(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokens_checksum(bundle: Path) -> str:
    """What tells the tokens of a state bundle from those of others: `tokens_sha256`, or that of all its weights."""
    config = json.loads((bundle / "config.json").read_text())
    return str(config.get("tokens_sha256") or config.get("weights_sha256", ""))


def save_bundle(path: Path, config: BundleConfig[Any], tensors: dict[str, torch.Tensor], card: str) -> None:
    """Write a bundle to `path` (made if missing); the manifest of `config` is filled in here.

    Args:
        tensors: every weight, normalisation constant and fitted baseline, by dotted name
            (`model.…` for weights, `norm.…`, `baseline.…`).
    """
    path.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    save_file(tensors, path / "model.safetensors")
    filled = config.model_copy(
        update={
            "weights_sha256": hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest(),
            "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        }
    )
    (path / "config.json").write_text(json.dumps(filled.model_dump(mode="json"), indent=1) + "\n")
    (path / "CARD.md").write_text(card)


def load_bundle(
    path: Path, capability: str, model_config: type[ModelConfig]
) -> tuple[BundleConfig[ModelConfig], dict[str, torch.Tensor]]:
    """Read and verify a bundle.

    Returns:
        its config and its tensors by dotted name.

    Raises:
        BundleError: missing or damaged file, pickled weights, another capability or schema, an unknown key,
            a checksum or a shape that differs; the message names the file or field and the remedy.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise BundleError(f"no bundle at '{path}': config.json is missing; give a folder that `wm train` wrote")
    if not (path / "model.safetensors").is_file():
        pickles = sorted(f.name for f in path.iterdir() if f.suffix in PICKLE_SUFFIXES)
        if pickles:
            raise BundleError(f"bundle '{path}': '{pickles[0]}' may hold a pickle and is refused; use safetensors")
        raise BundleError(f"bundle '{path}': model.safetensors is missing; copy the whole folder again")
    try:
        raw = json.loads((path / "config.json").read_text())
    except ValueError as error:
        raise BundleError(f"bundle '{path}': config.json is not JSON ({error}); copy the folder again") from None
    for key, expected in (("schema_version", SCHEMA), ("capability", capability)):
        found = raw.get(key) if isinstance(raw, dict) else None
        if found != expected:
            raise BundleError(f"bundle '{path}': {key} is {found!r}, expected {expected!r}; choose a fitting bundle")
    try:
        config = BundleConfig[model_config].model_validate(raw)  # type: ignore[valid-type]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"bundle '{path}': {where} = {first.get('input')!r:.60}: {first['msg']}; train it again or mend config.json"
        ) from None
    blob = (path / "model.safetensors").read_bytes()
    if hashlib.sha256(blob).hexdigest() != config.weights_sha256:
        raise BundleError(f"bundle '{path}': model.safetensors does not match weights_sha256; copy the folder again")
    try:
        tensors = load_file(path / "model.safetensors")
    except SafetensorError as error:
        raise BundleError(f"bundle '{path}': model.safetensors is damaged ({error}); copy the folder again") from None
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if shapes != config.tensors:
        name = sorted(k for k in shapes.keys() | config.tensors.keys() if shapes.get(k) != config.tensors.get(k))[0]
        raise BundleError(
            f"bundle '{path}': tensor {name} has shape {shapes.get(name)}, the manifest says {config.tensors.get(name)}"
        )
    return config, tensors


def refuse_other_tokens(state: Path, reader: Path) -> None:
    """State tokens mean something only to those trained on them.

    Args:
        state: the state bundle whose encoder makes the tokens. reader: a bundle that reads them.

    Raises:
        BundleError: `reader` was trained on the tokens of another state bundle.
    """
    made_by = tokens_checksum(state)
    trained_on = json.loads((reader / "config.json").read_text()).get("model", {}).get("state_tokens_sha256", "")
    if trained_on and trained_on != made_by:
        raise BundleError(
            f"bundle '{reader}': state_tokens_sha256 is {trained_on[:12]}…, but the state bundle '{state}' is "
            f"{made_by[:12]}…; train it again on these tokens, or choose the state bundle that it belongs to"
        )


def select(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose name starts with `prefix.`, without it: a state dict."""
    return {name.removeprefix(prefix + "."): value for name, value in tensors.items() if name.startswith(prefix + ".")}


def half_precision(prefix: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's state as `prefix.*`, floats at half precision to keep a bundle small, integers as they are."""
    state = module.state_dict().items()
    return {f"{prefix}.{name}": value.half() if value.is_floating_point() else value for name, value in state}


def load_weights(module: torch.nn.Module, tensors: dict[str, torch.Tensor], prefix: str, path: Path) -> None:
    """Load `prefix.*` into `module`. Raises BundleError naming the first tensor that is missing, extra or misshapen."""
    found, wanted = select(tensors, prefix), module.state_dict()
    for name in sorted(found.keys() | wanted.keys()):
        have = list(found[name].shape) if name in found else None
        want = list(wanted[name].shape) if name in wanted else None
        if have != want:
            raise BundleError(f"bundle '{path}': {prefix}.{name} has shape {have}, the model config asks for {want}")
    module.load_state_dict(found)
