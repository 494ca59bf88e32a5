"""Chunks are executed at the control rate, within limits; the watchdog's safe command comes on time and comes last.

Times are measured where the messages arrive, over real DDS."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
from workbench import joints, tokens

from wm_ros.kinematics import G1_JOINTS
from wm_ros.messages import encode_sample
from wm_ros.nodes.policy import Policy
from wm_ros.types import ActionChunk, Instruction, Joints

PERIOD_S = 0.05
TRANSPORT_S = 0.02  # of the message, beyond what the node promises


class Robot:
    """Publishes joints fast and tokens at 15 Hz while it waits."""

    def __init__(self, bench, **parameters):
        self.bench = bench
        bench.listen("action_step", "action_chunk", "/diagnostics")
        given = {"execution": "real_time", "control_rate_hz": 1 / PERIOD_S, "max_age_s": 0.0} | parameters
        self.node = bench.active(Policy, **given)
        bench.connect(self.node, "state/tokens", "joint_states", "instruction")
        self.value, self.seed = 0.1, 0
        self.joints = self.tokens = True
        self._next = {"joints": 0.0, "tokens": 0.0}
        self.stalled_s = 0.0

    def until(self, condition, what, timeout_s=10.0):
        """`stalled_s`: for how long this process, in which the node runs too, had to wait for a busy machine."""
        now = time.monotonic()
        end, self.stalled_s = now + timeout_s, 0.0
        while not condition():
            assert time.monotonic() < end, f"within {timeout_s} s: {what}"
            self.feed()
            self.bench.executor.spin_once(timeout_sec=0.005)
            before, now = now, time.monotonic()
            self.stalled_s += max(0.0, now - before - 0.01)

    def run(self, seconds):
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, "time passes", seconds + 5)

    def feed(self):
        now = time.monotonic()
        if self.joints and now >= self._next["joints"]:
            self._next["joints"] = now + 0.01
            self.bench.publish(joints(self.bench.now_ns(), self.value))
        if self.tokens and now >= self._next["tokens"]:
            self._next["tokens"] = now + 1 / 15
            self.seed += 1
            self.bench.publish(tokens(self.bench.now_ns(), self.seed % 5))

    def moving(self):
        self.until(lambda: len(self.steps()) > 5, "it moves")
        return self

    def steps(self):
        return self.bench.decoded("action_step", ActionChunk)

    def safe(self):
        """Steady time and way of each safe command: it is not a single step of one period."""
        found = zip(self.bench.heard_s["action_step"], self.steps(), strict=True)
        return [(at, way) for at, way in found if way.offsets_s != pytest.approx([PERIOD_S])]

    def figures(self):
        return self.bench.status("policy: execution").values


@pytest.mark.parametrize("strategy", ["queue", "ensemble", "real_time"])
def test_it_says_at_the_control_rate_what_to_do_now(bench, strategy):
    robot = Robot(bench, execution=strategy, max_velocity_radps=0.02, max_acceleration_radps2=0.1).moving()
    before = len(robot.steps())
    robot.run(2.0)
    steps = robot.steps()
    assert len(steps) - before == pytest.approx(2.0 / PERIOD_S, abs=3)
    assert {step.names for step in steps} == {G1_JOINTS}
    assert all(step.offsets_s == pytest.approx([PERIOD_S]) for step in steps)
    positions = np.vstack([step.position_rad for step in steps]).astype(np.float64)
    velocity = np.diff(np.vstack([np.full(26, 0.1), positions]), axis=0) / PERIOD_S
    assert np.abs(velocity).max() <= 0.02 + 1e-4
    assert np.abs(np.diff(velocity, axis=0)).max() / PERIOD_S <= 0.1 + 1e-3
    assert robot.safe() == []
    figures = robot.figures()
    assert figures["strategy"] == strategy and int(figures["queue_steps"]) > 5
    assert 0 < float(figures["delay_ms"]) < 200 and int(figures["delay_steps"]) >= 1
    assert int(figures["clipped"]) > 0, "tokens of noise ask for more than the limits allow"
    assert float(figures["since_chunk_s"]) < 0.2 and figures["safe_commands"] == "0"


def test_without_execution_only_chunks_are_said(bench):
    robot = Robot(bench, execution="off")
    robot.until(lambda: len(bench.heard["action_chunk"]) > 5, "chunks")
    assert bench.heard["action_step"] == [] and robot.figures() == {}


# ---------------------------------------------------------------- watchdog


def test_a_model_that_never_answers_gets_the_safe_command_within_a_control_period_of_the_timeout(bench):
    robot = Robot(bench, chunk_timeout_s=0.3).moving()
    step, gate = robot.node.capability.step, threading.Event()
    robot.node.capability.step = lambda sample: step(sample) if isinstance(sample, Joints) else gate.wait(10.0) and None
    robot.run(0.02)
    answered_s = bench.heard_s["action_chunk"][-1]
    robot.until(robot.safe, "the safe command")
    heard_s, safe = robot.safe()[0]
    late_s = heard_s - answered_s - 0.3
    print(f"safe command {late_s * 1e3:.1f} ms after the timeout, of a period of {PERIOD_S * 1e3:.0f} ms")
    assert -TRANSPORT_S < late_s < PERIOD_S + TRANSPORT_S + robot.stalled_s
    assert safe.position_rad == pytest.approx(np.full((1, 26), 0.1)), "the measured joints"
    said = len(robot.steps())
    robot.run(0.5)
    assert len(robot.steps()) == said, "once, and then nothing"
    bench.until(lambda: robot.figures().get("last_safe_command") == "no chunk for 0.3 s", "the reason is said")
    robot.node.capability.step = step
    gate.set()
    robot.until(lambda: len(robot.steps()) > said + 5, "it moves again when the model answers again")


def test_joints_that_fall_silent_get_it_within_a_control_period_of_their_timeout(bench):
    robot = Robot(bench, input_timeout_s=0.3, chunk_timeout_s=5.0).moving()
    robot.joints = False
    silent_s = time.monotonic()
    robot.until(robot.safe, "the safe command")
    late_s = robot.safe()[0][0] - silent_s - 0.3
    print(f"safe command {late_s * 1e3:.1f} ms after the timeout, of a period of {PERIOD_S * 1e3:.0f} ms")
    assert -0.01 - TRANSPORT_S < late_s < PERIOD_S + TRANSPORT_S + robot.stalled_s, (
        "the last joints came up to 0.01 s before"
    )


def test_a_queue_that_runs_dry_gets_it_within_a_control_period_of_its_end(bench):
    robot = Robot(bench, input_timeout_s=10.0, chunk_timeout_s=10.0).moving()
    robot.tokens = False
    robot.until(robot.safe, "the safe command")
    heard_s, _ = robot.safe()[0]
    plans = [chunk for chunk in bench.decoded("action_chunk", ActionChunk) if len(chunk.offsets_s) > 1]
    ended_s = time.monotonic() + (plans[-1].stamp_ns + 10**9 - bench.now_ns()) / 1e9  # the bundle's chunks last 1 s
    late_s = heard_s - ended_s
    print(f"safe command {late_s * 1e3:.1f} ms after the end, of a period of {PERIOD_S * 1e3:.0f} ms")
    assert -PERIOD_S - TRANSPORT_S < late_s < PERIOD_S + TRANSPORT_S + robot.stalled_s
    bench.until(lambda: "dry" in robot.figures().get("last_safe_command", ""), "the reason is said")


@pytest.mark.parametrize("safe_command", ["hold", "stop"])
def test_the_safe_command_is_the_last_thing_sent_on_deactivation(bench, safe_command):
    robot = Robot(bench, safe_command=safe_command, max_velocity_radps=0.5, max_acceleration_radps2=1.0).moving()
    robot.run(0.5)
    last = robot.steps()[-1].position_rad[-1]
    robot.value = 0.12
    robot.run(0.02)
    assert robot.node.trigger_deactivate().name == "SUCCESS"
    robot.run(0.4)
    (_, safe), *more = robot.safe()
    assert not more and robot.steps()[-1] is not None
    np.testing.assert_array_equal(robot.steps()[-1].position_rad, safe.position_rad)
    last_chunk = bench.decoded("action_chunk", ActionChunk)[-1]
    np.testing.assert_array_equal(last_chunk.position_rad, safe.position_rad[-1:])
    velocity = np.diff(np.vstack([last, safe.position_rad]).astype(np.float64), axis=0) / PERIOD_S
    assert np.abs(velocity).max() <= 0.5 + 1e-3, "within the limits too"
    goal = np.full(26, 0.12) if safe_command == "hold" else safe.position_rad[-1]
    assert safe.position_rad[-1] == pytest.approx(goal, abs=1e-4)
    if safe_command == "stop":
        assert np.abs(velocity[-1]).max() <= 1.0 * PERIOD_S + 1e-3 and np.abs(safe.position_rad[-1] - last).max() < 0.2


def test_what_has_not_moved_is_sent_no_safe_command(bench):
    robot = Robot(bench)
    robot.tokens = False
    robot.run(0.8)
    robot.node.trigger_deactivate()
    robot.run(0.2)
    assert bench.heard["action_step"] == []


def poisoned(prediction):
    if prediction is None:
        return None
    positions = prediction.chunk.position_rad.copy()
    positions[3, 5] = np.nan
    return dataclasses.replace(prediction, chunk=dataclasses.replace(prediction.chunk, position_rad=positions))


def failing(prediction):
    if prediction is not None:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("fault", [poisoned, failing])
def test_a_fault_of_the_model_is_answered_by_the_safe_command_and_it_goes_on(bench, fault):
    robot = Robot(bench).moving()
    step = robot.node.capability.step
    robot.node.capability.step = lambda sample: fault(step(sample))
    robot.until(robot.safe, "the safe command")
    assert robot.safe()[0][1].position_rad == pytest.approx(np.full((1, 26), 0.1))
    bench.until(lambda: bench.status("policy: refused").values, "the fault is counted")
    robot.node.capability.step = step
    said = len(robot.steps())
    robot.until(lambda: len(robot.steps()) > said + 5, "it moves again")
    assert all(np.isfinite(chunk.position_rad).all() for chunk in robot.steps())


# ---------------------------------------------------------------- words and joints


def test_another_instruction_drops_the_queue_and_what_the_model_is_at(bench):
    robot = Robot(bench, chunk_timeout_s=5.0, input_timeout_s=5.0)
    bench.publish(Instruction(0, "", "lift the cup"))
    robot.moving()
    bench.publish(Instruction(0, "", "lift the cup"))
    robot.run(0.2)
    assert robot.safe() == [], "the same words are nothing new"
    step, gate, seen = robot.node.capability.step, threading.Event(), []

    def slow(sample):
        seen.append(sample)
        if not isinstance(sample, Joints):
            gate.wait(10.0)
        return step(sample)

    robot.node.capability.step = slow
    robot.until(lambda: any(not isinstance(s, Joints) for s in seen), "the model is at work")
    in_work = next(s for s in seen if not isinstance(s, Joints))
    bench.publish(Instruction(0, "", "push the box"))
    robot.until(robot.safe, "it stops what it was told before")
    said = len(robot.steps())
    robot.run(0.2)
    assert len(robot.steps()) == said, "nothing is left in the queue"
    robot.tokens = False
    gate.set()
    robot.run(0.3)
    stamps = [chunk.stamp_ns for chunk in bench.decoded("action_chunk", ActionChunk)]
    assert in_work.stamp_ns not in stamps, "asked under the old words"
    robot.node.capability.step, robot.tokens = step, True
    robot.until(lambda: len(robot.steps()) > said + 5, "it does what it is told now")


def test_joints_are_known_by_name_in_any_order(bench):
    robot = Robot(bench)
    robot.joints = False
    values = np.linspace(-0.3, 0.3, 26)
    order = np.random.default_rng(0).permutation(26)

    def shuffled():
        names = ("wheel", *(G1_JOINTS[i] for i in order))
        bench.publish(Joints(bench.now_ns(), "", names, np.concatenate([[9.0], values[order]])))
        robot.run(0.02)
        return robot.steps()

    robot.until(shuffled, "it moves")
    robot.node.trigger_deactivate()
    robot.run(0.1)
    assert robot.safe()[0][1].position_rad[-1] == pytest.approx(values, abs=1e-5)


def test_joints_with_stale_stamps_are_refused_and_it_does_not_start(bench):
    robot = Robot(bench)
    robot.joints = False
    for _ in range(20):
        ((_, cdr),) = encode_sample(joints(bench.now_ns() - 800_000_000))
        bench.publish_bytes("joint_states", cdr)
        robot.run(0.03)
    assert bench.heard["action_step"] == []
    refused = bench.status("policy: refused").values
    assert int(refused["stale"]) > 5


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"execution": "fast"}, "execution = 'fast' must be one of off, queue, ensemble, real_time"),
        ({"execution": False}, "YAML reads off as false, put it in quotes"),
        ({"execution": "queue", "n_action_steps": 99}, "n_action_steps = 99, but a chunk has 15 steps"),
        ({"execution": "queue", "urdf": "none.urdf"}, "URDF: no file 'none.urdf'"),
        ({"execution": "queue", "safe_command": "run"}, "safe_command = 'run' must be one of hold, stop"),
    ],
)
def test_a_wrong_parameter_is_refused_with_one_line(bench, parameters, words):
    node = bench.node(Policy, **parameters)
    assert node.trigger_configure().name == "FAILURE"
    assert words in node.problem and "\n" not in node.problem


def test_a_broken_urdf_is_refused_with_one_line(bench, tmp_path):
    file = tmp_path / "robot.urdf"
    file.write_text("<robot><joint name=")
    node = bench.node(Policy, execution="queue", urdf=str(file))
    assert node.trigger_configure().name == "FAILURE"
    assert f"'{file}' is not XML" in node.problem and "\n" not in node.problem


def test_limits_of_a_urdf_hold_on_the_wire(bench, tmp_path):
    limit = '<limit lower="0.0995" upper="0.1005" velocity="0.002" effort="1"/>'
    rows = [f'<joint name="{name}" type="revolute">{limit}</joint>' for name in G1_JOINTS]
    (tmp_path / "robot.urdf").write_text(f"<robot name='g1'>{''.join(rows)}</robot>")
    robot = Robot(bench, urdf=str(tmp_path / "robot.urdf")).moving()
    robot.run(1.0)
    positions = np.vstack([step.position_rad for step in robot.steps()])
    assert positions.min() >= 0.0995 - 1e-6 and positions.max() <= 0.1005 + 1e-6
    assert np.abs(np.diff(positions, axis=0)).max() <= 0.002 * PERIOD_S + 1e-6
    assert np.ptp(positions) > 0.0005, "it moves all the same"


def test_cycles_leak_no_thread_timer_or_guard(bench):
    node = bench.node(Policy, execution="real_time")

    def held():
        kinds = (node.subscriptions, node.publishers, node.timers, node.services, node.guards)
        return [len(list(kind)) for kind in kinds] + [threading.active_count()]

    before = held()
    for _ in range(5):
        for transition in ("configure", "activate", "deactivate", "cleanup"):
            assert getattr(node, f"trigger_{transition}")().name == "SUCCESS"
            bench.spin(0.0)
    assert held() == before
