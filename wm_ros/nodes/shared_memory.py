"""Files of Fast DDS in /dev/shm: a killed process leaves its own behind; we remove what nobody uses any more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

SHM = Path("/dev/shm")
PROC = Path("/proc")
PREFIX = "fastrtps_"


def used_by(pid: int | str) -> set[str]:
    """Names of the Fast DDS segments and ports that a process has mapped or locked; empty where it is gone."""
    names: set[str] = set()
    folder = PROC / str(pid)
    with contextlib.suppress(OSError):
        lines = (folder / "maps").read_text(errors="replace").splitlines()
        names |= {line.rpartition("/")[2] for line in lines if f"{SHM}/{PREFIX}" in line}
    with contextlib.suppress(OSError):
        for link in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = link.readlink()
                if target.parent == SHM and target.name.startswith(PREFIX):
                    names.add(target.name)
    return {name.removesuffix(" (deleted)").removesuffix("_el") for name in names}


def appeared_since(epoch_s: float) -> set[str]:
    """Names of Fast DDS files made or written after `epoch_s` (seconds since the epoch), whoever made them."""
    names = set()
    for path in SHM.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime >= epoch_s:
                names.add(path.name.removesuffix("_el"))
    return names


def remove_unused(names: Iterable[str], but_for: int | None = None) -> list[str]:
    """Remove those of `names`, with their locks, that no living process uses. Returns what was removed.

    Args:
        but_for: a process that does not count: Fast DDS keeps what it has opened of others until its process ends.
    """
    left = set(names)
    if not left:
        return []
    for process in PROC.iterdir():
        if process.name.isdigit() and process.name != str(but_for):
            left -= used_by(process.name)
    removed = []
    for name in sorted(left):
        for file in (SHM / name, SHM / f"{name}_el", SHM / f"sem.{name}_mutex"):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                file.unlink()
                removed.append(file.name)
    return removed
