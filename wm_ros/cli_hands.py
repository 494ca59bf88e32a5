"""`wm hands`: the hands of people in a video or another recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from wm_ros.cli_recordings import ForceOpt
from wm_ros.outputs import fresh_folder

console = Console()


def hands(
    source: Annotated[str, typer.Argument(help="Video (clip.mp4?crop=0,0,0.5,1) or any source of `wm eval`.")],
    out: Annotated[Path, typer.Option(help="Folder for boxes.jsonl, summary.json and a strip of each recording.")],
    confidence: Annotated[float, typer.Option(min=0.05, max=0.95, help="Below it a hand is none.")] = 0.5,
    still: Annotated[
        bool, typer.Option("--still", help="Each image by itself: they do not follow each other.")
    ] = False,
    force: ForceOpt = False,
) -> None:
    """Find left and right hands in each image; boxes, pictures, and how far hold and constant velocity tell ahead."""
    from wm_ros.data.sources import episodes
    from wm_ros.hands.detector import MediapipeDetector
    from wm_ros.hands.run import run

    detector = MediapipeDetector(confidence, video=not still)
    with fresh_folder(out, force) as folder, console.status("finding hands"):
        summary = run(episodes(source), detector, folder)
    table = Table("", "value")
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), "–" if value is None else f"{value:.4g}")
    console.print(table)
    console.print(f"boxes: {out / 'boxes.jsonl'}", highlight=False)
