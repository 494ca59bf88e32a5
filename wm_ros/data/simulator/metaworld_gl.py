"""Off-screen drawing: which library MuJoCo takes, chosen before it is imported, which is when it looks."""

from __future__ import annotations

import ctypes
import os
import sys

from wm_ros.errors import UserError

REMEDY = "apt install libegl1 libgl1-mesa-dri (EGL, software or GPU), or libosmesa6 and set MUJOCO_GL=osmesa"
_LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}


def choose_gl() -> None:
    """Set MUJOCO_GL to what this machine has, EGL first, unless it is set. Other systems than Linux need none.

    Raises:
        UserError: it is set to what is not here, without which MuJoCo cannot even be imported.
    """
    if not sys.platform.startswith("linux"):
        return
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if not chosen:
        # "disable" where there is none: physics still works, and asking for a picture says what is missing.
        os.environ["MUJOCO_GL"] = next((name for name in _LIBRARIES if _is_here(name)), "disable")
    elif chosen in _LIBRARIES and not _is_here(chosen):
        raise no_drawing()


def _is_here(name: str) -> bool:
    try:
        ctypes.CDLL(_LIBRARIES[name])
    except OSError:
        return False
    return True


def no_drawing(error: Exception | None = None) -> UserError:
    """The line for the user where nothing can be drawn."""
    chosen = os.environ.get("MUJOCO_GL", "")
    why = f": {error}" if error else ", and its library is not here" if chosen in _LIBRARIES else ""
    return UserError(f"MuJoCo cannot draw off-screen (MUJOCO_GL={chosen}{why}); {REMEDY}")
