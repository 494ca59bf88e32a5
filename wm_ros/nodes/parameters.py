"""Every parameter of every node, said once: nodes declare them from here, `wm up` checks a file against them first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wm_ros.errors import UserError

Value = bool | int | float | str
# What rclpy declares by itself in every node; allowed in a file though not listed below.
BUILT_IN = ("use_sim_time", "start_type_description_service")
TYPE_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number with a point",
    str: "text",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter. `low` and `high` are inclusive; `default` gives the type; a text may have `choices`. None of them
    changes while running."""

    name: str
    default: Value
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def problem(self, value: Any) -> str:
        """Why `value` cannot be taken, in words; '' if it can."""
        wanted: Any = type(self.default)
        if type(value) is not wanted:
            quotes = ": YAML reads off as false, put it in quotes" if value is False and "off" in self.choices else ""
            return f"must be {TYPE_NAMES[wanted]}{quotes}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}"
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            return f"must be from {self.low:g} to {self.high:g}"
        return ""


def _common(timeout_s: float, warn_ms: float, error_ms: float) -> tuple[Parameter, ...]:
    return (
        Parameter("input_timeout_s", timeout_s, "An input silent for longer is STALE.", 0.05, 60.0),
        Parameter(
            "max_age_s", 2.0, "Input older (or newer) than this by the node's clock is refused; 0: never.", 0.0, 3600.0
        ),
        Parameter("cycle_warn_ms", warn_ms, "One cycle over this is a WARN.", 1.0, 60000.0),
        Parameter("cycle_error_ms", error_ms, "Over budget for as long as this is an ERROR.", 1.0, 60000.0),
        Parameter("diagnostics_period_s", 1.0, "Time between two messages on /diagnostics.", 0.05, 10.0),
    )


def _capability(bundle: str, warn_ms: float, error_ms: float, timeout_s: float = 0.5) -> tuple[Parameter, ...]:
    return (
        Parameter("bundle", bundle, "Folder of a bundle, or the name of a shipped one."),
        Parameter("device", "auto", "Where the model runs: auto, cpu or cuda:0."),
        Parameter("threads", 1, "CPU threads of the model.", 1, 256),
        *_common(timeout_s, warn_ms, error_ms),
    )


# Budgets: two periods of the source (10 Hz LiDAR, 15 Hz camera) warn, ten are an error.
PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "lidar_encoder": (
        *_capability("lidar-lite", 200.0, 1000.0),
        Parameter("sparse_backend", "auto", "Sparse convolution: auto (by device), native (CPU), spconv, dense."),
        Parameter("sparse_arithmetic", "float32", "Of native: float32, or bfloat16 where the CPU has it."),
    ),
    "state_tokenizer": _capability("state-lite", 133.0, 667.0),
    "future_predictor": (
        *_capability("future-lite", 500.0, 2000.0),
        Parameter("use_commands", False, "Listen to joint_commands too: a nearer trajectory while a controller leads."),
        Parameter("samples", 0, "Sampled trajectories; 0: as many as the bundle says.", 0, 64),
        Parameter("frame_steps", 0, "Steps of each frame: 1 its mean, more a sample; 0: as the bundle says.", 0, 100),
        Parameter("horizon_s", 0.0, "How far ahead, at most as the bundle looks; 0: as far as that.", 0.0, 60.0),
        Parameter(
            "budget_ms",
            0.0,
            "Time of a prediction; frames are drawn in fewer steps, or left out; 0: any.",
            0.0,
            60000.0,
        ),
    ),
    "policy": (
        *_capability("policy-lite", 133.0, 667.0),
        Parameter("hold_time_s", 0.1, "Time in which the safe command reaches the held position.", 0.0, 10.0),
        Parameter(
            "execution",
            "off",
            "How chunks are executed, step by step on action_step; off: only action_chunk is published.",
            choices=("off", "queue", "ensemble", "real_time"),
        ),
        Parameter("control_rate_hz", 30.0, "Rate of action_step.", 1.0, 1000.0),
        Parameter("n_action_steps", 0, "Steps of a chunk before the next; 0: half (queue), one (real_time).", 0, 1000),
        Parameter("ensemble_decay", 0.01, "Weights exp(-m·i) of the ensemble, i = 0 the oldest; 0.0: mean.", 0.0, 10.0),
        Parameter("fade_steps", 10, "Control periods in which real_time fades to a new chunk.", 1, 1000),
        Parameter("fade_schedule", "linear", "How it fades.", choices=("linear", "exp", "ones", "zeros")),
        Parameter(
            "safe_command",
            "hold",
            "Sent when the policy or the joints fall silent, and last: hold the measured joints, or stop by braking.",
            choices=("hold", "stop"),
        ),
        Parameter("chunk_timeout_s", 0.5, "No chunk for longer: the safe command.", 0.05, 60.0),
        Parameter("urdf", "", "Robot description with limits of the commanded joints; empty: none."),
        Parameter("joint_limits", "", "joint_limits.yaml (MoveIt, ros2_control) beside or instead of it; empty: none."),
        Parameter("max_velocity_radps", 0.0, "Of every joint, besides the files; 0.0: none.", 0.0, 1000.0),
        Parameter("max_acceleration_radps2", 0.0, "Of every joint, besides the files; 0.0: none.", 0.0, 100000.0),
        Parameter("imagine", 0, "Chunks rolled through `future`, of which the best is executed; 0: off.", 0, 64),
        Parameter("imagine_future", "future-lite", "Bundle for it: a folder, or the name of a shipped one."),
        Parameter("imagine_energy_weight", 1.0, "Of how implausible the hands' path is.", 0.0, 1000.0),
        Parameter("imagine_progress_weight", 40.0, "Of each metre gained towards the goal.", 0.0, 100000.0),
        Parameter("imagine_spread_rad", 0.1, "Of the chunks made of one, where the head gives one.", 0.0, 3.0),
        Parameter("imagine_goal", "", "Where a hand shall be: left or right, x y z in m; empty: no goal."),
    ),
    "monitor": (
        *_common(1.0, 200.0, 1000.0),
        Parameter("window", 100, "Errors of which the running mean is taken.", 1, 10000),
        Parameter("score_images", True, "Score predicted images; asks future_predictor to draw them."),
        Parameter("sensor_height_m", 1.73, "Height of the LiDAR above the road.", 0.0, 10.0),
    ),
}


def check(node: str, values: Mapping[str, Any], where: str) -> None:
    """Refuse unknown names, wrong types and values out of range.

    Raises:
        UserError: naming `where`, the node, the parameter, its value and what would fit.
    """
    known = {parameter.name: parameter for parameter in PARAMETERS[node]}
    for name, value in values.items():
        if name in BUILT_IN or name.startswith("qos_overrides."):
            continue
        if name not in known:
            raise UserError(f"{where}: {node} has no parameter '{name}'; it knows {', '.join(sorted(known))}")
        problem = known[name].problem(value)
        if problem:
            raise UserError(f"{where}: {node}: {name} = {value!r} {problem}")


def read_file(path: Path) -> dict[str, dict[str, Any]]:
    """Read and check a ROS parameter file.

    Returns:
        the values of each node named in it, those of `/**` included.

    Raises:
        UserError: no such file, no ROS parameter file, an unknown node or parameter, a value that does not fit.
    """
    if not path.is_file():
        raise UserError(
            f"no parameter file '{path}'; give --params FILE, or leave it out for the shipped config/wm.yaml"
        )
    try:
        tree = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark else "it"
        raise UserError(f"parameter file '{path}': {line} is not YAML; mend it or start from config/wm.yaml") from None
    if not isinstance(tree, dict) or not tree:
        raise UserError(f"parameter file '{path}': holds no '<node>: ros__parameters:'; start from config/wm.yaml")
    values: dict[str, dict[str, Any]] = {node: {} for node in PARAMETERS}
    for key, section in tree.items():
        parameters = section.get("ros__parameters") if isinstance(section, dict) else None
        if not isinstance(parameters, dict) or set(section) != {"ros__parameters"}:
            raise UserError(f"parameter file '{path}': '{key}' must hold 'ros__parameters:' and nothing else")
        node = str(key).rsplit("/", 1)[-1]
        if node not in PARAMETERS and node != "**":
            raise UserError(f"parameter file '{path}': no node '{node}'; choose from {', '.join(PARAMETERS)}")
        for name in PARAMETERS if node == "**" else (node,):
            check(name, parameters, f"parameter file '{path}'")
            values[name] |= parameters
    return values
