"""A user's mistake is one line that names the thing and the remedy, and exit code 2."""

import subprocess
import sys

import pytest


def wm(*arguments, cwd=None):
    return subprocess.run([sys.executable, "-m", "wm_ros.cli", *arguments], capture_output=True, text=True, cwd=cwd)


def assert_one_clear_line(result, *named):
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    for name in named:
        assert name in lines[0]


def test_a_missing_bag(tmp_path):
    assert_one_clear_line(wm("info", str(tmp_path / "none")), "none")
    assert_one_clear_line(wm("eval", str(tmp_path / "none"), "--out", str(tmp_path / "out")), "none")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_a_bag(tmp_path):
    (tmp_path / "broken.mcap").write_bytes(b"not a bag at all")
    assert_one_clear_line(wm("info", str(tmp_path / "broken.mcap")), "broken.mcap")


def test_an_output_folder_with_content_is_refused_and_kept(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    result = wm("simulate", "tabletop", "--seconds", "0.2", "--out", str(tmp_path / "out"))
    assert_one_clear_line(result, "out", "--force")
    assert (tmp_path / "out" / "mine").read_text() == "precious"


def test_a_bundle_that_does_not_fit(tmp_path):
    result = wm("eval", "sim:tabletop?seeds=1&seconds=1", "--bundle", "state=nowhere", "--out", str(tmp_path / "out"))
    assert_one_clear_line(result, "nowhere", "state-lite")


def test_a_wrong_parameter_of_training(tmp_path):
    result = wm("train", "state", "--data", "sim:moon", "--out", str(tmp_path / "run"))
    assert_one_clear_line(result, "sim:moon")


@pytest.mark.parametrize(
    "command",
    ["info", "play", "record", "up", "eval", "train", "convert", "simulate", "doctor", "hands", "robot", "rollout"],
)
def test_help_teaches(command):
    result = wm(command, "--help")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) > 5
