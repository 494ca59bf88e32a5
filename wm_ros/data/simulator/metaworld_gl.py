"""Off-screen drawing: which library MuJoCo takes, chosen before it is imported, which is when it looks."""

from __future__ import annotations

import ctypes
import os
import sys

from wm_ros.errors import UserError

REMEDY = "apt install libegl1 libgl1-mesa-dri (EGL, software or GPU), or libosmesa6 and set MUJOCO_GL=osmesa"
_LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}


def choose_gl() -> None:
    """Set MUJOCO_GL to what this machine has, EGL first, unless it is set. Other systems than Linux need none."""
    if os.environ.get("MUJOCO_GL") or not sys.platform.startswith("linux"):
        return
    for name, library in _LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        os.environ["MUJOCO_GL"] = name
        return
    # None of them: physics still works, and asking for a picture says what is missing.
    os.environ["MUJOCO_GL"] = "disable"


def no_drawing(error: Exception | None = None) -> UserError:
    """The line for the user where nothing can be drawn."""
    chosen = os.environ.get("MUJOCO_GL", "")
    what = f"MUJOCO_GL={chosen} gives '{error}'" if error else "neither EGL nor OSMesa is here"
    return UserError(f"MuJoCo cannot draw off-screen ({what}): {REMEDY}")
