"""The bench of execution under delay: when chunks are known, what a robot makes of them, and the command for it."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wm_ros.cli import app
from wm_ros.evaluation.chunking import (
    LAG_S,
    KinematicRobot,
    Recording,
    arrivals,
    compare,
    figure,
    simulate,
)
from wm_ros.evaluation.metrics import summarise
from wm_ros.policy.execution import ExecutionConfig
from wm_ros.policy.executor import Executor
from wm_ros.types import ActionChunk

NAMES = ("a", "b")
START_NS = 1_000_000_000_000
IMAGE_NS = round(1e9 / 15)
CONFIG = ExecutionConfig(control_rate_hz=60.0)


def told(stamps_ns: np.ndarray) -> np.ndarray:
    """What is right to command at each stamp."""
    at_s = (stamps_ns - START_NS) / 1e9
    return np.stack([0.5 * np.sin(1.5 * at_s), 0.2 * at_s], -1)


def recording(noise_rad: float = 0.0, seconds: float = 4.0) -> Recording:
    """A policy that knows what is right, but for an error of its own in each chunk."""
    rng = np.random.default_rng(0)
    stamps = START_NS + np.arange(round(seconds * 15)) * IMAGE_NS
    offsets_s = np.arange(1, 16) / 15
    chunks = {}
    for stamp in stamps:
        path = told(stamp + np.rint(offsets_s * 1e9).astype(np.int64)) + rng.normal(0, noise_rad, 2)
        chunks[int(stamp)] = ActionChunk(int(stamp), "", NAMES, offsets_s, path.astype(np.float32))
    return Recording(NAMES, chunks, stamps, told(stamps))


def test_one_inference_at_a_time_works_on_the_newest_image() -> None:
    chunks = recording().chunks
    asked = sorted(chunks)
    at_once = arrivals(chunks.get, asked, 0)
    assert [ready for ready, _ in at_once] == asked
    late = arrivals(chunks.get, asked, round(2.5 * IMAGE_NS))
    worked_on = [(chunk.stamp_ns - START_NS) / IMAGE_NS for _, chunk in late]
    assert worked_on[:4] == pytest.approx([0, 2, 5, 7], abs=1e-6), "what came meanwhile is overtaken"
    assert np.diff([ready for ready, _ in late]) == pytest.approx(2.5 * IMAGE_NS, abs=2), "busy all the time"
    assert arrivals(lambda stamp: None, asked, 0) == []


def test_a_robot_follows_with_its_lag() -> None:
    robot = KinematicRobot(np.zeros(1), lag_s=0.1, period_s=0.01)
    way = [robot.follow(np.ones(1))[0] for _ in range(10)]
    assert way[-1] == pytest.approx(1 - np.exp(-1)) and way == sorted(way)


@pytest.mark.parametrize("strategy", ["queue", "ensemble", "real_time"])
@pytest.mark.parametrize("delay_ms", [0, 150])
def test_chunks_that_are_right_are_followed_however_late(strategy: str, delay_ms: int) -> None:
    metrics = summarise([compare(recording(), CONFIG, (delay_ms,))])
    report = {"metrics": metrics}
    assert figure(report, "tracking_error", delay_ms, strategy) < 2e-3
    assert figure(report, "dry", delay_ms, strategy) == 0.0
    recorded = figure(report, "jerk", delay_ms, "recorded")
    assert figure(report, "jerk", delay_ms, strategy) < 3 * recorded, "corners between the points of a chunk remain"


def test_chunks_that_contradict_each_other_jerk_the_queue_most_and_real_time_least() -> None:
    report = {"metrics": summarise([compare(recording(0.05), CONFIG, (100,))])}
    jerk = {name: figure(report, "jerk", 100, name) for name in ("queue", "ensemble", "real_time")}
    assert jerk["real_time"] < jerk["ensemble"] < jerk["queue"]
    entry = report["metrics"]["jerk@100ms"]
    assert entry["gains"]["queue"][1] > 0, "beyond chance"


def test_a_delay_longer_than_a_chunk_leaves_the_robot_without_commands() -> None:
    executor = Executor(CONFIG, NAMES, 15, 15.0)
    known = arrivals(recording().chunks.get, sorted(recording().chunks), round(1.2e9))
    ticks = range(START_NS, START_NS + 3 * 10**9, round(1e9 / 60))
    motion = simulate(known, ticks, executor, np.zeros(2))
    assert not motion.commanded.any() and (motion.joints == 0).all()


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["chunking", "sim:tabletop?seeds=5&seconds=3", "--out", str(out), "--delay", "0", "--delay", "200"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert "real_time" in said.output and "200 ms" in said.output and "recorded" in said.output
    report = json.loads((out / "metrics.json").read_text())
    assert report["lag_s"] == LAG_S and report["execution"]["control_rate_hz"] == 30.0
    names = {name.partition("@")[0] for name in report["metrics"]}
    assert names == {"tracking_error", "jerk", "dry"} and "jerk@200ms" in report["metrics"]
    assert "open loop" in CliRunner().invoke(app, ["chunking", "--help"]).output
