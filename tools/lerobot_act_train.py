"""Training of `lerobot_act.py`: LeRobot's loss, optimiser and normalisation, for a given time, then judged."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lerobot_act_data import Demonstrations
from lerobot_act_model import ACTION, STATE, ACTPolicy, Sizes, build, count, make_pre_post_processors, save, sized
from tqdm import tqdm

from wm_ros.errors import UserError
from wm_ros.outputs import fresh_folder

NOTED_EVERY = 50  # steps between two points of the curve
HORIZONS_S = (0.2, 0.5, 1.0)  # those of `wm eval`


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
        unseen = Demonstrations([given.judge]) if given.judge else None
        if unseen is not None and unseen.shape != data.shape:
            raise UserError(f"'{given.judge}' has other cameras, names, sizes, tasks or another rate than the datasets")
        curve = fit(policy, processors[0], data, given, sizes)
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
        if unseen is not None:
            notes["judged"] = judge(policy, processors, unseen, sizes.chunk)
            print("unseen episodes, mean absolute error:", json.dumps(notes["judged"]))
        save(folder, policy, processors, notes)
    steps = curve[-1]["step"]
    print(f"{given.out}: {steps} steps, {steps / given.minutes:.0f} a minute, L1 {curve[-1]['l1']:.3f}")


def fit(
    policy: ACTPolicy,
    prepare: Any,
    data: Demonstrations,
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
        for number, chosen in enumerate(_shuffled(np.arange(len(data.end)), given.batch, given.seed), 1):
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
def judge(policy: ACTPolicy, processors: tuple[Any, Any], data: Demonstrations, chunk: int) -> dict[str, list[float]]:
    """Mean absolute error over the actions and over the steps up to each of `HORIZONS_S`, in the actions' unit.

    As `wm eval` has it: the action at the step of the picture, with which ACT's chunk begins, does not count, nor do
    windows that reach beyond the episode. Beside it that of `hold`, which stays at the measured state.

    Returns:
        for "act@0.5s" and the like, the mean of each episode.
    """
    found: dict[str, list[float]] = {}
    for episode in range(data.episode[-1] + 1):
        steps = np.flatnonzero(data.episode == episode)
        batch = data.batch(steps, chunk)
        act = processors[1](policy.predict_action_chunk(processors[0](batch)))
        for name, guess in (("act", act), ("hold", batch[STATE][:, None])):
            off = (guess - batch[ACTION]).abs().mean(2)
            for horizon_s in HORIZONS_S:
                last = math.floor(horizon_s * data.shape.rate_hz + 1e-6)
                whole = ~batch["action_is_pad"][:, min(last, chunk - 1)]
                if last < chunk and whole.any():
                    found.setdefault(f"{name}@{horizon_s}s", []).append(float(off[whole, 1 : last + 1].mean()))
    return found
