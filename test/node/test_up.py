"""`wm up` as a user runs it: a process of its own, stopped by signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import rclpy
import yaml
from rclpy.context import Context

from wm_ros.nodes import shared_memory
from wm_ros.nodes.supervisor import back_off_s
from wm_ros.paths import CONFIG, MODELS
from wm_ros.up import check, overriding


class Running:
    """`wm up` with its printed lines."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "wm_ros.cli", "up", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self.reader = threading.Thread(
            target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")), daemon=True
        )
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()

    def until(self, pattern, timeout_s=40.0):
        """Wait for the first line that matches; lines found once are not found again."""
        end, seen = time.monotonic() + timeout_s, 0
        while True:
            for number, line in enumerate(self.lines):
                if re.search(pattern, line):
                    del self.lines[: number + 1]
                    return line
            seen = len(self.lines)
            assert time.monotonic() < end and self.process.poll() is None, (pattern, seen, self.lines)
            time.sleep(0.05)

    def stop(self, number=signal.SIGINT):
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(10)
        self.reader.join()
        self.process.stdout.close()
        return time.monotonic() - began


def nodes_of(parent_pid):
    """pids of the node processes that a `wm up` has started."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "status").read_text()
                command = (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if f"PPid:\t{parent_pid}\n" in status and "wm_ros.nodes." in command:
                pids.append(int(entry.name))
    return pids


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_brings_nodes_up_in_order_and_stops_them_in_reverse_within_5_s_leaving_nothing(number):
    before = {path.name for path in Path("/dev/shm").iterdir()}
    with Running("--nodes", "monitor", "--nodes", "state_tokenizer") as up:
        up.until(r"^state_tokenizer +active")
        up.until(r"^monitor +active")
        pids = nodes_of(up.process.pid)
        assert len(pids) == 2
        shared = set().union(*(shared_memory.used_by(pid) for pid in (*pids, up.process.pid)))
        assert shared, "the nodes use shared memory"
        sockets = [c for pid in (*pids, up.process.pid) for c in psutil.Process(pid).net_connections(kind="tcp")]
        assert not [c for c in sockets if c.status == psutil.CONN_LISTEN], "no listening socket"
        assert up.stop(number) < 5.0
        assert up.process.returncode == 0
        ended = [line.split()[0] for line in up.lines if re.search(r"^\w+ +ended +stopped", line)]
        assert ended == ["monitor", "state_tokenizer"]
        assert not any(alive(pid) for pid in pids)
        ours = shared_memory.used_by("self")  # the test itself takes part and may hold a port open
        left = {path.name for path in Path("/dev/shm").iterdir()} - before
        left = {name for name in left if not any(own in name for own in ours)}
        assert not {name for name in left if any(own in name for own in shared)}


def test_a_killed_node_is_started_again_after_a_pause(tmp_path):
    with Running("--nodes", "monitor") as up:
        up.until(r"^monitor +active")
        (pid,) = nodes_of(up.process.pid)
        shared = shared_memory.used_by(pid)
        os.kill(pid, signal.SIGKILL)
        up.until(r"^monitor +waiting +exit code -9; starts again in 1 s")
        up.until(r"^monitor +active")
        (again,) = nodes_of(up.process.pid)
        assert again != pid
        up.stop()
        shared -= shared_memory.used_by("self")
        assert not [name for name in shared if (Path("/dev/shm") / name).exists()], "what the killed one left is gone"


def test_nodes_end_with_a_killed_wm_up():
    with Running("--nodes", "monitor") as up:
        up.until(r"^monitor +active")
        (pid,) = nodes_of(up.process.pid)
        shared = shared_memory.used_by(pid) | shared_memory.used_by(up.process.pid)
        up.stop(signal.SIGKILL)
        end = time.monotonic() + 5.0
        while alive(pid):
            assert time.monotonic() < end, "the node outlives wm up"
            time.sleep(0.05)
        shared_memory.remove_unused(shared)


def test_the_pause_grows_to_half_a_minute():
    assert [back_off_s(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


def edited(tmp_path, node, **parameters):
    """The shipped parameter file with other values for one node."""
    tree = yaml.safe_load((CONFIG / "wm.yaml").read_text())
    tree[f"/**/{node}"]["ros__parameters"] |= parameters
    file = tmp_path / "wm.yaml"
    file.write_text(yaml.safe_dump(tree))
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda tmp: ["--nodes", "lidar"], "no node 'lidar'; choose from lidar_encoder"),
        (lambda tmp: ["--params", "none.yaml"], "no parameter file 'none.yaml'"),
        (lambda tmp: ["--params", edited(tmp, "policy", bundel="x")], "policy has no parameter 'bundel'"),
        (lambda tmp: ["--params", edited(tmp, "policy", bundle="none")], "no bundle 'none'"),
        (
            lambda tmp: ["--nodes", "policy", "--params", edited(tmp, "policy", bundle="state-lite")],
            "capability is 'state', expected 'policy'",
        ),
    ],
)
def test_what_cannot_work_ends_with_one_line_and_exit_code_2(tmp_path, arguments, words):
    command = [sys.executable, "-m", "wm_ros.cli", "up", *arguments(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("namespace", ["", "/robot1"])
def test_a_bundle_that_is_asked_for_wins_over_the_parameter_file(tmp_path, namespace):
    chosen = check(CONFIG / "wm.yaml", ["state_tokenizer", "monitor"], {"state": "state-lite"})
    arguments = ["--ros-args", "--params-file", str(CONFIG / "wm.yaml"), *overriding(tmp_path, chosen)]
    context = Context()
    rclpy.init(args=[*arguments, "-p", "use_sim_time:=true"], context=context)
    try:
        node = rclpy.create_node(
            "state_tokenizer",
            context=context,
            namespace=namespace or None,
            automatically_declare_parameters_from_overrides=True,
        )
        assert node.get_parameter("bundle").value == str((MODELS / "state-lite").resolve())
        assert node.get_parameter("use_sim_time").value is True
        assert node.get_parameter("cycle_warn_ms").value == 133.0, "the rest is that of the file"
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
