"""`wm convert` and `wm simulate`: recordings from elsewhere, or made here, as rosbag2; and bags as LeRobot datasets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from wm_ros.data.sources import Episode
from wm_ros.errors import UserError
from wm_ros.outputs import fresh_folder
from wm_ros.types import Sample

SIMULATED = "Apache-2.0 (simulated)"
ForceOpt = Annotated[bool, typer.Option("--force", help="Overwrite an output folder that is not empty.")]
TaskOpt = Annotated[
    str, typer.Option(help="reach, push, pick-place, drawer-open or button-press-topdown.", show_default=False)
]
convert_app = typer.Typer(help="Other recordings to rosbag2, and bags to a LeRobot dataset.", no_args_is_help=True)
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
    source: Annotated[
        str, typer.Argument(help="A LeRobot dataset, v2.1 or v3.0; ?camera=NAME&licence=MIT where there is a choice.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder: one bag for each episode is made in it.")],
    episodes: Annotated[str, typer.Option(help="Which, e.g. 0-3,7; all by default.")] = "",
    force: ForceOpt = False,
) -> None:
    """LeRobot → one bag for each episode."""
    from wm_ros.data.bags import write_bag
    from wm_ros.data.lerobot import lerobot_episodes
    from wm_ros.data.sources import number_range, parse

    path, options = parse(source)
    chosen = options.pop("episodes", "")
    found = lerobot_episodes(Path(path), number_range(episodes or chosen, "--episodes"), options)
    with fresh_folder(out, force) as folder:
        for episode in track(found, "converting", console=Console(stderr=True)):
            write_bag(folder / episode.name, episode.samples(), licence=episode.licence)


@convert_app.command("bag")
def convert_bag(
    source: Annotated[str, typer.Argument(help="A bag, a folder of bags, or any source of `wm eval`.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new LeRobot v3.0 dataset.")],
    rate: Annotated[int, typer.Option(min=1, max=120, help="Steps per second.")] = 15,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="THEIRS=OURS, e.g. /arm/state=joint_states, /arm/goal=joint_commands; may be given again."),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(help="NAME=TOPIC for each camera (observation.images.NAME); by default the one that `wm` reads."),
    ] = None,
    episodes_from: Annotated[
        str,
        typer.Option(
            help="Topic of borders. Each Empty, and each new value of a Bool, String or whole number, begins an "
            "episode; what follows false, an empty text or a negative number belongs to none."
        ),
    ] = "",
    gap: Annotated[
        float, typer.Option(min=0.05, help="Seconds of silence of joints or a camera that end an episode.")
    ] = 1.0,
    task: Annotated[str, typer.Option(help="Of all episodes, instead of what the topic instruction says.")] = "",
    joints: Annotated[
        str, typer.Option(help="a,b,c: only these, in this order; by default all, as the first recording names them.")
    ] = "",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT that images are scaled to; as recorded by default.")] = "",
    robot_type: Annotated[str, typer.Option(help="What meta/info.json says of the robot.")] = "",
    force: ForceOpt = False,
) -> None:
    """Bags → one LeRobot v3.0 dataset: what was known at each step of a fixed rate, by header stamps.

    joint_states become observation.state, joint_commands action, images H.264 video, the instruction the task. A bag is
    at least one episode; a silence (--gap) and the topic of --episodes-from cut it into more.
    """
    from wm_ros.data.bag_demonstrations import BagChoice, BagDemonstration
    from wm_ros.data.lerobot_convert import ConvertOptions, write_dataset

    cameras = _pairs(camera, "--camera", "head=/head/image_raw")
    if wrong := next((name for name in cameras if not re.fullmatch(r"\w+", name)), None):
        raise UserError(f"--camera '{wrong}': name it with letters, digits and underscores")
    options = ConvertOptions(
        rate_hz=rate,
        gap_s=gap,
        task=task,
        joints=tuple(filter(None, joints.split(","))),
        size=_size(size),
        robot_type=robot_type,
        bags=BagChoice(_pairs(topic, "--topic", "/arm/state=joint_states"), cameras, episodes_from),
    )

    def shown(recording: Episode) -> Iterable[Sample]:
        total = recording.messages if isinstance(recording, BagDemonstration) else None
        return track(recording.samples(), recording.name, total=total, console=Console(stderr=True))

    with fresh_folder(out, force) as folder:
        done = write_dataset(source, folder, options, shown)
    form = done.form
    console.print(
        f"{out}: {done.episodes} episodes, {done.steps} steps at {form.rate_hz} Hz, {len(done.tasks)} tasks; "
        f"cameras: {', '.join(form.cameras) or 'none'}; licence: {done.licence or 'not stated'}",
        f"state ({len(form.state)}): {', '.join(form.state)}",
        f"action ({len(form.action)}): {'the same' if form.action == form.state else ', '.join(form.action)}",
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


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


def _pairs(items: list[str] | None, option: str, example: str) -> dict[str, str]:
    """['a=b'] → {'a': 'b'}. Raises UserError for another form, or for one that is given twice."""
    found: dict[str, str] = {}
    for item in items or []:
        left, equals, right = item.partition("=")
        if not (left and equals and right) or left in found:
            raise UserError(f"{option} '{item}': write each once, as in {option} {example}")
        found[left] = right
    return found


def _size(text: str) -> tuple[int, int] | None:
    """'256x192' → (256, 192), '' → None. Raises UserError."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if match is None:
        raise UserError(f"--size '{text}' is not WIDTHxHEIGHT in pixels; write e.g. 256x192")
    return int(match[1]), int(match[2])


@simulate_app.command("metaworld")
def simulate_metaworld(
    task: TaskOpt,
    out: Annotated[Path, typer.Option(help="Folder: one bag for each demonstration is made in it.")],
    episodes: Annotated[int, typer.Option(min=1, help="Demonstrations, of the seeds SEED, SEED + 1, …")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another place of things.")] = 0,
    noise: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Added to the expert's speed, of the full one.")
    ] = 0.15,
    push_ticks: Annotated[int, typer.Option(min=1, max=250, help="Ticks for which the same noise goes on.")] = 1,
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
            found = demonstrate(number, task, noise, push_ticks, image_every, cameras, true_state=int(true_state))
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
