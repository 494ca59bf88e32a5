"""`wm delays` and `wm foresee` as a user runs them, on the shipped bundle."""

import json
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

if find_spec("metaworld") is None:
    pytest.skip("Meta-World is not installed: pip install 'wm_ros[sim]'", allow_module_level=True)

from wm_ros.cli import app
from wm_ros.data.simulator.metaworld_arm import MetaWorldArm
from wm_ros.data.simulator.metaworld_view import View
from wm_ros.errors import UserError


@pytest.fixture(autouse=True)
def drawing():
    try:
        View(MetaWorldArm("reach")).close()
    except UserError as error:
        pytest.skip(str(error))


def test_delays_writes_what_it_prints(tmp_path):
    out = tmp_path / "delays"
    given = ["--task", "drawer-open", "--policy", "policy-metaworld", "--episodes", "1", "--delay-ms", "0"]
    said = CliRunner().invoke(app, ["delays", *given, "--image-every", "12", "--out", str(out)])
    assert said.exit_code == 0, said.output
    row = json.loads((out / "delays.json").read_text())["delays"]["0 ms"]
    assert row["queue"]["success"]["n"] == 1 and "queue" in said.output


def test_foresee_writes_what_it_prints(tmp_path):
    out, data = tmp_path / "foresee", "sim:metaworld?task=reach&image_every=4&seeds="
    given = ["--data", f"{data}0-1", "--test", f"{data}300000-300001", "--out", str(out)]
    said = CliRunner().invoke(app, ["foresee", "policy-metaworld", *given])
    assert said.exit_code == 0, said.output
    found = json.loads((out / "foresee.json").read_text())["metrics"]["ate"]
    assert found["value"] > 0 and set(found["baselines"]) == {"hold", "untrained"} and found["episodes"] == 2
