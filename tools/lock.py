"""Write requirements.lock and requirements-ros.lock from what is installed in the running environment.

The ROS wheels come from a volunteer publisher: each is pinned with the SHA-256 of its wheel. `make lock` runs this.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

PIP = [sys.executable, "-m", "pip"]


def main() -> None:
    """Freeze, hash the ROS wheels, write both locks next to requirements.in."""
    frozen = subprocess.run([*PIP, "freeze", "--exclude-editable"], capture_output=True, text=True, check=True).stdout
    lines = sorted(line.split("+")[0] for line in frozen.splitlines() if "==" in line)
    ros = [line for line in lines if line.startswith("ros-")]
    Path("requirements.lock").write_text(
        "# Made by `make lock` from requirements.in; every version is exact.\n"
        + "".join(f"{line}\n" for line in lines if line not in ros and not line.startswith("wm-ros"))
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
