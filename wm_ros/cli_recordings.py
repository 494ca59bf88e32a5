"""`wm convert` and `wm simulate`: recordings from elsewhere, or made here, as rosbag2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from wm_ros.outputs import fresh_folder
from wm_ros.types import Sample

SIMULATED = "Apache-2.0 (simulated)"
ForceOpt = Annotated[bool, typer.Option("--force", help="Overwrite an output folder that is not empty.")]
TaskOpt = Annotated[
    str, typer.Option(help="reach, push, pick-place, drawer-open or button-press-topdown.", show_default=False)
]
convert_app = typer.Typer(help="Turn other recordings into rosbag2.", no_args_is_help=True)
simulate_app = typer.Typer(help="Record a simulated bag: same seed, same bytes.", no_args_is_help=True)
console = Console()


@convert_app.command("kitti")
def convert_kitti(
    source: Annotated[Path, typer.Argument(help="A KITTI raw drive: velodyne_points/data/*.bin and more.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new bag.")],
    force: ForceOpt = False,
) -> None:
    """KITTI raw → bag; ego-motion from its poses, or by kiss-icp where it has none."""
    from wm_ros.data.kitti import kitti_episode

    episode = kitti_episode(source)
    _write(out, episode.samples(), force, episode.licence)


@convert_app.command("lerobot")
def convert_lerobot(
    source: Annotated[Path, typer.Argument(help="A LeRobot dataset, v2.1 or v3.0.")],
    out: Annotated[Path, typer.Argument(help="Folder: one bag for each episode is made in it.")],
    episodes: Annotated[str, typer.Option(help="Which, e.g. 0-3,7; all by default.")] = "",
    force: ForceOpt = False,
) -> None:
    """LeRobot → one bag for each episode."""
    from wm_ros.data.bags import write_bag
    from wm_ros.data.lerobot import lerobot_episodes
    from wm_ros.data.sources import number_range

    found = lerobot_episodes(source, number_range(episodes, "--episodes"), {})
    with fresh_folder(out, force) as folder:
        for episode in track(found, "converting", console=Console(stderr=True)):
            write_bag(folder / episode.name, episode.samples(), licence=episode.licence)


@convert_app.command("recover")
def convert_recover(
    source: Annotated[Path, typer.Argument(help="A damaged bag.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new bag.")],
    force: ForceOpt = False,
) -> None:
    """Copy what is whole of a damaged bag; the damaged one stays as it is."""
    from wm_ros.data.bags import recover_bag

    with fresh_folder(out, force) as folder:
        console.print(f"{recover_bag(source, folder)} messages recovered to {out}", highlight=False)


@simulate_app.command("drive")
def simulate_drive(
    out: Annotated[Path, typer.Option(help="Folder of the new bag.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Length.")] = 6.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another scene.")] = 0,
    beams: Annotated[int, typer.Option(min=1, max=256, help="Rings of the LiDAR.")] = 64,
    azimuths: Annotated[int, typer.Option(min=36, max=8192, help="Rays in one turn.")] = 1800,
    speed: Annotated[float, typer.Option(help="Ego speed in m/s; negative: drawn from the seed.")] = -1.0,
    force: ForceOpt = False,
) -> None:
    """A car with a spinning LiDAR among cars, cyclists, pedestrians, buildings and trees."""
    from wm_ros.data.simulator import drive_samples

    _write(out, drive_samples(seed=seed, seconds=seconds, beams=beams, azimuths=azimuths, speed_mps=speed), force)


@simulate_app.command("tabletop")
def simulate_tabletop(
    out: Annotated[Path, typer.Option(help="Folder of the new bag.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Length.")] = 6.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another scene.")] = 0,
    width: Annotated[int, typer.Option(min=16, max=1920, help="Of the image, pixels.")] = 128,
    height: Annotated[int, typer.Option(min=16, max=1080, help="Of the image, pixels.")] = 96,
    force: ForceOpt = False,
) -> None:
    """A robot's view of its arm reaching for the object that it was told to lift."""
    from wm_ros.data.simulator import tabletop_samples

    _write(out, tabletop_samples(seed=seed, seconds=seconds, width=width, height=height), force)


@simulate_app.command("metaworld")
def simulate_metaworld(
    task: TaskOpt,
    out: Annotated[Path, typer.Option(help="Folder: one bag for each demonstration is made in it.")],
    episodes: Annotated[int, typer.Option(min=1, help="Demonstrations, of the seeds SEED, SEED + 1, …")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another place of things.")] = 0,
    noise: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Added to the expert's speed, of the full one.")
    ] = 0.15,
    image_every: Annotated[int, typer.Option(min=1, max=250, help="Control ticks (80 Hz) between images.")] = 1,
    cameras: Annotated[int, typer.Option(min=0, max=2, help="0: no images; 1: image; 2: wrist_image too.")] = 2,
    true_state: Annotated[bool, typer.Option("--true-state", help="Joints are followed by object and goal.")] = False,
    force: ForceOpt = False,
) -> None:
    """Solved tasks of Meta-World V3 (extra `sim`): a scripted expert, its hand pushed about by noise."""
    from wm_ros.data.bags import write_bag
    from wm_ros.data.simulator.metaworld import demonstrate
    from wm_ros.data.simulator.metaworld_arm import MetaWorldArm

    MetaWorldArm(task)  # refuses what is unknown or missing before there is a folder
    thrown = steps = 0
    with fresh_folder(out, force) as folder:
        for number in track(range(seed, seed + episodes), f"demonstrating {task}", console=Console(stderr=True)):
            found = demonstrate(number, task, noise, image_every, cameras, true_state=int(true_state))
            write_bag(folder / f"{task}-{number:06d}", found.samples, licence=SIMULATED)
            thrown, steps = thrown + found.thrown_away, steps + found.steps
    console.print(
        f"{episodes} demonstrations kept, {thrown} tries thrown away; {steps / episodes:.0f} ticks each on average",
        highlight=False,
    )


def _write(out: Path, samples: Iterator[Sample], force: bool, licence: str = SIMULATED) -> None:
    from wm_ros.data.bags import write_bag

    with fresh_folder(out, force) as folder:
        write_bag(folder, track(samples, f"writing {out.name}", console=Console(stderr=True)), licence=licence)
