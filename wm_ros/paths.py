"""Where the files that ship with the package are: in a checkout, or in the share folder of an installation."""

from __future__ import annotations

import sys
from pathlib import Path

from wm_ros.errors import UserError


def _share() -> Path:
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "package.xml").is_file():
        return checkout
    for prefix in (*Path(__file__).resolve().parents, Path(sys.prefix)):
        if (prefix / "share" / "wm_ros" / "package.xml").is_file():
            return prefix / "share" / "wm_ros"
    return checkout


SHARE = _share()
CONFIG = SHARE / "config"
MODELS = SHARE / "models"
SAMPLES = SHARE / "samples"


def bundle_path(name_or_path: str) -> Path:
    """A bundle folder as given, or the shipped one of that name. Raises UserError naming what there is."""
    path = Path(name_or_path).expanduser()
    for candidate in (path, MODELS / name_or_path):
        if (candidate / "config.json").is_file():
            return candidate
    shipped = ", ".join(sorted(p.name for p in MODELS.glob("*") if p.is_dir())) or "none"
    raise UserError(f"no bundle '{name_or_path}': give a folder that `wm train` wrote, or a shipped one ({shipped})")
