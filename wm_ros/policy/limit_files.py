"""Where limits come from: a robot's URDF, a joint_limits.yaml (MoveIt, ros2_control), and bounds common to all joints.

A URDF knows positions and velocities, rarely accelerations; the YAML file adds them, and wins where both say something:

    joint_limits:
      right_elbow_joint: {has_velocity_limits: true, max_velocity: 2.0,
                          has_acceleration_limits: true, max_acceleration: 8.0}
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wm_ros.errors import UserError
from wm_ros.policy.limits import JointLimits

LARGEST_BYTES = 32 * 2**20
FIELDS = ("lower_rad", "upper_rad", "velocity_radps", "acceleration_radps2")
FREE = dict(zip(FIELDS, (-math.inf, math.inf, math.inf, math.inf), strict=True))
# What the YAML file calls them: switch, key, field.
YAML_KEYS = (
    ("has_position_limits", "min_position", "lower_rad"),
    ("has_position_limits", "max_position", "upper_rad"),
    ("has_velocity_limits", "max_velocity", "velocity_radps"),
    ("has_acceleration_limits", "max_acceleration", "acceleration_radps2"),
)

Limits = dict[str, float]


def limits_of(
    names: Sequence[str],
    urdf: str = "",
    joint_limits: str = "",
    max_velocity_radps: float = 0.0,
    max_acceleration_radps2: float = 0.0,
) -> JointLimits:
    """The limits of the joints `names`.

    Args:
        urdf, joint_limits: files, "" for none. max_…: of every joint, 0 for none; the tighter one counts.

    Raises:
        UserError: a file is missing, broken or unsafe, a limit makes no sense, or a joint has no limits in any of the
            files that were given.
    """
    found: dict[str, Limits] = read_urdf(Path(urdf)) if urdf else {}
    if joint_limits:
        for name, values in read_joint_limits(Path(joint_limits)).items():
            found[name] = found.get(name, FREE) | values
    for name, values in found.items():
        if name in names and not values["lower_rad"] < values["upper_rad"]:
            raise UserError(
                f"limits of joint '{name}': lower {values['lower_rad']:g} is not below upper {values['upper_rad']:g}; "
                f"mend '{joint_limits or urdf}'"
            )
    missing = [name for name in names if name not in found]
    if missing and (urdf or joint_limits):
        given = " nor ".join(f"'{file}'" for file in (urdf, joint_limits) if file)
        raise UserError(
            f"limits: joint '{missing[0]}', which the policy commands, is not in {given}; add it to a joint_limits "
            f"file, or leave out the files and give max_velocity_radps and max_acceleration_radps2"
        )
    rows = [found.get(name, FREE) for name in names]
    columns = [np.array([row[field] for row in rows], np.float64) for field in FIELDS]
    return JointLimits(tuple(names), *columns).at_most(max_velocity_radps, max_acceleration_radps2)


class _NoDoctype(ET.TreeBuilder):
    """A robot description needs no DOCTYPE, and entities are how XML does harm."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise UserError("declares a DOCTYPE, which may hold entities and is refused; remove it")


def read_urdf(file: Path) -> dict[str, Limits]:
    """Limits of every movable joint of a URDF by name.

    Raises:
        UserError: missing, too large, not XML, with a DOCTYPE, no `<robot>`, a joint without name or limits, or a limit
            that is no number; one line that names file, joint and attribute.
    """
    try:
        root = ET.fromstring(_read(file, "URDF"), ET.XMLParser(target=_NoDoctype()))
    except UserError as error:
        raise UserError(str(error) if str(file) in str(error) else f"URDF '{file}' {error}") from None
    except ET.ParseError as error:
        raise UserError(f"URDF '{file}' is not XML ({error}); give what `xacro` makes of the description") from None
    if root.tag != "robot":
        raise UserError(f"URDF '{file}': its root is <{root.tag}>, not <robot>; give a robot description")
    found = {}
    for joint in root.iter("joint"):
        kind = joint.get("type")
        if kind in (None, "fixed", "floating", "planar"):  # <joint> without a type: of a transmission
            continue
        name = joint.get("name")
        if not name:
            raise UserError(f"URDF '{file}': a {kind} joint has no name; mend it")
        found[name] = _urdf_limits(file, name, str(kind), joint.find("limit"))
    return found


def _urdf_limits(file: Path, name: str, kind: str, limit: ET.Element | None) -> Limits:
    """A continuous joint turns without end and may lack the element; any other must have it."""
    if kind not in ("revolute", "prismatic", "continuous"):
        raise UserError(f"URDF '{file}': joint '{name}' has the unknown type '{kind}'; mend it")
    if limit is None:
        if kind == "continuous":
            return dict(FREE)
        raise UserError(f"URDF '{file}': {kind} joint '{name}' has no <limit>; mend it")
    read = dict(FREE)
    for field, attribute in zip(FIELDS, ("lower", "upper", "velocity", "acceleration"), strict=True):
        if kind == "continuous" and attribute in ("lower", "upper"):
            continue
        text = limit.get(attribute)
        if text is None and attribute in ("lower", "upper"):
            text = "0"  # the format's default
        if text is not None:
            read[field] = _number(text, f"URDF '{file}': joint '{name}': {attribute}", attribute)
    return read


def read_joint_limits(file: Path) -> dict[str, Limits]:
    """What a joint_limits.yaml says of each joint; only what it says.

    Raises:
        UserError: missing, not YAML, without `joint_limits:`, or a limit that is no number.
    """
    try:
        tree = yaml.safe_load(_read(file, "joint limits"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "it"
        raise UserError(f"joint limits '{file}': {where} is not YAML; mend it") from None
    joints = tree.get("joint_limits") if isinstance(tree, dict) else None
    if not isinstance(joints, dict):
        raise UserError(f"joint limits '{file}': holds no 'joint_limits:' with joints under it; mend it")
    return {str(name): _yaml_limits(file, str(name), values) for name, values in joints.items()}


def _yaml_limits(file: Path, name: str, values: Any) -> Limits:
    if not isinstance(values, Mapping):
        raise UserError(f"joint limits '{file}': joint '{name}' holds no limits; mend it")
    read = {}
    for switch, key, field in YAML_KEYS:
        if values.get(switch) is True and key not in values:
            raise UserError(f"joint limits '{file}': joint '{name}' has {switch} but no {key}; mend it")
        if values.get(switch, True) and key in values:
            read[field] = _number(values[key], f"joint limits '{file}': joint '{name}': {key}", key)
    return read


def _number(value: Any, what: str, key: str) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or (number <= 0 and ("velocity" in key or "acceleration" in key)):
        raise UserError(f"{what} = {value!r} is no limit; give a number{'' if 'position' in key else ' above 0'}")
    return number


def _read(file: Path, what: str) -> bytes:
    file = file.expanduser()
    if not file.is_file():
        raise UserError(f"{what}: no file '{file}'; give its path")
    if file.stat().st_size > LARGEST_BYTES:
        raise UserError(f"{what}: '{file}' is larger than {LARGEST_BYTES // 2**20} MB; give the right file")
    return file.read_bytes()
