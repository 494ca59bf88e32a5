"""Limits from a URDF and a joint_limits.yaml; a broken file is refused with one line that names what is wrong."""

from pathlib import Path

import numpy as np
import pytest

from wm_ros.errors import UserError
from wm_ros.policy.limit_files import limits_of, read_urdf

URDF = """<?xml version="1.0"?>
<robot name="arm">
  <link name="base"/>
  <joint name="elbow" type="revolute">
    <parent link="base"/><limit lower="-1.5" upper="2" velocity="3" effort="10"/>
  </joint>
  <joint name="slide" type="prismatic"><limit upper="0.4" velocity="0.2" acceleration="1.5" effort="1"/></joint>
  <joint name="wheel" type="continuous"/>
  <joint name="camera" type="fixed"/>
  <transmission name="t"><joint name="elbow"/></transmission>
</robot>
"""
YAML = """
joint_limits:
  elbow: {has_velocity_limits: true, max_velocity: 1.0, has_acceleration_limits: true, max_acceleration: 8.0}
  wheel: {has_velocity_limits: false, max_velocity: 9.0, max_acceleration: 2}
  thumb: {has_position_limits: true, min_position: 0.0, max_position: 1.0}
"""


def written(folder: Path, text: str, name: str = "robot.urdf") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_urdf_gives_positions_velocities_and_where_it_has_them_accelerations(tmp_path: Path) -> None:
    limits = limits_of(("wheel", "elbow", "slide"), urdf=written(tmp_path, URDF))
    assert limits.names == ("wheel", "elbow", "slide")
    assert limits.lower_rad.tolist() == [-np.inf, -1.5, 0.0]
    assert limits.upper_rad.tolist() == [np.inf, 2.0, 0.4]
    assert limits.velocity_radps.tolist() == [np.inf, 3.0, 0.2]
    assert limits.acceleration_radps2.tolist() == [np.inf, np.inf, 1.5]


def test_the_yaml_file_wins_over_the_urdf_and_common_bounds_tighten_both(tmp_path: Path) -> None:
    files = {"urdf": written(tmp_path, URDF), "joint_limits": written(tmp_path, YAML, "limits.yaml")}
    limits = limits_of(("elbow", "wheel", "thumb"), **files, max_velocity_radps=0.5, max_acceleration_radps2=4.0)
    assert limits.lower_rad.tolist() == [-1.5, -np.inf, 0.0]
    assert limits.velocity_radps.tolist() == [0.5, 0.5, 0.5]
    assert limits.acceleration_radps2.tolist() == [4.0, 2.0, 4.0]
    own = limits_of(("elbow", "wheel"), **files)
    assert own.velocity_radps.tolist() == [1.0, np.inf], "a limit that is switched off is none"


def test_without_files_only_the_common_bounds_hold() -> None:
    limits = limits_of(("a", "b"), max_velocity_radps=2.0)
    assert limits.velocity_radps.tolist() == [2.0, 2.0]
    assert np.isinf(limits.upper_rad).all() and np.isinf(limits.acceleration_radps2).all()


BOMB = '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><robot name="&b;"/>'
OUTSIDE = '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/hostname">]><robot name="&a;"/>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<robot><joint name=", "is not XML"),
        ("", "is not XML"),
        ("<sdf/>", "its root is <sdf>"),
        (BOMB, "DOCTYPE"),
        (OUTSIDE, "DOCTYPE"),
        ('<robot><joint type="revolute"/></robot>', "has no name"),
        ('<robot><joint name="e" type="revolute"/></robot>', "joint 'e' has no <limit>"),
        ('<robot><joint name="e" type="ball"/></robot>', "unknown type 'ball'"),
        ('<robot><joint name="e" type="revolute"><limit lower="low"/></joint></robot>', "lower = 'low'"),
        ('<robot><joint name="e" type="revolute"><limit upper="nan"/></joint></robot>', "upper = 'nan'"),
        ('<robot><joint name="e" type="continuous"><limit velocity="-1"/></joint></robot>', "velocity = '-1'"),
        ('<robot><joint name="e" type="revolute"><limit lower="1" upper="-1"/></joint></robot>', "not below upper"),
        ('<robot><joint name="f" type="continuous"/></robot>', "joint 'e', which the policy commands, is not in"),
    ],
)
def test_a_broken_urdf_is_refused_with_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UserError) as refused:
        limits_of(("e",), urdf=file)
    assert words in str(refused.value) and file in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("joint_limits: [", "is not YAML"),
        ("joints: {}", "holds no 'joint_limits:'"),
        ("joint_limits: {e: 3}", "joint 'e' holds no limits"),
        ("joint_limits: {e: {has_velocity_limits: true}}", "has has_velocity_limits but no max_velocity"),
        ("joint_limits: {e: {max_velocity: fast}}", "max_velocity = 'fast'"),
        ("joint_limits: {e: {max_acceleration: 0}}", "max_acceleration = 0"),
        ("joint_limits: {e: {min_position: 2, max_position: 1}}", "not below upper"),
    ],
)
def test_a_broken_limits_file_is_refused_with_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = written(tmp_path, text, "limits.yaml")
    with pytest.raises(UserError) as refused:
        limits_of(("e",), joint_limits=file)
    assert words in str(refused.value) and file in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        read_urdf(tmp_path / "none.urdf")
