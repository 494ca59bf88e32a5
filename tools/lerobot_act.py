"""LeRobot's ACT as a peer: train it on a LeRobot dataset for a while, and let others ask it for chunks.

    python3.11 -m venv /path/to/venv && /path/to/venv/bin/pip install lerobot==0.4.4
    export WM_LEROBOT=/path/to/venv/bin/python

    PYTHONPATH=. $WM_LEROBOT tools/lerobot_act.py train DATASET --out runs/act --minutes 25 --lr 3e-4
    python tools/lerobot_act_node.py runs/act            # answers the robot, in the environment of wm_ros

`lerobot_act_model.py` says what the policy is, and where it differs from LeRobot's defaults. Training is LeRobot's: its
loss, its optimiser preset (AdamW, gradients clipped at 10), its normalisation with ImageNet's statistics for pictures,
a constant rate unless --schedule says otherwise. Its rate of 1e-5 is for a backbone that knows ImageNet, and 100 000
steps. Videos are decoded once, before; `--minutes` are of processor time, from the first step on.

`serve` speaks on its standard streams, as `wm_ros/evaluation/lerobot_peer.py` says.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HOME", tempfile.mkdtemp(prefix="lerobot_act_"))  # LeRobot copies tables there

import numpy as np
import torch
from lerobot_act_data import picture
from lerobot_act_model import (
    IMAGES,
    STATE,
    TASK,
    ACTPolicy,
    Shape,
    Sizes,
    count,
    load,
    sized,
    untrained,
)
from lerobot_act_train import train

from wm_ros.errors import UserError
from wm_ros.evaluation.lerobot_peer import Arrays, receive, send


def main() -> None:
    """Train, serve or count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="on datasets of LeRobot, v3.0")
    training.add_argument("datasets", type=Path, nargs="+", metavar="DATASET")
    training.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    training.add_argument("--minutes", type=float, required=True, help="processor time of all threads")
    training.add_argument("--threads", type=int, default=1)
    training.add_argument("--batch", type=int, default=16)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--schedule", choices=("constant", "cosine"), default="constant")
    training.add_argument("--judge", type=Path, metavar="DATASET", help="unseen episodes whose actions it must foresee")
    serving = commands.add_parser("serve", help="answer on standard streams")
    serving.add_argument("folder", type=Path, nargs="?", help="what `train` wrote")
    serving.add_argument("--untrained", action="store_true", help="for timing: two cameras, 96 x 96, five tasks")
    for each in (training, serving):
        each.add_argument("--parameters", type=int, default=0, help="shrink ACT in proportion to so many that run")
        for size in fields(Sizes):
            choice = {"choices": ("frozen", "group")} if size.name == "norm" else {}
            flag = f"--{size.name.replace('_', '-')}"
            each.add_argument(flag, type=type(size.default), default=size.default, help="%(default)s", **choice)
    given = parser.parse_args()
    sizes = Sizes(**{size.name: getattr(given, size.name) for size in fields(Sizes)})
    try:
        if given.command == "train":
            train(given, sizes)
        elif given.untrained == (given.folder is not None):
            parser.error("serve: give the folder of a checkpoint, or --untrained")
        else:
            serve(given, sizes)
    except (UserError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


# ------------------------------------------------------------------ serving


def serve(given: argparse.Namespace, sizes: Sizes) -> None:
    """Answer until the input ends. What libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    try:
        if given.untrained:
            names = ("ee_x", "ee_y", "ee_z", "gripper")
            tasks = tuple(f"task {number}" for number in range(5))
            shape = Shape(("camera", "wrist_camera"), 96, 96, names, names, tasks, 80.0)
            sizes = sized(shape, given.parameters, sizes) if given.parameters else sizes
            policy, processors = untrained(shape, sizes)
        else:
            policy, processors, shape, sizes = load(given.folder)
    except (UserError, OSError, ValueError) as error:
        send(out, {"error": str(error)})
        sys.exit(2)
    total, runtime = count(policy)
    send(out, asdict(shape) | asdict(sizes) | {"parameters": total, "runtime_parameters": runtime})
    last: tuple[str, Arrays] | None = None
    while (message := receive(sys.stdin.buffer)) is not None:
        head, arrays = message
        try:
            if head.get("do") == "act":
                last = _checked(shape, head, arrays)
                send(out, {}, {"chunk": infer(policy, processors, shape, *last)})
            elif head.get("do") == "time":
                if last is None:
                    raise ValueError("ask for a chunk before its time")
                torch.set_num_threads(int(head["threads"]))
                begin = time.perf_counter()
                infer(policy, processors, shape, *last)
                seconds = time.perf_counter() - begin
                torch.set_num_threads(1)  # sums in another order would give another chunk
                send(out, {"seconds": seconds})
            else:
                raise ValueError(f"asked to do {json.dumps(head.get('do'))}; it can act and time")
        except (ValueError, KeyError) as error:
            send(out, {"error": str(error)})


def _checked(shape: Shape, head: dict[str, Any], arrays: Arrays) -> tuple[str, Arrays]:
    """The task and the input. Raises ValueError where it is not what the policy takes."""
    wanted = dict.fromkeys(shape.cameras, ("uint8", (shape.height, shape.width, 3)))
    wanted["state"] = ("float32", (len(shape.state_names),))
    for name, (dtype, size) in wanted.items():
        found = arrays.get(name)
        if found is None or found.dtype != dtype or found.shape != size:
            what = "is missing" if found is None else f"is {found.dtype} {found.shape}"
            raise ValueError(f"'{name}' {what}; it takes {dtype} {size}")
    task = str(head.get("task"))
    if task not in shape.tasks:
        raise ValueError(f"no task '{task}' was trained; these were: {'; '.join(shape.tasks)}")
    return task, arrays


@torch.inference_mode()
def infer(
    policy: ACTPolicy, processors: tuple[Any, Any], shape: Shape, task: str, arrays: Arrays
) -> np.ndarray[Any, Any]:
    """(F, A) float32 set points, from pictures in memory."""
    batch = {
        STATE: torch.from_numpy(arrays["state"].copy())[None],
        TASK: torch.eye(len(shape.tasks))[shape.tasks.index(task)][None],
        **{IMAGES + camera: picture(arrays[camera][None].copy()) for camera in shape.cameras},
    }
    chunk: torch.Tensor = processors[1](policy.predict_action_chunk(processors[0](batch)))[0]
    return chunk.float().numpy()


if __name__ == "__main__":
    main()
