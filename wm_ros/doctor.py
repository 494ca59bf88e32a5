"""`wm doctor`: is everything here that this stack needs, and what to do where it is not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator

import psutil
from rich.console import Console
from rich.table import Table

from wm_ros.capability import NAMES
from wm_ros.errors import BundleError, UserError
from wm_ros.paths import CONFIG, bundle_path

Check = tuple[str, bool, str]


def run_doctor() -> int:
    """Print one line per check; 0 if the stack can run here, 2 if something it needs is missing."""
    table = Table("check", "", "what was found, or the remedy")
    failed = False
    for name, good, text in _checks():
        failed |= not good
        table.add_row(name, "[green]ok[/]" if good else "[red]missing[/]", text)
    Console().print(table)
    return 2 if failed else 0


def _checks() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield "Python", sys.version_info >= (3, 10), f"{version}; 3.10 or newer is needed, 3.11 for the ROS wheels"
    has_rclpy = importlib.util.find_spec("rclpy") is not None
    distro = os.environ.get("ROS_DISTRO", "from wheels")
    yield "rclpy", has_rclpy, distro if has_rclpy else "run `make setup`, or source a ROS 2 installation"
    profile = CONFIG / "fastdds.xml"
    yield "Fast DDS profile", profile.is_file(), str(profile) if profile.is_file() else "install the package again"
    for module, need in (
        ("torch", ""),
        ("rosbags", ""),
        ("open3d", "wm simulate"),
        ("lightning", "wm train"),
        ("metaworld", "wm robot"),
    ):
        found = importlib.util.find_spec(module) is not None
        yield f"module {module}", found, "" if found else f"run `make setup`{need and f' (needed by {need})'}"
    yield _drawing()
    for name in NAMES:
        try:
            from wm_ros.capability import load

            load(name, bundle_path(f"{name}-lite"))
            yield f"bundle {name}-lite", True, "loads and matches its manifest"
        except (BundleError, UserError) as error:
            yield f"bundle {name}-lite", False, str(error)
    free_gib = psutil.virtual_memory().available / 2**30
    yield "memory", free_gib > 2, f"{free_gib:.1f} GiB free; 2 GiB are needed for all nodes"
    yield "cores", (os.cpu_count() or 1) >= 2, f"{os.cpu_count()}; two are needed for real time"
    shm_gib = shutil.disk_usage("/dev/shm").free / 2**30
    yield "shared memory", shm_gib > 0.25, f"{shm_gib:.1f} GiB free in /dev/shm; each node takes 32 MiB"


def _drawing() -> Check:
    """Whether MuJoCo can draw without a display."""
    from wm_ros.data.simulator.metaworld_arm import MetaWorldArm
    from wm_ros.data.simulator.metaworld_view import View

    try:
        View(MetaWorldArm("reach")).close()
    except UserError as error:
        return "off-screen drawing", False, f"{error} (needed by wm robot)"
    return "off-screen drawing", True, f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}"
