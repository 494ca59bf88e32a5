"""`wm chunking`: what a late policy does to the motion of a robot; `wm planning`: whether `future` tells a true chunk
from wrong ones; `wm checkpoint`: a bundle in LeRobot's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from wm_ros.cli_recordings import ForceOpt
from wm_ros.cli_training import StateOpt
from wm_ros.outputs import fresh_folder

console = Console()


def chunking(
    sources: Annotated[
        list[str], typer.Argument(help="Recordings with images, joints and commands, as for `wm eval`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json.")],
    state: StateOpt = "state-lite",
    policy: Annotated[
        str, typer.Option(help="Folder of a policy bundle, or the name of a shipped one.")
    ] = "policy-lite",
    delay: Annotated[
        list[int] | None, typer.Option(min=0, max=2000, help="Of an inference, ms; repeatable: 0, 50, 100, 200.")
    ] = None,
    control_rate: Annotated[float, typer.Option(min=1, max=1000, help="Commands per second.")] = 30.0,
    n_action_steps: Annotated[
        int, typer.Option(min=0, help="Steps of a chunk before the next; 0: half (queue), one (real_time).")
    ] = 0,
    fade_steps: Annotated[int, typer.Option(min=1, help="Control periods in which real_time fades.")] = 10,
    force: ForceOpt = False,
) -> None:
    """How do queue, ensemble and real-time execution move a robot when the policy is late? Tracking error and jerk.

    The policy sees the recording (open loop), its chunks come late by each delay, and a robot with a lag of 80 ms
    follows the commands. The error is to the same robot on the recorded commands, whose jerk is the last row.

    Example: wm chunking 'sim:tabletop?seeds=300000-300009' --out build/chunking
    """
    from wm_ros.evaluation.chunking import DELAYS_MS, run
    from wm_ros.paths import bundle_path
    from wm_ros.policy.execution import ExecutionConfig

    config = ExecutionConfig(control_rate_hz=control_rate, n_action_steps=n_action_steps, fade_steps=fade_steps)
    delays = tuple(sorted(set(delay))) if delay else DELAYS_MS
    with fresh_folder(out, force) as folder:
        report = run(
            sources,
            {"state": bundle_path(state), "policy": bundle_path(policy)},
            folder,
            config,
            delays_ms=delays,
            progress=lambda found: track(found, "executing", console=Console(stderr=True)),
        )
    console.print(_table(report, delays))
    console.print(f"metrics: {out / 'metrics.json'}", highlight=False)


def planning(
    sources: Annotated[
        list[str], typer.Argument(help="Recordings with images, joints and commands, as for `wm eval`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json.")],
    state: StateOpt = "state-lite",
    future: Annotated[
        str, typer.Option(help="Folder of a future bundle, or the name of a shipped one.")
    ] = "future-lite",
    samples: Annotated[int, typer.Option(min=2, max=64, help="Chunks to choose from, the true one among them.")] = 8,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two moments of an episode.")] = 0.5,
    force: ForceOpt = False,
) -> None:
    """Does `future` find the chunk that was commanded more plausible than wrong ones? Imagination rests on it.

    The true chunk of the next second is hidden among smooth changes of it, and among true chunks of other moments.

    Example: wm planning 'sim:tabletop?seeds=300000-300029&seconds=5' --out build/planning
    """
    from wm_ros.evaluation.planning import run
    from wm_ros.paths import bundle_path

    bundles = {"state": bundle_path(state), "future": bundle_path(future)}
    with fresh_folder(out, force) as folder:
        report = run(
            sources,
            bundles,
            folder,
            samples=samples,
            every_s=every,
            progress=lambda found: track(found, "looking", console=Console(stderr=True)),
        )
    table = Table("wrong chunks", "true first", "95 % (Wilson)", "by forecast", "least motion", "chance", "moments")
    for name, entry in report["metrics"].items():
        if name.startswith("first_"):
            kind = name.removeprefix("first_")
            low, high = entry["wilson_ci95"]
            others = [f"{entry['baselines'][method]:.1%}" for method in ("forecast", "least_motion", "chance")]
            row = [f"{entry['value']:.1%}", f"{low:.1%} … {high:.1%}", *others, str(entry["n"])]
            table.add_row(kind.replace("_", " "), *row)
    console.print(table)
    console.print(f"metrics: {out / 'metrics.json'}", highlight=False)


def foresee(
    bundles: Annotated[list[str], typer.Argument(help="Policies that see the same cameras; the first is compared.")],
    data: Annotated[list[str], typer.Option(help="Demonstrations for the small head; may be given again.")],
    test: Annotated[list[str], typer.Option(help="Demonstrations that nothing was trained on; may be given again.")],
    out: Annotated[Path, typer.Option(help="Folder for foresee.json.")],
    force: ForceOpt = False,
) -> None:
    """What do policies know of the states to come? A small head on each frozen encoder, errors on other demonstrations.

    Example: wm foresee runs/latent/bundle runs/none/bundle --data 'sim:metaworld?task=push&seeds=0-39'
    --test 'sim:metaworld?task=push&seeds=300000-300009' --out build/foresee
    """
    import torch

    from wm_ros.paths import bundle_path
    from wm_ros.training.policy_probe import foresee as run

    torch.set_num_threads(1)
    with fresh_folder(out, force) as folder:
        names = {name: bundle_path(name) for name in bundles}
        metrics = run(names, data, test, folder / "cache")
        report = {"schema": 1, "bundles": bundles, "metrics": metrics}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "foresee.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    table = Table("", *(f"{name} {entry['unit']}" for name, entry in metrics.items()))
    table.add_row(bundles[0], *(f"{entry['value']:.4f}" for entry in metrics.values()), style="bold")
    for name in sorted(metrics["rmse"]["baselines"]):
        cells = []
        for entry in metrics.values():
            gain, low, high = entry["gains"][name]
            cells.append(f"{entry['baselines'][name]:.4f} ({gain:+.4f} [{low:.4f}, {high:.4f}])")
        table.add_row(name, *cells)
    console.print(table)


def checkpoint(
    bundle: Annotated[str, typer.Argument(help="Folder of a policy bundle, or the name of a shipped one.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    camera: Annotated[
        list[str] | None, typer.Option(help="Of the key observation.images.<camera>; once for each that it sees.")
    ] = None,
    n_action_steps: Annotated[int, typer.Option(min=0, help="Of a chunk, to act on; 0: all.")] = 0,
    force: ForceOpt = False,
) -> None:
    """Write a policy bundle in the layout of LeRobot's checkpoints: config.json, safetensors, processors.

    It is read by wm_ros.policy.checkpoint.load_checkpoint, and by the policy node as its bundle.
    """
    from wm_ros.paths import bundle_path
    from wm_ros.policy.checkpoint import policy_of_bundle, save_checkpoint

    policy = policy_of_bundle(bundle_path(bundle), camera=camera or (), n_action_steps=n_action_steps)
    with fresh_folder(out, force) as folder:
        save_checkpoint(folder, policy)
    console.print(f"checkpoint: {out}", highlight=False)


def _table(report: dict[str, object], delays_ms: tuple[int, ...]) -> Table:
    from wm_ros.evaluation.chunking import OURS, STRATEGIES, figure

    table = Table("delay", "strategy", "tracking error", "jerk", "without a command")
    for delay_ms in delays_ms:
        for strategy in STRATEGIES:
            error, jerk, dry = (figure(report, name, delay_ms, strategy) for name in ("tracking_error", "jerk", "dry"))
            row = [f"{delay_ms} ms", strategy, f"{error * 1e3:.2f} mrad", f"{jerk:.1f} rad/s³", f"{dry:.1%}"]
            table.add_row(*row, style="bold" if strategy == OURS else "")
        table.add_section()
    table.add_row("", "recorded", "", f"{figure(report, 'jerk', delays_ms[0], 'recorded'):.1f} rad/s³", "")
    return table
