"""`wm`: play, run, evaluate, train, convert and simulate from the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from wm_ros.cli_hands import hands
from wm_ros.cli_policy import checkpoint, chunking, foresee, planning
from wm_ros.cli_recordings import ForceOpt, convert_app, simulate_app
from wm_ros.cli_robot import delays, robot_app, rollout
from wm_ros.cli_training import Name, backbones, cotrain, grounding, illumination, imagine, probe, train
from wm_ros.errors import UserError
from wm_ros.outputs import fresh_folder

app = typer.Typer(
    help="Embodied prediction for ROS 2. Start with `make demo`, then `wm up` and `wm play BAG` in two terminals.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(convert_app, name="convert")
app.add_typer(simulate_app, name="simulate")
app.add_typer(robot_app, name="robot")
console = Console()

SourceArg = Annotated[
    list[str],
    typer.Argument(help="Bag, folder of bags, LeRobot dataset (?episodes=0-3), KITTI drive, or sim:drive?seeds=0-9."),
]
BundleOpt = Annotated[
    list[str] | None, typer.Option(help="name=folder, e.g. lidar=runs/lidar/bundle; may be given again.")
]


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in {
            "rclpy",
            "lightning",
            "open3d",
            "av",
            "metaworld",
            "mujoco",
            "pyarrow",
            "kiss_icp",
        }:
            print(
                f"error: Python module '{error.name}' is missing: run `make setup`, or see README, Install",
                file=sys.stderr,
            )
            sys.exit(2)
        raise


def parse_bundles(items: list[str] | None) -> dict[str, str]:
    """['lidar=folder'] → {'lidar': 'folder'}. Raises UserError for another form or name."""
    names = [name.value for name in Name]
    bundles = {}
    for item in items or []:
        name, equals, chosen = item.partition("=")
        if name not in names or not equals:
            raise UserError(f"--bundle '{item}': write name=folder with one of {', '.join(names)}")
        bundles[name] = chosen
    return bundles


@app.command()
def info(bag: Annotated[Path, typer.Argument(help="A rosbag2 folder or an .mcap file.")]) -> None:
    """Say what is in a bag, or in each bag of a folder, and which capabilities it can feed."""
    from wm_ros.data.bags import find_bags
    from wm_ros.data.info import describe, print_info

    for found in find_bags(bag) or [bag]:
        print_info(describe(found))


@app.command()
def play(
    bag: Annotated[Path, typer.Argument(help="A rosbag2 folder or an .mcap file.")],
    rate: Annotated[float, typer.Option(min=0.01, max=100, help="Speed: 2 is twice as fast as recorded.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    start: Annotated[float, typer.Option(min=0, help="Skip so many seconds; latched topics are still sent.")] = 0.0,
    topics: Annotated[list[str] | None, typer.Option(help="Only this topic; may be given again.")] = None,
) -> None:
    """Publish a bag as it was recorded, byte for byte, with /clock, and report how exact the timing was."""
    from wm_ros.nodes.player import play as play_bag
    from wm_ros.up import ros_environment

    os.environ |= ros_environment()
    report = play_bag(bag, rate=rate, loop=loop, start_s=start, topics=topics)
    console.print(str(report), highlight=False)


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="Folder of the new bag; never overwritten.")],
    topics: Annotated[list[str] | None, typer.Option(help="Only this topic; may be given again.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so long; else at Ctrl-C.")] = None,
) -> None:
    """Record topics to a new bag and report counts and ages."""
    from wm_ros.nodes.recorder import record as record_bag
    from wm_ros.up import ros_environment

    os.environ |= ros_environment()
    console.print(str(record_bag(out, topics=topics, seconds=seconds)), highlight=False)


@app.command()
def up(
    params: Annotated[
        Path | None, typer.Option(help="ROS parameter file; the shipped config/wm.yaml by default.")
    ] = None,
    nodes: Annotated[list[str] | None, typer.Option(help="Only this node; may be given again.")] = None,
    use_sim_time: Annotated[
        bool, typer.Option("--use-sim-time", help="Follow /clock (as `wm play` gives it).")
    ] = False,
    bundle: BundleOpt = None,
    namespace: Annotated[str, typer.Option(help="Of all nodes and their relative topics, e.g. /robot1.")] = "",
) -> None:
    """Start the nodes as processes, configure and activate them, watch them, and stop them in order at Ctrl-C."""
    from wm_ros.paths import CONFIG
    from wm_ros.up import up as bring_up

    chosen = parse_bundles(bundle)
    file = params or CONFIG / "wm.yaml"
    raise typer.Exit(bring_up(file, nodes, bundles=chosen, use_sim_time=use_sim_time, namespace=namespace))


@app.command("eval")
def eval_(
    sources: SourceArg,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, results.jsonl and report.html.")],
    capability: Annotated[list[Name] | None, typer.Option(help="Only this one; may be given again.")] = None,
    bundle: BundleOpt = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the arithmetic.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda:0.")] = "cpu",
    without: Annotated[list[str] | None, typer.Option(help="Hide this topic from all; may be given again.")] = None,
    force: ForceOpt = False,
) -> None:
    """Score the capabilities on recordings, sample by sample, the same bytes every time."""
    from wm_ros.capability import NAMES
    from wm_ros.evaluation.replay import evaluate

    bundles = parse_bundles(bundle)
    with fresh_folder(out, force) as folder:
        found = evaluate(
            sources,
            folder,
            names=[c.value for c in capability] if capability else NAMES,
            bundles=bundles,
            threads=threads,
            device=device,
            without=without or (),
            progress=lambda episodes: track(episodes, "evaluating", console=Console(stderr=True)),
        )
    print_metrics(found.report)
    console.print(f"report: {out / 'report.html'}", highlight=False)


def print_metrics(report: dict[str, Any]) -> None:
    """Print `metrics.json` as a table."""
    table = Table("metric", "model", "best baseline", "gain", "95 % interval", "n")
    for name, part in report["capabilities"].items():
        for key, m in part["metrics"].items():
            row = [f"{name} {key}", f"{m['value']:.4g} {m['unit']}" if m["value"] is not None else "–"]
            if "best_baseline" in m:
                best = m["baselines"][m["best_baseline"]]
                low, high = (float("nan") if edge is None else edge for edge in m["gain_ci95"])
                colour = "green" if low > 0 else "red" if high < 0 else "yellow"
                row += [
                    f"{best:.4g} {m['best_baseline']}",
                    f"[{colour}]{m['gain']:+.4g}[/]",
                    f"{low:+.3g} … {high:+.3g}",
                ]
            else:
                row += ["", "", ""]
            table.add_row(*row, str(m["n"]))
    console.print(table)
    for why in report["skipped"].values():
        console.print(f"not scored: {why}", highlight=False)


for command in (
    train,
    probe,
    cotrain,
    backbones,
    illumination,
    grounding,
    imagine,
    hands,
    rollout,
    delays,
    chunking,
    foresee,
    planning,
    checkpoint,
):
    app.command()(command)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, the metrics and the recorded bag.")] = Path(
        "build/demo"
    ),
    force: ForceOpt = False,
) -> None:
    """Play the two sample bags through all nodes, record what they say, score it and write a report."""
    from wm_ros.demo import run_demo

    with fresh_folder(out, force) as folder:
        run_demo(folder)
    console.print(f"report: {out / 'report.html'}", highlight=False)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = Path("build/bench.json"),
    runs: Annotated[int, typer.Option(min=30, help="Timed runs of each step.")] = 30,
) -> None:
    """Time each capability's step and each message conversion: medians and p95, at 1 and 2 threads."""
    from wm_ros.evaluation.bench import run_bench

    run_bench(out, runs)


@app.command()
def doctor() -> None:
    """Check this machine: Python, ROS, Fast DDS profile, bundles, cores, memory; say what is missing and the remedy."""
    from wm_ros.doctor import run_doctor

    raise typer.Exit(run_doctor())


if __name__ == "__main__":
    main()
