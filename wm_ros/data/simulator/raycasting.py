"""Open3D where its one system library is missing.

Open3D's wheel links libusb (for depth cameras, which nothing here uses) and does not bring it. Where the system has
none, the copy in the wheel `libusb-package` is loaded first; it carries the same library name, so the loader takes it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wm_ros.errors import UserError


@cache
def load_open3d() -> Any:
    """The module `open3d`. Raises UserError naming what to install where it cannot be loaded."""
    try:
        ctypes.CDLL("libusb-1.0.so.0")
    except OSError:
        package = find_spec("libusb_package")
        if package is not None and package.origin is not None:
            ctypes.CDLL(str(Path(package.origin).parent / "libusb-1.0.so"), mode=ctypes.RTLD_GLOBAL)
    try:
        return import_module("open3d")
    except ImportError as error:
        raise UserError(f"Open3D cannot be loaded ({error}): `pip install open3d-cpu libusb-package`") from None
