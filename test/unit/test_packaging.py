"""What `colcon build` installs is where `ros2 run` and `ros2 launch` look for it."""

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from wm_ros import topics

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Install a copy of the checkout as colcon does for ament_python (setup.py install into a prefix)."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("prefix")
    for name in ("package.xml", "setup.py", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for name in ("resource", "wm_ros", "launch", "config", "models", "samples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--single-version-externally-managed", "--record", str(source / "record.txt")]
    command = [sys.executable, "setup.py", "-q", "install", "--prefix", str(target), *options]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return target


def test_the_ament_index_knows_the_package(prefix):
    assert (prefix / "share/ament_index/resource_index/packages/wm_ros").is_file()
    assert (prefix / "share/wm_ros/package.xml").is_file()


def test_ros2_run_finds_every_node_and_wm(prefix):
    found = {path.name for path in (prefix / "lib/wm_ros").iterdir()}
    assert found == {*topics.NODES, "wm"}


def test_ros2_launch_finds_launch_parameters_view_and_models(prefix):
    for name in ("launch/wm.launch.py", "config/wm.yaml", "config/wm.rviz", "config/fastdds.xml"):
        assert (prefix / "share/wm_ros" / name).is_file(), name
    bundles = {path.name for path in (prefix / "share/wm_ros/models").iterdir()}
    assert {f"{name}-lite" for name in ("lidar", "state", "future", "policy")} <= bundles


def test_the_installed_package_finds_its_share_folder(prefix):
    packages = next(prefix.glob("lib/python*/site-packages"))
    code = "from wm_ros.paths import SHARE; print(SHARE)"
    options = {"cwd": prefix, "env": {"PYTHONPATH": str(packages), "PATH": "/usr/bin:/bin"}}
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, **options)
    assert Path(said.stdout.strip()) == prefix / "share" / "wm_ros"


def test_package_xml_is_format_3_and_has_what_rep_149_asks_for():
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.get("format") == "3"
    for tag in ("name", "version", "description", "maintainer", "license"):
        assert package.findtext(tag), tag
    assert package.find("export/build_type").text == "ament_python"
    assert package.find("maintainer").get("email")


def test_versions_agree():
    import wm_ros

    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.findtext("version") == wm_ros.__version__
    assert f'version="{wm_ros.__version__}"' in (ROOT / "setup.py").read_text()
