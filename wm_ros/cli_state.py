"""`wm cotrain` and `wm illumination`: experiments on the state tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wm_ros.errors import UserError
from wm_ros.outputs import fresh_folder

ForceOpt = Annotated[bool, typer.Option("--force", help="Overwrite an output folder that is not empty.")]
StateOpt = Annotated[str, typer.Option("--state", help="Folder of a state bundle, or the name of a shipped one.")]
console = Console()


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
