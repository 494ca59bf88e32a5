"""Write requirements.lock and requirements-ros.lock from what is installed in the running environment.

The ROS wheels come from a volunteer publisher: each is pinned with the SHA-256 of its wheel. `make lock` runs this.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

PIP = [sys.executable, "-m", "pip"]


def normal(name: str) -> str:
    """A package name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by(packages: Iterable[str]) -> set[str]:
    """Names of the Python packages inside ROS wheels: pip lists them, but no registry has them."""
    found = set()
    for package in packages:
        for file in distribution(package).files or ():
            if file.parent.suffix in (".dist-info", ".egg-info") and file.name in ("METADATA", "PKG-INFO"):
                found.add(normal(file.parent.stem.split("-")[0]))
    return found


def main() -> None:
    """Freeze, hash the ROS wheels, write both locks next to requirements.in."""
    frozen = subprocess.run(
        [*PIP, "freeze", "--all", "--exclude", "pip", "--exclude-editable"], capture_output=True, text=True, check=True
    ).stdout
    lines = sorted(line.split("+")[0] for line in frozen.splitlines() if "==" in line)
    ros = [line for line in lines if line.startswith("ros-")]
    brought = brought_by(name.partition("==")[0] for name in ros)
    Path("requirements.lock").write_text(
        "# Made by `make lock` from requirements.in; every version is exact.\n"
        + "".join(f"{x}\n" for x in lines if x not in ros and normal(x.partition("==")[0]) not in brought | {"wm-ros"})
    )
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "ros.txt"
        wanted.write_text("\n".join(ros))
        subprocess.run([*PIP, "download", "-q", "--no-deps", "-r", str(wanted), "-d", folder], check=True)
        hashes = {
            tuple(wheel.name.split("-")[:2]): hashlib.sha256(wheel.read_bytes()).hexdigest()
            for wheel in Path(folder).glob("*.whl")
        }
    with Path("requirements-ros.lock").open("w") as lock:
        lock.write(
            "# Made by `make lock`: the ROS 2 Jazzy wheels for Python 3.11 on Linux x86-64, with their hashes.\n"
        )
        for line in ros:
            name, _, version = line.partition("==")
            lock.write(f"{line} --hash=sha256:{hashes[name.replace('-', '_'), version]}\n")


if __name__ == "__main__":
    main()
