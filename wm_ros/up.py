"""`wm up`: the nodes of the stack on this machine, without `ros2 launch`, with the same parameter file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from wm_ros.bundle import refuse_other_tokens
from wm_ros.errors import UserError
from wm_ros.paths import CONFIG, bundle_path
from wm_ros.topics import NODES


def ros_environment() -> dict[str, str]:
    """Variables for every process of the stack: large messages arrive, nothing leaves this machine.

    What the user has set already wins.
    """
    ours = {
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(CONFIG / "fastdds.xml"),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    return {name: os.environ.get(name, value) for name, value in ours.items()}


# The node of each capability.
NODE_OF = {"lidar": "lidar_encoder", "state": "state_tokenizer", "future": "future_predictor", "policy": "policy"}


def up(
    params: Path,
    nodes: Sequence[str] | None = None,
    *,
    bundles: Mapping[str, str] | None = None,
    use_sim_time: bool = False,
    namespace: str = "",
) -> int:
    """Bring the nodes up and keep them up until SIGINT or SIGTERM.

    Args:
        params: ROS parameter file. nodes: those to start, all by default.
        bundles: capability → bundle, instead of what the file says.
        use_sim_time: follow /clock, whatever the file says. namespace: of all nodes.

    Returns:
        the exit code.

    Raises:
        UserError: a file, node, parameter or bundle that does not fit.
    """
    chosen = check(params, nodes, bundles)
    os.environ |= ros_environment()
    from wm_ros.nodes.board import Board
    from wm_ros.nodes.stopping import stop_event
    from wm_ros.nodes.supervisor import Supervisor, node_command

    board = Board()
    with stop_event() as stop, TemporaryDirectory(prefix="wm_up_") as folder:
        arguments = ["--params-file", str(params.resolve()), *overriding(Path(folder), chosen)]
        if use_sim_time:
            arguments += ["-p", "use_sim_time:=true"]
        if namespace:
            arguments += ["-r", f"__ns:={namespace}"]
        commands = {name: node_command(name, arguments) for name in chosen}
        supervisor = Supervisor(commands, namespace, board.changed)
        try:
            supervisor.start()
            while not stop.is_set() and not supervisor.all_ended():
                supervisor.tick()
                board.health(supervisor.children)
        finally:
            supervisor.stop()
    return 0


def overriding(folder: Path, values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Arguments that give nodes, in any namespace, other parameters than a file before them.

    `-p name:=value` would not: to ROS the `/**/<node>` of a file is nearer to the node than a rule for all nodes.

    Args:
        folder: for the file that is written; it must stay while nodes start. values: node → parameter → value.
    """
    tree = {f"/**/{name}": {"ros__parameters": dict(row)} for name, row in values.items() if row}
    if not tree:
        return []
    file = folder / "overriding.yaml"
    file.write_text(yaml.safe_dump(tree))
    return ["--params-file", str(file)]


def check(
    params: Path, nodes: Sequence[str] | None, bundles: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """The nodes to start, in the order of bring-up, each with the parameters that are not to be those of the file.

    Raises UserError where one of them could not work.
    """
    from wm_ros.nodes.parameters import PARAMETERS, read_file

    unknown = sorted(set(nodes or ()) - set(NODES))
    if unknown:
        raise UserError(f"no node '{unknown[0]}'; choose from {', '.join(NODES)}")
    values = read_file(params)
    chosen: dict[str, dict[str, Any]] = {name: {} for name in NODES if not nodes or name in nodes}
    used = {
        name: bundle_path(str(values[name].get("bundle", parameter.default)))
        for name in chosen
        for parameter in PARAMETERS[name]
        if parameter.name == "bundle"
    }
    for capability, given in (bundles or {}).items():
        name = NODE_OF[capability]
        if name not in chosen:
            raise UserError(f"--bundle {capability}={given}: its node, {name}, is not among those to start")
        used[name] = bundle_path(given)
        chosen[name] = {"bundle": str(used[name].resolve())}
    for name in set(used) & {"future_predictor", "policy"}:
        if "state_tokenizer" in used:
            refuse_other_tokens(used["state_tokenizer"], used[name])
    return chosen
