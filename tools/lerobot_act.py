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
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HOME", tempfile.mkdtemp(prefix="lerobot_act_"))  # LeRobot copies tables there

import numpy as np
import torch
from lerobot_act_data import Demonstrations, picture
from lerobot_act_model import (
    ACTION,
    IMAGES,
    STATE,
    TASK,
    ACTPolicy,
    Shape,
    Sizes,
    build,
    count,
    load,
    make_pre_post_processors,
    save,
    sized,
    untrained,
)
from tqdm import tqdm

from wm_ros.errors import UserError
from wm_ros.evaluation.lerobot_peer import Arrays, receive, send
from wm_ros.outputs import fresh_folder

NOTED_EVERY = 50  # steps between two points of the curve


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
    training.add_argument("--hold-out", type=int, default=0, metavar="N", help="every Nth episode is for judging")
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


# ------------------------------------------------------------------ training


def train(given: argparse.Namespace, sizes: Sizes) -> None:
    """Train for the time given and write the checkpoint."""
    torch.set_num_threads(given.threads)
    with fresh_folder(given.out) as folder:
        folder.mkdir(parents=True)
        data = Demonstrations(given.datasets)
        if given.parameters:
            sizes = sized(data.shape, given.parameters, sizes)
        torch.manual_seed(given.seed)
        policy = build(data.shape, sizes)
        total, runtime = count(policy)
        print(f"{len(data.state)} steps of {data.episode[-1] + 1} episodes; {total:,} parameters, {runtime:,} that run")
        print(sizes, flush=True)
        processors = make_pre_post_processors(policy.config, dataset_stats=data.stats)
        held = data.episode % given.hold_out == given.hold_out - 1 if given.hold_out else np.zeros(len(data.end), bool)
        curve = fit(policy, processors[0], data, np.flatnonzero(~held), given, sizes)
        policy.eval()
        notes = {
            "shape": asdict(data.shape),
            "sizes": asdict(sizes),
            "parameters": total,
            "runtime_parameters": runtime,
            "minutes": given.minutes,
            "batch": given.batch,
            "seed": given.seed,
            "schedule": given.schedule,
            "curve": curve,
        }
        if held.any():
            notes["held_out"] = judge(policy, processors, data, np.flatnonzero(held)[::8], sizes.chunk)
            print(f"held-out episodes: {notes['held_out']}")
        save(folder, policy, processors, notes)
    steps = curve[-1]["step"]
    print(f"{given.out}: {steps} steps, {steps / given.minutes:.0f} a minute, L1 {curve[-1]['l1']:.3f}")


def fit(
    policy: ACTPolicy,
    prepare: Any,
    data: Demonstrations,
    steps: np.ndarray[Any, Any],
    given: argparse.Namespace,
    sizes: Sizes,
) -> list[dict[str, float]]:
    """The loop of LeRobot's training script; gives the curve of the loss."""
    preset = policy.config.get_optimizer_preset()
    optimiser = preset.build(policy.get_optim_params())
    policy.train()
    curve: list[dict[str, float]] = []
    recent: list[float] = []
    budget_s, begin_s = given.minutes * 60, time.process_time()
    with tqdm(total=round(budget_s), desc="training", unit="s") as bar:
        for number, chosen in enumerate(_shuffled(steps, given.batch, given.seed), 1):
            loss, parts = policy.forward(prepare(data.batch(chosen, sizes.chunk)))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
            optimiser.step()
            optimiser.zero_grad()
            recent.append(parts["l1_loss"])
            spent_s = time.process_time() - begin_s
            if given.schedule == "cosine":
                for group in optimiser.param_groups:
                    group["lr"] = sizes.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, spent_s / budget_s)))
            bar.update(min(round(spent_s), bar.total) - bar.n)
            if number % NOTED_EVERY == 0 or spent_s >= budget_s:
                curve.append({"step": number, "cpu_s": round(spent_s, 1), "l1": round(float(np.mean(recent)), 4)})
                bar.set_postfix(step=number, l1=curve[-1]["l1"])
                recent.clear()
            if spent_s >= budget_s:
                return curve
    raise AssertionError("batches never end")


def _shuffled(steps: np.ndarray[Any, Any], size: int, seed: int) -> Iterator[np.ndarray[Any, Any]]:
    """Batches of whole epochs, the last incomplete one left out, for ever."""
    if len(steps) < size:
        raise UserError(f"{len(steps)} steps are fewer than --batch {size}")
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(steps)
        yield from order[: len(order) // size * size].reshape(-1, size)


@torch.inference_mode()
def judge(
    policy: ACTPolicy, processors: tuple[Any, Any], data: Demonstrations, steps: np.ndarray[Any, Any], chunk: int
) -> dict[str, float]:
    """Mean absolute error of each action on `steps`, padding left out, in its own unit."""
    errors, weights = [], []
    for part in np.array_split(steps, max(1, len(steps) // 64)):
        batch = data.batch(part, chunk)
        off = (processors[1](policy.predict_action_chunk(processors[0](batch))) - batch[ACTION]).abs()
        keep = ~batch["action_is_pad"][..., None]
        errors.append((off * keep).sum((0, 1)))
        weights.append(keep.sum())
    means = torch.stack(errors).sum(0) / torch.stack(weights).sum()
    return {name: round(float(mean), 5) for name, mean in zip(data.shape.action_names, means, strict=True)}


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
