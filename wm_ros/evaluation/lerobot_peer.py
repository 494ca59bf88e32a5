"""LeRobot's ACT as a peer: a process of its own, since LeRobot brings another torch, and what is said to it.

A message is a line of JSON and the bytes of its arrays: {"arrays": [[name, dtype, shape], …], …}\\n, C order, little
endian. Both sides use `send` and `receive`; this file needs nothing but NumPy, so that the other side can import it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.errors import UserError

VARIABLE = "WM_LEROBOT"
ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "lerobot_act.py"
DTYPES = ("uint8", "float32")
MAX_BYTES = 2**28
MAX_LINE = 2**16

Arrays = dict[str, NDArray[Any]]


def send(stream: IO[bytes], head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
    """Write a message. `arrays`: uint8 or float32."""
    found = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    shapes = [[name, array.dtype.name, array.shape] for name, array in found.items()]
    stream.write(json.dumps({**head, "arrays": shapes}).encode() + b"\n")
    for array in found.values():
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], Arrays] | None:
    """The next message, None where the stream has ended. Raises ValueError where it is none, or cut off."""
    line = stream.readline(MAX_LINE)
    if not line:
        return None
    head = json.loads(line)
    if not isinstance(head, dict) or not isinstance(head.get("arrays"), list):
        raise ValueError("a message begins with a JSON object that lists its arrays")
    arrays: Arrays = {}
    for name, dtype, shape in head.pop("arrays"):
        size = math.prod(shape) * np.dtype(dtype).itemsize if dtype in DTYPES else -1
        if not 0 <= size <= MAX_BYTES or min(shape, default=0) < 0:
            raise ValueError(f"array '{name}' of {dtype} {shape}: uint8 or float32, {MAX_BYTES} bytes at most")
        data = stream.read(size)
        if len(data) < size:
            raise ValueError(f"array '{name}': {len(data)} of {size} bytes")
        arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    return head, arrays


class LerobotPeer:
    """`tools/lerobot_act.py serve`, run by the Python that the variable WM_LEROBOT names; a context manager.

    Args:
        arguments: of `serve`: a folder that `train` wrote, or --untrained with sizes.

    Attributes:
        about: what the server says of its policy: cameras, state_names, action_names, tasks, chunk, rate_hz,
            height, width, parameters (of all), runtime_parameters (without those that training alone uses).

    Raises:
        UserError: WM_LEROBOT is not set, this is no checkout, or the server refuses; what it printed says why.
    """

    def __init__(self, *arguments: str) -> None:
        python = os.environ.get(VARIABLE, "")
        if not python:
            raise UserError(
                f"set {VARIABLE} to the Python of a virtual environment with lerobot ({TOOL.name} says how)"
            )
        if not TOOL.is_file():
            raise UserError(f"'{TOOL}' is missing: LeRobot's ACT is compared with from a checkout")
        crossing = ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH")  # the ROS wheels set them for this Python
        environment = {k: v for k, v in os.environ.items() if k not in crossing} | {"PYTHONPATH": str(ROOT)}
        command = [python, str(TOOL), "serve", *arguments]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
            )
        except OSError as error:
            raise UserError(f"{VARIABLE}: '{python}' does not run: {error.strerror}") from None
        self.about, _ = self._answer()

    def __enter__(self) -> LerobotPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def act(self, images: Mapping[str, NDArray[np.uint8]], state: NDArray[Any], task: str) -> NDArray[np.float32]:
        """Absolute set points (F, A), in `about["action_names"]` order.

        Args:
            images: (H, W, 3) by camera. state: (S,) in `about["state_names"]` order. task: its words.

        Raises:
            UserError: something is missing or of another shape, or the task is not one that was trained.
        """
        _, arrays = self._ask({"do": "act", "task": task}, {**images, "state": np.asarray(state, np.float32)})
        return arrays["chunk"]

    def time_s(self, threads: int) -> float:
        """Seconds of one inference on the last input, measured there: from pictures in memory to the chunk."""
        return float(self._ask({"do": "time", "threads": threads}, {})[0]["seconds"])

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, head: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; `_answer` says so
            send(self._process.stdin, head, arrays)
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], Arrays]:
        assert self._process.stdout is not None
        try:
            found = receive(self._process.stdout)
        except ValueError as error:
            raise UserError(f"LeRobot's ACT answers what is no message: {error}") from None
        if found is None:
            raise UserError(f"LeRobot's ACT ended with exit code {self._process.wait()}; what it printed says why")
        if "error" in found[0]:
            raise UserError(f"LeRobot's ACT refuses: {found[0]['error']}")
        return found
