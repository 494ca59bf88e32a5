"""Execution of chunks: interpolation, newest and ensemble, running dry."""

import numpy as np
import pytest
from policy_parts import START

from wm_ros.policy.execution import ChunkExecution
from wm_ros.types import ActionChunk

TENTH = 100_000_000


def chunk(start: int, values: list[float], names: tuple[str, ...] = ("a",)) -> ActionChunk:
    """One joint, points every 0.1 s from 0.1 s on, made `start` tenths of a second after the start."""
    position = np.repeat(np.asarray(values, np.float32)[:, None], len(names), 1)
    return ActionChunk(START + start * TENTH, "", names, np.arange(1, len(values) + 1) / 10, position)


def test_points_are_reached_at_their_time_and_interpolated_between() -> None:
    execution = ChunkExecution("newest")
    execution.add(chunk(0, [1, 2, 4]))
    got = [execution.command(START + round(t * TENTH)) for t in (0.5, 1, 1.5, 2, 2.25, 3)]
    assert [float(c[0]) for c in got if c is not None] == pytest.approx([1, 1, 1.5, 2, 2.5, 4])


def test_a_chunk_that_ran_out_gives_nothing() -> None:
    execution = ChunkExecution("ensemble")
    assert execution.command(START) is None
    execution.add(chunk(0, [1, 2]))
    assert execution.left_s(START + TENTH) == pytest.approx(0.1)
    assert execution.command(START + 2 * TENTH + 1) is None
    assert execution.left_s(START + 3 * TENTH) == 0.0


def test_newest_replaces_the_rest() -> None:
    execution = ChunkExecution("newest")
    execution.add(chunk(0, [1, 1, 1]))
    execution.add(chunk(1, [5, 5, 5]))
    command = execution.command(START + 2 * TENTH)
    assert command is not None and command[0] == 5


def test_ensemble_weighs_the_oldest_most() -> None:
    execution = ChunkExecution("ensemble", decay=0.5)
    for start, value in enumerate([1.0, 2.0, 4.0]):
        execution.add(chunk(start, [value] * 5))
    weights = np.exp(-0.5 * np.arange(3))
    command = execution.command(START + 3 * TENTH)
    assert command is not None and command[0] == pytest.approx(weights @ [1, 2, 4] / weights.sum())


def test_only_chunks_that_cover_now_are_averaged() -> None:
    execution = ChunkExecution("ensemble", decay=0.0)
    execution.add(chunk(0, [1, 1]))
    execution.add(chunk(1, [3, 3, 3]))
    at_two, at_three = (execution.command(START + t * TENTH) for t in (2, 3))
    assert at_two is not None and at_two[0] == pytest.approx(2)
    assert at_three is not None and at_three[0] == pytest.approx(3)


@pytest.mark.parametrize("fresh", [chunk(-5, [9] * 9), chunk(2, [9, 9, 9], ("b",))])
def test_an_older_chunk_or_other_joints_start_afresh(fresh: ActionChunk) -> None:
    execution = ChunkExecution("ensemble", decay=0.0)
    execution.add(chunk(1, [1, 1, 1]))
    execution.add(fresh)
    command = execution.command(START + 3 * TENTH)
    assert command is not None and command[0] == 9


def test_reset_drops_all() -> None:
    execution = ChunkExecution()
    execution.add(chunk(0, [1, 1]))
    execution.reset()
    assert execution.command(START + TENTH) is None


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="newest or ensemble"):
        ChunkExecution("fastest")  # type: ignore[arg-type]
