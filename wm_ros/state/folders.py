"""Released models in local folders, as `save_pretrained` of `transformers` and `diffusers` writes them.

Nothing is downloaded, and only safetensors are read. Sizes are taken from a folder's `config.json` into our own config
before the model is built, so that a bundle needs the folder no more; weights are copied in afterwards.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from torch import nn

from wm_ros.bundle import StrictModel
from wm_ros.errors import UserError
from wm_ros.state.sd3_config import Architecture

Given = TypeVar("Given", bound=StrictModel)
REMEDY = "give a folder that `save_pretrained` wrote"


def read_settings(folder: Path, kind: Any) -> Architecture:
    """Settings of diffusers' class `kind` as `folder/config.json` has them; its defaults where the file is silent.

    Raises UserError: no such file, not JSON, or of another class.
    """
    found = read_json(folder / "config.json")
    if found.get("_class_name") != kind.__name__:
        raise UserError(f"'{folder}': _class_name = {found.get('_class_name')!r}, not {kind.__name__!r}; {REMEDY}")
    defaults = {name: p.default for name, p in inspect.signature(kind.__init__).parameters.items() if name != "self"}
    settings = {name: found.get(name, default) for name, default in defaults.items()}
    as_in_a_bundle: Architecture = json.loads(json.dumps(settings))
    return as_in_a_bundle


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError."""
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error.strerror}); {REMEDY}") from None
    except ValueError as error:
        raise UserError(f"'{file}' is not JSON ({error}); {REMEDY}") from None
    if not isinstance(found, dict):
        raise UserError(f"'{file}' holds no settings; {REMEDY}")
    return found


def take(given: Given, where: str, found: dict[str, Any], folder: Path) -> Given:
    """`given` with what a folder says. Raises UserError where a field was set to something else."""
    for name, value in found.items():
        if name in given.model_fields_set and getattr(given, name) != value:
            raise UserError(
                f"{where}.{name} = {getattr(given, name)!r}, but '{folder}' has {value!r}; "
                f"set it to {value!r}, leave it out, or give another folder"
            )
    return given.model_copy(update=found)


def load_into(module: nn.Module, folder: Path) -> None:
    """Weights of `folder` into `module`, an instance of the library's class that wrote it. Raises UserError."""
    kind: Any = type(module)
    if not folder.is_dir():  # the libraries would look for a model of that name elsewhere
        raise UserError(f"no folder '{folder}' with weights of {kind.__name__}; {REMEDY}")
    # by default a tensor that does not fit is an error of many lines, and one that is missing stays random
    options = {"local_files_only": True, "use_safetensors": True, "ignore_mismatched_sizes": True}
    try:
        pretrained, report = kind.from_pretrained(folder, output_loading_info=True, **options)
        unfit = sorted([*report["missing_keys"], *(mismatch[0] for mismatch in report["mismatched_keys"])])
        if unfit:
            raise UserError(f"'{folder}' has no fitting weights for {unfit[0]} and {len(unfit) - 1} more; {REMEDY}")
        module.load_state_dict(pretrained.float().state_dict(), assign=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"weights of {kind.__name__} at '{folder}': {reason:.200}; {REMEDY}") from None
