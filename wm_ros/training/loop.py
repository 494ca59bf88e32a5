"""One training loop for all four capabilities, on Lightning Fabric: devices, precision and processes are its matter.

wm train lidar --data 'sim:drive?seeds=0-399' --out runs/lidar
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric, seed_everything
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset

from wm_ros.capability import NAMES
from wm_ros.data.sources import episodes
from wm_ros.errors import UserError
from wm_ros.paths import CONFIG
from wm_ros.training.plots import plot_losses
from wm_ros.training.task import RunInfo, Task, TrainConfig, read_config, read_variant

console = Console(stderr=True)


def train(
    name: str,
    sources: list[str],
    out: Path,
    *,
    config_file: Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    start_from: Path | None = None,
    resume: bool = False,
    force: bool = False,
    device: str = "cpu",
    devices: int = 1,
    precision: str = "32-true",
) -> Path:
    """Train capability `name` on `sources` and write `out/bundle`; returns its path.

    `start_from`: a bundle whose weights are refined instead of starting at random.

    `out` also gets `log.jsonl` (one row per logged step), `loss.png`, and checkpoints that `resume` continues with
    the same data order, so that an interrupted run and a whole one have the same curve.

    Raises:
        UserError: unknown capability, config field or source; `out` not empty without `resume` or `force`.
    """
    task = _task(name, config_file or CONFIG / "train" / f"{name}.yaml", steps, out)
    _claim(out, resume, force)
    licences = sorted({e.licence for source in sources for e in episodes(source)[:1]} | _inherited(start_from))
    seed_everything(seed, verbose=False)
    fabric = Fabric(accelerator=device.split(":")[0], devices=devices, precision=precision)  # type: ignore[arg-type]
    fabric.launch()

    # Data first: preparing it fits the normalisation that the modules hold.
    with fabric.rank_zero_first():  # one process fills the cache, the others read it
        train_set, val_set = task.prepare(sources, seed)
    if start_from:
        task.start_from(start_from)
    config: TrainConfig = task.config
    adamw = torch.optim.AdamW(
        task.trainable(),
        lr=config.optimiser.lr,
        weight_decay=config.optimiser.weight_decay,
        betas=(0.9, 0.99),
        fused=True,
    )
    schedule = _schedule(adamw, config)
    task.modules.to(fabric.device)
    optimiser: Any = fabric.setup_optimizers(adamw)

    checkpoint = out / "checkpoint.safetensors"
    start, log = 0, {}
    if resume and checkpoint.is_file():
        start = _load_checkpoint(checkpoint, task, optimiser, schedule)
        _forget_rows_after(out / "log.jsonl", start)
    batches = _batches(train_set, config.batch_size, seed, start, fabric)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console, disable=not fabric.is_global_zero) as bar,
        (out / "log.jsonl").open("a") as log_file,
    ):
        row = bar.add_task(name, total=config.steps, completed=start)
        for step in range(start, config.steps):
            # One step: loss, gradients averaged over processes, clipped, applied.
            task.modules.train()
            with fabric.autocast():
                losses = task.loss(fabric.to_device(next(batches)), step)
            optimiser.zero_grad()
            fabric.backward(losses["loss"])
            _average_gradients(task, fabric)
            norm = torch.nn.utils.clip_grad_norm_(task.trainable(), config.optimiser.clip_norm)
            optimiser.step()
            schedule.step()
            task.after_step(step)

            values = {key: float(value.detach()) for key, value in losses.items()}
            last = step + 1 == config.steps
            if last or (step + 1) % config.validate_every == 0:
                task.modules.eval()
                with torch.no_grad():
                    val_batches = DataLoader(val_set, config.batch_size, shuffle=False)
                    log = task.validate(fabric.to_device(batch) for batch in val_batches)
                values |= {f"val_{key}": float(value) for key, value in log.items()}
            if fabric.is_global_zero and (last or step % 10 == 0 or len(values) > len(losses)):
                record = {"step": step + 1, "lr": float(schedule.get_last_lr()[0]), "grad_norm": float(norm), **values}
                log_file.write(json.dumps({key: round(value, 6) for key, value in record.items()}) + "\n")
                log_file.flush()
            if fabric.is_global_zero and (last or (step + 1) % config.checkpoint_every == 0):
                _save_checkpoint(checkpoint, task, optimiser, step + 1)
                plot_losses(out / "log.jsonl", out / "loss.png")
            bar.update(row, completed=step + 1, description=f"{name} loss {values['loss']:.4f}")

    if fabric.is_global_zero:
        task.modules.eval()
        task.modules.to("cpu")
        public = [_public(source) for source in sources]
        command = " ".join(
            [f"wm train {name}", *(f"--data '{source}'" for source in public), f"--steps {config.steps} --seed {seed}"]
            + ([f"--precision {precision}"] if precision != "32-true" else [])
            + ([f"--config {config_file.name}"] if config_file else [])
            + ([f"--start-from {start_from.name}"] if start_from else [])
        )
        task.export(out / "bundle", RunInfo(command, public, licences, seed, config.steps, log))
    fabric.barrier()
    return out / "bundle"


def _task(name: str, config_file: Path, steps: int | None, out: Path) -> Task:
    if name not in NAMES:
        raise UserError(f"unknown capability '{name}': choose one of {', '.join(NAMES)}")
    task_type: type[Task] = importlib.import_module(f"wm_ros.training.{name}").TASK
    variant = read_variant(config_file)
    if variant:
        if variant not in task_type.variants:
            known = ", ".join(task_type.variants) or "none"
            raise UserError(f"'{config_file}': variant = {variant!r}; {name} has {known}")
        task_type = importlib.import_module(f"wm_ros.training.{name}_{variant}").TASK
    config = read_config(config_file, task_type.config_type, **({"steps": steps} if steps else {}))
    return task_type(config, out)


def _claim(out: Path, resume: bool, force: bool) -> None:
    if out.exists() and any(out.iterdir()) and not (resume or force):
        raise UserError(f"'{out}' is not empty; continue it with --resume or overwrite it with --force")
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in ("checkpoint.safetensors", "optimiser.safetensors", "log.jsonl"):
            (out / name).unlink(missing_ok=True)


def _inherited(bundle: Path | None) -> set[str]:
    """Licences of what a bundle was trained on: its weights carry them into whatever is refined from it."""
    if bundle is None:
        return set()
    said = json.loads((bundle / "config.json").read_text()).get("training", {}).get("data_licence", "")
    return set(filter(None, said.split("; ")))


def _public(source: str) -> str:
    """A source without the folders of this machine: those are nobody else's business."""
    place, mark, options = source.partition("?")
    return (Path(place).name if "/" in place else place) + mark + options


def _forget_rows_after(log: Path, step: int) -> None:
    """Drop what was logged after the checkpoint: those steps are done again."""
    kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
    log.write_text("".join(f"{line}\n" for line in kept))


def _schedule(optimiser: torch.optim.Optimizer, config: TrainConfig) -> torch.optim.lr_scheduler.LRScheduler:
    if config.optimiser.schedule == "cosine":
        return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _cosine(step, config))
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.optimiser.lr, config.steps + 1, pct_start=0.4, div_factor=10, final_div_factor=1e4
    )


def _cosine(step: int, config: TrainConfig) -> float:
    warmup = max(1, round(config.optimiser.warmup_fraction * config.steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    return float(0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi))))


def _batches(data: Dataset[Any], size: int, seed: int, start: int, fabric: Fabric) -> Iterator[Any]:
    """Endless batches. The order of an epoch depends on the seed and the epoch alone, so a resumed run agrees.

    Where the data has `weights`, an epoch is as many draws by them instead of one pass.
    """
    count = len(data)  # type: ignore[arg-type]
    size, weights = min(size, count), getattr(data, "weights", None)
    per_epoch = max(1, count // (size * fabric.world_size))
    step = start
    while True:
        epoch, first = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        if weights is None:
            order = torch.randperm(count, generator=generator).tolist()
        else:
            order = torch.multinomial(torch.tensor(weights), count, replacement=True, generator=generator).tolist()
        for index in range(first, per_epoch):
            torch.manual_seed((seed << 32) + step * fabric.world_size + fabric.global_rank)
            at = (index * fabric.world_size + fabric.global_rank) * size
            yield torch.utils.data.default_collate([data[i] for i in order[at : at + size]])
            step += 1


def _average_gradients(task: Task, fabric: Fabric) -> None:
    if fabric.world_size > 1:
        for parameter in task.trainable():
            grad = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            parameter.grad = fabric.all_reduce(grad, reduce_op="mean")  # type: ignore[assignment]


def _save_checkpoint(path: Path, task: Task, optimiser: Any, step: int) -> None:
    """Safetensors only: weights in one file, AdamW moments by parameter index in another; each replaced whole."""
    moments = {
        f"{index}.{key}": torch.as_tensor(value).contiguous()
        for index, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }
    for target, tensors in (
        (path.with_name("optimiser.safetensors"), moments),
        (path, {k: v.detach().cpu().clone().contiguous() for k, v in task.modules.state_dict().items()}),
    ):
        save_file(tensors, target.with_suffix(".part"), metadata={"step": str(step)})
        target.with_suffix(".part").replace(target)


def _load_checkpoint(path: Path, task: Task, optimiser: Any, schedule: Any) -> int:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    task.modules.load_state_dict(load_file(path))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(path.with_name("optimiser.safetensors")).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that optimiser steps are missing: they were taken before
        for _ in range(step):
            schedule.step()
    return step


if __name__ == "__main__":
    from wm_ros.cli import app

    sys.argv[1:1] = ["train"]
    app()
