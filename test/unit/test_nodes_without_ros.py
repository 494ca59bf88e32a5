"""The parts of the nodes that need no ROS: what is refused, what is said, when a process is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wm_ros.errors import UserError
from wm_ros.messages.status import ERROR, OK, WARN
from wm_ros.nodes import shared_memory
from wm_ros.nodes.diagnostics import CycleBudget, Window
from wm_ros.nodes.intake import Intake, Streaks
from wm_ros.nodes.parameters import PARAMETERS, read_file
from wm_ros.policy.execution import SAFE_COMMANDS, STRATEGIES
from wm_ros.policy.realtime import SCHEDULES

S = 10**9


@pytest.mark.parametrize(
    ("stamp_ns", "now_ns", "kind"),
    [
        (11 * S, 11 * S, ""),
        (10 * S, 11 * S, "repeated"),
        (10 * S - 1, 11 * S, "out of order"),
        (7 * S, 11 * S, "too old"),
        (14 * S, 11 * S, "ahead of the clock"),
        (8 * S, 9 * S, ""),  # far behind the newest, but right by the clock: it has begun anew
        (10**18, 0, ""),  # simulated time has not begun: no age is known
    ],
)
def test_a_stamp_is_judged_by_the_clock_and_by_the_newest_before_it(stamp_ns, now_ns, kind):
    intake = Intake(max_age_s=2.0, newest_ns={"points": 10 * S})
    assert intake.refusal("points", stamp_ns, now_ns).partition(":")[0] == kind


def test_a_jump_back_is_told_from_a_late_message():
    intake = Intake(0.0, {"points": 10 * S})
    assert intake.jumped_back("points", 9 * S) and not intake.jumped_back("points", 9 * S + 1)
    assert not intake.jumped_back("odom", 1)


def test_a_streak_speaks_once_and_again_only_after_something_good():
    streaks = Streaks()
    assert [streaks.bad("points", "malformed") for _ in range(3)] == [True, False, False]
    assert streaks.bad("odom", "malformed"), "another source, another streak"
    streaks.good("points")
    assert streaks.bad("points", "malformed")
    assert streaks.total["malformed"] == 5


def test_one_slow_cycle_warns_and_a_lasting_one_is_an_error():
    budget = CycleBudget(warn_ms=200, error_ms=1000)
    budget.add(0.0, 0.1, {"model": 90.0})
    assert budget.status("n").level == OK
    budget.add(1.0, 1.25, {})
    budget.add(2.0, 2.1, {})
    assert budget.status("n").level == WARN, "a single slow cycle is seen though the next was fast"
    assert budget.status("n").level == OK
    for start in (3.0, 3.4, 3.8):
        budget.add(start, start + 0.4, {"model": 390.0})
    assert budget.status("n").level == ERROR, "1.2 s over budget without a break"
    assert budget.status("n").values["stage_model_ms"] == "390.0"


def test_figures_are_median_p95_and_last_over_bounded_memory():
    window = Window()
    assert window.figures("ms") == {"count": "0"}
    for value in range(1, 1001):
        window.add(float(value))
    assert window.figures("ms") == {"median_ms": "900.5", "p95_ms": "990.0", "last_ms": "1000.0", "count": "1000"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy: {ros__parameters: {bundel: x}}", "policy has no parameter 'bundel'"),
        ("policy: {ros__parameters: {threads: 1.5}}", "threads = 1.5 must be a whole number"),
        ("policy: {ros__parameters: {max_age_s: 2}}", "max_age_s = 2 must be a number with a point"),
        ("policy: {ros__parameters: {max_age_s: -1.0}}", "must be from 0 to 3600"),
        ("policy: {ros__parameters: {execution: off}}", "execution = False must be text: YAML reads off as false"),
        ("policy: {ros__parameters: {safe_command: run}}", "safe_command = 'run' must be one of hold, stop"),
        ("polisy: {ros__parameters: {threads: 1}}", "no node 'polisy'"),
        ("policy: {threads: 1}", "'policy' must hold 'ros__parameters:'"),
        ("policy: {ros__parameters: [", "line 1 is not YAML"),
        ("", "holds no"),
    ],
)
def test_a_parameter_file_is_refused_with_the_line_that_names_what_is_wrong(tmp_path, text, words):
    file = tmp_path / "wm.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        read_file(file)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_choices_in_the_table_are_those_of_the_library():
    rows = {row.name: row.choices for row in PARAMETERS["policy"]}
    assert rows["execution"] == ("off", *STRATEGIES)
    assert (rows["fade_schedule"], rows["safe_command"]) == (SCHEDULES, SAFE_COMMANDS)


def test_a_missing_parameter_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no parameter file"):
        read_file(tmp_path / "none.yaml")


def test_shared_memory_of_a_killed_process_is_removed_and_of_a_living_one_kept():
    names = [f"{shared_memory.PREFIX}test{os.getpid()}{kind}" for kind in ("dead", "alive")]
    code = (
        "import mmap,sys,time; files=[open('/dev/shm/'+n,'wb+') for n in sys.argv[1:]];"
        "[f.truncate(4096) for f in files]; maps=[mmap.mmap(f.fileno(),4096) for f in files];"
        "print('ready',flush=True); time.sleep(60)"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE) for name in names]
    try:
        for child in children:
            assert child.stdout.readline() == b"ready\n"
        used = [shared_memory.used_by(child.pid) for child in children]
        assert used == [{names[0]}, {names[1]}]
        children[0].send_signal(signal.SIGKILL)
        children[0].wait()
        assert shared_memory.remove_unused(names) == [names[0]]
        assert not (Path("/dev/shm") / names[0]).exists() and (Path("/dev/shm") / names[1]).exists()
    finally:
        for child in children:
            child.kill()
            child.wait()
            child.stdout.close()
        shared_memory.remove_unused(names)
