"""Strategies of execution: interpolation, queue, ensemble, real time, delays, running dry."""

import numpy as np
import pytest
from policy_parts import START

from wm_ros.policy.execution import RECENT, Ensemble, Queue, RealTime, Strategy, positions_at
from wm_ros.types import ActionChunk

TENTH = 100_000_000


def chunk(start: float, values: list[float]) -> ActionChunk:
    """One joint, points every 0.1 s from 0.1 s on, made `start` tenths of a second after the start."""
    position = np.asarray(values, np.float32)[:, None]
    return ActionChunk(at(start), "", ("a",), np.arange(1, len(values) + 1) / 10, position)


def at(tenths: float) -> int:
    return START + round(tenths * TENTH)


def targets(strategy: Strategy, *tenths: float) -> list[float | None]:
    found = [strategy.target(at(t)) for t in tenths]
    return [None if f is None else float(f[0]) for f in found]


ALL = {
    "queue": lambda: Queue(5),
    "ensemble": lambda: Ensemble(),
    "real_time": lambda: RealTime(5, 0.1, 4),
}


@pytest.fixture(params=ALL, ids=str)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    made: Strategy = ALL[request.param]()
    return made


def test_points_are_reached_at_their_time_and_interpolated_between(strategy: Strategy) -> None:
    strategy.add(chunk(0, [1, 2, 4]), at(0))
    assert targets(strategy, 0.5, 1, 1.5, 2, 2.25, 3) == pytest.approx([1, 1, 1.5, 2, 2.5, 4])


def test_a_late_chunk_is_entered_where_time_is_now(strategy: Strategy) -> None:
    strategy.add(chunk(0, [1, 2, 4]), at(2))
    assert targets(strategy, 2) == pytest.approx([2])


def test_a_chunk_that_ran_out_gives_nothing(strategy: Strategy) -> None:
    assert strategy.target(START) is None and strategy.left_s(START) == 0.0
    strategy.add(chunk(0, [1, 2]), at(0))
    assert strategy.left_s(at(1)) == pytest.approx(0.1)
    assert strategy.target(at(2) + 1) is None
    assert strategy.left_s(at(3)) == 0.0


def test_dropped_chunks_are_gone_and_their_delays_remembered(strategy: Strategy) -> None:
    strategy.add(chunk(0, [1, 1, 1]), at(1))
    strategy.target(at(1))
    strategy.add(chunk(1, [2, 2, 2]), at(1.5))
    strategy.drop()
    assert strategy.target(at(2)) is None and strategy.left_s(at(2)) == 0.0
    assert strategy.delay_ns == TENTH


def test_the_worst_recent_delay_counts(strategy: Strategy) -> None:
    assert strategy.delay_ns == 0
    for number, delay in enumerate([0.2, 0.7, *[0.1] * (RECENT - 1)]):
        strategy.add(chunk(number, [0, 0]), at(number + delay))
    assert strategy.delay_ns == round(0.7 * TENTH)
    strategy.add(chunk(90, [0, 0]), at(90.1))
    assert strategy.delay_ns == pytest.approx(0.1 * TENTH, abs=2), "older than the last ones"


def test_a_queue_takes_the_newest_chunk_after_its_steps() -> None:
    queue = Queue(3)
    queue.add(chunk(0, [1] * 9), at(0))
    assert targets(queue, 0, 1) == [1, 1]
    queue.add(chunk(1, [2] * 9), at(1))
    queue.add(chunk(2, [3] * 9), at(2))
    assert targets(queue, 2, 2.9, 3, 4, 5.9) == [1, 1, 3, 3, 3]
    assert targets(queue, 6, 9, 11) == [3, 3, 3], "it goes on with its chunk while no other has come"
    assert targets(queue, 11.1) == [None]


def test_before_its_first_point_a_queued_chunk_is_reached_from_the_running_one() -> None:
    queue = Queue(1)
    queue.add(chunk(0, [0, 1, 2, 3]), at(0))
    targets(queue, 1)
    queue.add(chunk(2, [7, 7]), at(2))
    assert targets(queue, 2, 2.5, 3, 4) == pytest.approx([1, 4, 7, 7])


def test_the_ensemble_leaves_out_chunks_that_have_not_begun() -> None:
    ensemble = Ensemble(decay=0.0)
    ensemble.add(chunk(0, [1, 1, 1, 1]), at(0))
    ensemble.add(chunk(2, [3, 3, 3]), at(2))
    assert targets(ensemble, 2, 2.9, 3) == [1, 1, 2]


def test_the_ensemble_weighs_the_oldest_most() -> None:
    ensemble = Ensemble(decay=0.5)
    for start, value in enumerate([1.0, 2.0, 4.0]):
        ensemble.add(chunk(start, [value] * 5), at(start))
    weights = np.exp(-0.5 * np.arange(3))
    assert targets(ensemble, 3) == pytest.approx([weights @ [1, 2, 4] / weights.sum()])


def test_only_chunks_that_cover_now_are_averaged() -> None:
    ensemble = Ensemble(decay=0.0)
    ensemble.add(chunk(0, [1, 1]), at(0))
    ensemble.add(chunk(1, [3, 3, 3]), at(1))
    assert targets(ensemble, 2, 3) == pytest.approx([2, 3])


def test_the_ensemble_starts_afresh_when_stamps_do() -> None:
    ensemble = Ensemble(decay=0.0)
    ensemble.add(chunk(1, [1, 1, 1]), at(1))
    ensemble.add(chunk(-5, [9] * 9), at(2))
    assert targets(ensemble, 3) == [9]


def test_in_real_time_what_the_delay_takes_is_kept_and_the_rest_faded_into() -> None:
    strategy = RealTime(n_action_steps=1, period_s=0.1, fade_steps=3)
    strategy.delays_ns.append(2 * TENTH)
    strategy.add(chunk(0, [0] * 9), at(0))
    targets(strategy, 0)
    strategy.add(chunk(2, [1] * 15), at(2))
    assert targets(strategy, *range(2, 9)) == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1])


def test_in_real_time_a_chunk_that_comes_after_the_last_one_ended_is_taken_as_it_is() -> None:
    strategy = RealTime(n_action_steps=1, period_s=0.1, fade_steps=3)
    strategy.add(chunk(0, [0] * 3), at(0))
    targets(strategy, 0, 3)
    strategy.add(chunk(4, [1] * 5), at(5))
    assert targets(strategy, 5, 6) == [1, 1]


def test_in_real_time_no_step_is_larger_than_the_fade_allows() -> None:
    """Chunks that contradict each other, at twenty control periods to a point of theirs."""
    rng = np.random.default_rng(0)
    strategy = RealTime(n_action_steps=2, period_s=0.005, fade_steps=40)
    jumps, plain = [], []
    queue = Queue(2)
    last: dict[str, float] = {}
    for tick in range(4000):
        now = START + tick * 5_000_000
        if tick % 30 == 0:
            fresh = chunk((now - START) / TENTH - 0.8, [float(rng.normal())] * 12)
            for each in (strategy, queue):
                each.add(fresh, now)
        for name, each, found in (("real_time", strategy, jumps), ("queue", queue, plain)):
            target = each.target(now)
            assert target is not None
            found.append(abs(float(target[0]) - last.get(name, float(target[0]))))
            last[name] = float(target[0])
    # Values differ by less than 4.5; the fade takes 41 steps, of which the first lead to the chunk's first point.
    assert max(jumps) < 4.5 * 2 / 41 < max(plain)


def test_positions_of_a_chunk_at_many_times_and_of_a_single_point() -> None:
    found = positions_at(chunk(0, [1, 3]), np.array([at(t) for t in (0, 1, 1.5, 2, 9)]))
    assert found[:, 0] == pytest.approx([1, 1, 2, 3, 3])
    assert positions_at(chunk(0, [7]), np.array([at(0), at(5)]))[:, 0].tolist() == [7, 7]
