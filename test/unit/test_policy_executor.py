"""The executor: armed by a chunk and fresh joints, limits, refusals, the watchdog and its safe command."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wm_ros.errors import UserError
from wm_ros.policy.execution import ExecutionConfig
from wm_ros.policy.executor import Command, Executor
from wm_ros.policy.limits import JointLimits
from wm_ros.types import ActionChunk, Joints

NAMES = ("a", "b")
START_NS = 1_000_000_000_000
PERIOD_S = 0.02
LIMITS = JointLimits(NAMES, np.array([-1.0, -0.5]), np.array([1.0, 0.5]), np.full(2, 1.0), np.full(2, 5.0))


class Bench:
    """An executor and a clock that moves by control periods."""

    def __init__(self, limits: JointLimits | None = None, **config: object) -> None:
        settings = {"control_rate_hz": 50.0, "strategy": "queue"} | config
        self.executor = Executor(ExecutionConfig.model_validate(settings), NAMES, 10, 10.0, limits)
        self.ticks = 0

    @property
    def now(self) -> tuple[int, float]:
        return START_NS + self.ticks * 20_000_000, 100.0 + self.ticks * PERIOD_S

    def joints(self, *position: float, names: tuple[str, ...] = NAMES, age_s: float = 0.0) -> str:
        stamp_ns = self.now[0] - round(age_s * 1e9)
        return self.executor.observe(Joints(stamp_ns, "", names, np.asarray(position)), *self.now)

    def chunk(self, position: np.ndarray | list[list[float]], age_s: float = 0.0) -> str:
        values = np.asarray(position, np.float32)
        stamp_ns = self.now[0] - round(age_s * 1e9)
        made = ActionChunk(stamp_ns, "", NAMES, np.arange(1, len(values) + 1) / 10, values)
        return self.executor.add(made, *self.now)

    def tick(self, count: int = 1) -> list[Command]:
        said = []
        for _ in range(count):
            self.ticks += 1
            command = self.executor.tick(*self.now)
            if command is not None:
                said.append(command)
        return said

    def moving(self) -> "Bench":
        self.joints(0.0, 0.0)
        self.chunk([[0.05 * k, 0.0] for k in range(1, 11)])
        assert self.tick(5)
        return self


def test_a_chunk_becomes_one_point_commands_that_mean_now() -> None:
    bench = Bench()
    assert bench.tick(3) == [], "nothing before the first chunk"
    bench.joints(0.1, 0.2)
    bench.chunk([[0.3, 0.4]] * 10)
    (command,) = bench.tick()
    assert command.why == "" and command.chunk.stamp_ns == 0 and command.chunk.names == NAMES
    assert command.chunk.offsets_s.tolist() == [PERIOD_S]
    assert command.chunk.position_rad == pytest.approx(np.array([[0.3, 0.4]]))


def test_it_does_not_start_without_fresh_joints_and_says_so() -> None:
    bench = Bench()
    bench.chunk([[0.0, 0.0]] * 10)
    assert bench.tick() == [] and "joints" in bench.executor.warning()
    bench.joints(0.0, 0.0)
    assert len(bench.tick()) == 1 and bench.executor.warning() == ""


def test_it_does_not_start_from_far_outside_of_the_limits() -> None:
    bench = Bench(LIMITS)
    bench.joints(0.0, 0.7)
    bench.chunk([[0.0, 0.0]] * 10)
    assert bench.tick() == [] and "joint b is 0.20 rad outside" in bench.executor.warning()


@pytest.mark.parametrize(
    ("joints", "words"),
    [
        ({"names": ("b",), "position": (0.1,)}, "missing: a"),
        ({"names": ("a", "b"), "position": (0.1, np.nan)}, "not finite: joint b"),
        ({"names": ("a", "b"), "position": (0.1,)}, "2 joint names but 1 positions"),
        ({"names": ("a", "b"), "position": (0.1, 0.2), "age_s": 0.6}, "stale"),
    ],
)
def test_joints_that_cannot_be_used_are_refused_with_the_reason(joints: dict, words: str) -> None:
    bench = Bench()
    position = joints.pop("position")
    assert words in bench.joints(*position, **joints)
    bench.chunk([[0.0, 0.0]] * 10)
    assert bench.tick() == []


def test_names_decide_and_not_the_order() -> None:
    bench = Bench(LIMITS)
    assert bench.joints(9.0, 0.4, -0.3, names=("x", "b", "a")) == ""
    bench.chunk([[-0.3, 0.4]] * 10)
    assert bench.tick()[0].chunk.position_rad == pytest.approx(np.array([[-0.3, 0.4]]), abs=1e-6)
    shuffled = ActionChunk(bench.now[0], "", ("b", "a"), np.array([0.1, 0.2]), np.array([[0.4, -0.3]] * 2, np.float32))
    assert bench.executor.add(shuffled, *bench.now) == ""
    assert bench.executor.add(shuffled.__class__(0, "", ("b",), np.ones(1), np.ones((1, 1), np.float32)), *bench.now)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_chunk_that_is_not_finite_or_is_over_is_refused(bad: float) -> None:
    bench = Bench()
    bench.joints(0.0, 0.0)
    assert "not finite" in bench.chunk([[0.0, bad]] * 10)
    assert "too late" in bench.chunk([[0.0, 0.0]] * 10, age_s=1.5)
    assert bench.tick(3) == []


NUMBERS = st.one_of(st.floats(-2, 2), st.floats(allow_nan=True, allow_infinity=True, width=32))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(arrays(np.float32, (10, 2), elements=NUMBERS), min_size=1, max_size=6),
    st.sampled_from(["queue", "ensemble", "real_time"]),
    st.sampled_from(["hold", "stop"]),
)
def test_no_chunk_breaks_a_limit_with_any_strategy_safe_command_included(
    chunks: list[np.ndarray], strategy: str, safe_command: str
) -> None:
    bench = Bench(LIMITS, strategy=strategy, safe_command=safe_command, chunk_timeout_s=0.3, n_action_steps=3)
    measured = np.array([[0.5, -0.2]])
    runs: list[list[np.ndarray]] = [
        [measured]
    ]  # each begins at rest where the joints are, and ends with a safe command
    for chunk in chunks:
        bench.chunk(chunk)
        for _ in range(7):
            bench.joints(*measured[0])
            for command in bench.tick():
                runs[-1].append(command.chunk.position_rad)
                if command.why:
                    runs.append([measured])
    last = bench.executor.halt("the end", bench.now[1])
    if last is not None:
        runs[-1].append(last.chunk.position_rad)
    for way in map(np.vstack, runs):
        assert (way >= LIMITS.lower_rad - 1e-9).all() and (way <= LIMITS.upper_rad + 1e-9).all()
        velocity = np.diff(way, axis=0) / PERIOD_S
        assert (np.abs(velocity) <= LIMITS.velocity_radps + 1e-6).all()
        change = np.diff(np.vstack([np.zeros(2), velocity]), axis=0) / PERIOD_S
        assert (np.abs(change) <= LIMITS.acceleration_radps2 + 1e-5).all()


def test_clipped_commands_are_counted() -> None:
    bench = Bench(LIMITS)
    bench.joints(0.0, 0.0)
    bench.chunk([[0.9, 0.0]] * 10)
    bench.tick(4)
    figures = bench.executor.figures(*bench.now)
    assert figures["clipped"] == "4" and figures["clipped_joint"] == "a"


# ---------------------------------------------------------------- watchdog


def test_a_policy_that_stops_answering_gets_the_safe_command_once_and_on_time() -> None:
    bench = Bench(chunk_timeout_s=0.3).moving()
    said = []
    while not said or not said[-1].why:
        bench.joints(0.01, 0.0)
        said += bench.tick()
        assert bench.ticks < 100
    assert bench.ticks * PERIOD_S == pytest.approx(0.3, abs=PERIOD_S + 1e-9), "the chunk came at time 0"
    assert said[-1].why == "no chunk for 0.3 s"
    assert said[-1].chunk.position_rad == pytest.approx(np.array([[0.01, 0.0]]))
    assert bench.tick(50) == [], "once, and then nothing, though the chunk would go on"
    assert "no chunk" in bench.executor.warning()


def test_joints_that_fall_silent_stop_it_where_it_is_commanded_to_be() -> None:
    bench = Bench(joints_timeout_s=0.2, chunk_timeout_s=5.0).moving()
    said = bench.tick(60)
    (safe,) = [command for command in said if command.why]
    assert safe.why == "no joints for 0.2 s"
    assert safe.chunk.position_rad[-1] == pytest.approx(said[-2].chunk.position_rad[0]), "the measured ones are old"


def test_joints_with_old_stamps_are_silent_joints() -> None:
    bench = Bench(joints_timeout_s=0.2, chunk_timeout_s=5.0).moving()
    said = []
    for _ in range(20):
        bench.joints(0.0, 0.0, age_s=0.5)
        said += bench.tick()
    assert sum(bool(command.why) for command in said) == 1


def test_a_queue_that_runs_dry_gets_the_safe_command_at_once() -> None:
    bench = Bench(chunk_timeout_s=5.0, joints_timeout_s=5.0).moving()
    said = bench.tick(60)
    assert said[-1].why == "the queue ran dry" and [bool(c.why) for c in said].count(True) == 1
    assert len(said) + 5 == 50, "1 s of chunk at 50 Hz: the last target is due when the chunk ends"


def test_stop_brakes_within_the_limits_and_ends_where_it_can() -> None:
    bench = Bench(LIMITS, safe_command="stop")
    bench.joints(0.0, 0.0)
    bench.chunk([[0.1 * k, 0.0] for k in range(1, 11)])
    before = bench.tick(20)
    safe = bench.executor.halt("told so", bench.now[1])
    assert safe is not None and safe.why == "told so" and len(safe.chunk.offsets_s) > 3
    way = np.vstack([before[-2].chunk.position_rad, before[-1].chunk.position_rad, safe.chunk.position_rad])
    velocity = np.diff(way, axis=0) / PERIOD_S
    assert (np.diff(velocity[:, 0]) <= 1e-9).all() and velocity[-1] == pytest.approx(0, abs=1e-4)
    assert np.diff(safe.chunk.offsets_s) == pytest.approx(PERIOD_S)


def test_a_safe_command_of_one_point_has_the_time_given_for_it() -> None:
    bench = Bench(hold_time_s=0.25).moving()
    safe = bench.executor.halt("told so", bench.now[1])
    assert safe is not None and safe.chunk.offsets_s.tolist() == [0.25]


def test_what_has_not_moved_is_not_halted_and_a_reset_is_silent() -> None:
    bench = Bench()
    assert bench.executor.halt("deactivated", 0.0) is None
    bench.moving().executor.reset()
    assert bench.executor.halt("deactivated", 0.0) is None and bench.tick(5) == []
    assert bench.executor.halts == 0


def test_it_starts_again_with_the_next_chunk_from_the_measured_joints() -> None:
    bench = Bench(LIMITS).moving()
    bench.executor.halt("told so", bench.now[1])
    bench.joints(-0.4, 0.1)
    bench.chunk([[0.9, 0.1]] * 10)
    (command,) = bench.tick()
    assert command.why == "" and command.chunk.position_rad[0, 0] == pytest.approx(-0.4 + 5.0 * PERIOD_S**2)


def test_figures_for_the_diagnostics() -> None:
    bench = Bench()
    assert bench.executor.figures(*bench.now)["since_chunk_s"] == "never"
    bench.joints(0.0, 0.0)
    bench.chunk([[0.0, 0.0]] * 10, age_s=0.11)
    bench.tick(10)
    figures = bench.executor.figures(*bench.now)
    assert figures["strategy"] == "queue" and figures["since_chunk_s"] == "0.20"
    assert figures["delay_steps"] == "6" and figures["delay_ms"] == "110.0"
    assert figures["queue_s"] == "0.69" and figures["queue_steps"] == "34"
    bench.executor.halt("told so", bench.now[1])
    figures = bench.executor.figures(*bench.now)
    assert figures["safe_commands"] == "1" and figures["last_safe_command"] == "told so"


def test_a_delay_that_leaves_too_little_of_a_chunk_is_a_warning() -> None:
    bench = Bench(n_action_steps=8)
    bench.joints(0.0, 0.0)
    bench.chunk([[0.0, 0.0]] * 10, age_s=0.3)
    bench.tick()
    assert "take 1.10 s" in bench.executor.warning()


def test_more_steps_than_a_chunk_has_are_refused() -> None:
    with pytest.raises(UserError, match="n_action_steps = 11, but a chunk has 10 steps"):
        Bench(n_action_steps=11)
