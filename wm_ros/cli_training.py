"""`wm train`, and the experiments on what is learned: `wm probe`, `wm cotrain`, `wm backbones`, `wm illumination`,
`wm grounding`, `wm imagine`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from wm_ros.cli_recordings import ForceOpt
from wm_ros.errors import UserError
from wm_ros.outputs import fresh_folder

StateOpt = Annotated[str, typer.Option("--state", help="Folder of a state bundle, or the name of a shipped one.")]
console = Console()


class Name(str, Enum):
    """The four capabilities."""

    lidar = "lidar"
    state = "state"
    future = "future"
    policy = "policy"


def train(
    capability: Annotated[Name, typer.Argument(help="Which of the four to train.")],
    data: Annotated[list[str], typer.Option(help="Source as for `wm eval`; may be given again.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log.jsonl, loss.png and the bundle.")],
    config: Annotated[Path | None, typer.Option(help="YAML; config/train/<capability>.yaml by default.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, instead of the config's.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    start_from: Annotated[
        Path | None, typer.Option(help="Refine this bundle (a folder, or the name of a shipped one).")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in --out.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    devices: Annotated[int, typer.Option(min=1, help="Processes that train together.")] = 1,
    precision: Annotated[str, typer.Option(help="As in Lightning: 32-true, bf16-mixed, 16-mixed.")] = "32-true",
    force: ForceOpt = False,
) -> None:
    """Train a capability from recordings or the simulator, and write a bundle."""
    from wm_ros.paths import bundle_path
    from wm_ros.training.loop import train as run

    bundle = run(
        capability.value,
        data,
        out,
        config_file=config,
        steps=steps,
        seed=seed,
        start_from=bundle_path(str(start_from)) if start_from else None,
        resume=resume,
        force=force,
        device=device,
        devices=devices,
        precision=precision,
    )
    console.print(f"bundle: {bundle}", highlight=False)


def probe(
    data: Annotated[list[str], typer.Option(help="Source for pre-training without labels; may be given again.")],
    labelled: Annotated[str, typer.Option(help="Source with boxes, whose labels are given out in shares.")],
    test: Annotated[str, typer.Option(help="Source with boxes that no training sees.")],
    out: Annotated[Path, typer.Option(help="Folder for probe.json, probe.md and probe.png.")],
    transfer: Annotated[str | None, typer.Option(help="Another one to test on, e.g. labelled real frames.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML; config/probe.yaml by default.")] = None,
    force: ForceOpt = False,
) -> None:
    """Does pre-training of the lidar encoder help? JEPA, occupancy reconstruction and random weights, probed alike."""
    from wm_ros.paths import CONFIG
    from wm_ros.training.lidar_probe import ProbeConfig
    from wm_ros.training.lidar_probe_run import run
    from wm_ros.training.task import read_config

    settings = read_config(config or CONFIG / "probe.yaml", ProbeConfig)
    with fresh_folder(out, force) as folder, console.status("") as status:
        for doing in run(data, labelled, test, transfer, settings, folder):
            status.update(doing)
    console.print((out / "probe.md").read_text(), highlight=False)


def cotrain(
    data: Annotated[list[str], typer.Option(help="Source of episodes, of which few keep their actions; repeatable.")],
    test: Annotated[str, typer.Option(help="Source that no training sees.")],
    out: Annotated[Path, typer.Option(help="Folder for cotrain.json, cotrain.md and cotrain.png.")],
    state: StateOpt = "state-lite",
    config: Annotated[Path | None, typer.Option(help="YAML; config/cotrain.yaml by default.")] = None,
    force: ForceOpt = False,
) -> None:
    """Do images without actions help a policy? Few episodes with actions, with and without pseudo-actions."""
    from wm_ros.paths import CONFIG, bundle_path
    from wm_ros.training.cotraining import CotrainConfig
    from wm_ros.training.cotraining_run import run
    from wm_ros.training.task import read_config

    settings = read_config(config or CONFIG / "cotrain.yaml", CotrainConfig)
    with fresh_folder(out, force) as folder, console.status("") as status:
        for doing in run(bundle_path(state), data, test, settings, folder):
            status.update(doing)
    console.print((out / "cotrain.md").read_text(), highlight=False)


def backbones(
    data: Annotated[list[str], typer.Option(help="Source of episodes for training; may be given again.")],
    test: Annotated[str, typer.Option(help="Source that no training sees.")],
    out: Annotated[Path, typer.Option(help="Folder for backbones.json, backbones.md and backbones.png.")],
    state: StateOpt = "state-lite",
    config: Annotated[Path | None, typer.Option(help="YAML; config/backbones.yaml by default.")] = None,
    force: ForceOpt = False,
) -> None:
    """Which sequence model should read the past in the forecast of hands? Transformer, GRU, S4D, selective SSM."""
    from wm_ros.paths import CONFIG, bundle_path
    from wm_ros.training.backbones import BackbonesConfig
    from wm_ros.training.backbones_run import run
    from wm_ros.training.task import read_config

    settings = read_config(config or CONFIG / "backbones.yaml", BackbonesConfig)
    with fresh_folder(out, force) as folder, console.status("") as status:
        for doing in run(bundle_path(state), data, test, settings, folder):
            status.update(doing)
    console.print((out / "backbones.md").read_text(), highlight=False)


def illumination(
    data: Annotated[str, typer.Option(help="Source of recordings whose light is changed.")],
    out: Annotated[Path, typer.Option(help="Folder for illumination.json, illumination.md and illumination.png.")],
    bundle: Annotated[
        list[str] | None, typer.Option(help="name=folder of a state bundle, repeatable; the shipped one by default.")
    ] = None,
    force: ForceOpt = False,
) -> None:
    """How far do gain, gamma, shadow and colour move the tokens and the decoded action? Curves for each bundle."""
    from wm_ros.evaluation.illumination_report import run
    from wm_ros.paths import bundle_path

    chosen: dict[str, Path] = {}
    for text in bundle or ["state-lite=state-lite"]:
        name, found, folder = text.partition("=")
        if not found:
            raise UserError(f"--bundle '{text}' is not name=folder; write e.g. plain=runs/state/bundle")
        chosen[name] = bundle_path(folder)
    with fresh_folder(out, force) as target, console.status("") as status:
        for doing in run(chosen, data, target):
            status.update(doing)
    console.print((out / "illumination.md").read_text(), highlight=False)


def grounding(
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, grounding.md and grounding.jpg.")],
    future: Annotated[
        str, typer.Option(help="Folder of a future bundle, or the name of a shipped one.")
    ] = "future-lite",
    state: StateOpt = "state-lite",
    seeds: Annotated[str, typer.Option(help="Simulated scenes that no training has seen.")] = "100000-100099",
    choice: Annotated[int, typer.Option(min=1, max=2, help="Objects that the hand could take, at least.")] = 2,
    force: ForceOpt = False,
) -> None:
    """Does the instruction decide where the hand goes? Forecasts with the right words, with wrong ones, with none."""
    from wm_ros.data.sources import number_range
    from wm_ros.evaluation.grounding_report import run
    from wm_ros.paths import bundle_path

    with fresh_folder(out, force) as folder, console.status("") as status:
        for doing in run(bundle_path(state), bundle_path(future), number_range(seeds, "--seeds"), choice, folder):
            status.update(doing)
    console.print((out / "grounding.md").read_text(), highlight=False)


def imagine(
    sources: Annotated[list[str], typer.Argument(help="Recordings with images and joints, as for `wm eval`.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, horizon.png, best.png, median.png, worst.png.")],
    state: StateOpt = "state-lite",
    future: Annotated[
        str, typer.Option(help="Folder of a future bundle, or the name of a shipped one.")
    ] = "future-lite",
    seconds: Annotated[float, typer.Option(min=1.0, max=30.0, help="Length of a rollout.")] = 5.0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two starts in an episode.")] = 2.0,
    force: ForceOpt = False,
) -> None:
    """Predict on and on from its own frames and hands, and compare with what then happened."""
    from wm_ros.evaluation.imagination_report import run
    from wm_ros.paths import bundle_path

    bundles = {"state": bundle_path(state), "future": bundle_path(future)}
    with fresh_folder(out, force) as folder:
        report = run(
            sources,
            bundles,
            folder,
            seconds=seconds,
            every_s=every,
            progress=lambda episodes: track(episodes, "imagining", console=Console(stderr=True)),
        )
    for which, until_s in report["wrist_not_above_hold_until_s"].items():
        reached = "no such start" if until_s is None else f"not above holding it until {until_s:.2f} s"
        console.print(f"wrist error, starts: {which}: {reached}", highlight=False)
    console.print(f"curves: {out / 'horizon.png'}", highlight=False)
