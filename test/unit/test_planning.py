"""`wm planning`: the true chunk hidden among wrong ones, what it is ranked by, and the report."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from wm_ros.cli import app
from wm_ros.data.sources import episodes
from wm_ros.evaluation.planning import CHUNK_S, Case, Ranking, cases
from wm_ros.evaluation.replay import Pipeline
from wm_ros.paths import MODELS
from wm_ros.types import JointCommand, Joints

SOURCE = "sim:tabletop?seeds=300000-300001&seconds=3.2"


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    pipeline = Pipeline(["state", "future"], {name: MODELS / f"{name}-lite" for name in ("state", "future")})
    pipeline.capability("future").wanted = set()
    return pipeline


@pytest.fixture(scope="module")
def found(pipeline: Pipeline) -> list[list[Case]]:
    return [cases(episode, pipeline, every_s=0.5) for episode in episodes(SOURCE)]


def test_a_case_is_a_moment_and_the_commands_after_it(found: list[list[Case]]) -> None:
    episode = list(episodes(SOURCE)[0].samples())
    begin_ns = episode[0].stamp_ns
    commands = {sample.stamp_ns: sample.position_rad for sample in episode if isinstance(sample, JointCommand)}
    measured = {s.stamp_ns: s.position_rad for s in episode if type(s) is Joints}
    assert [round((case.moment.stamp_ns - begin_ns) / 1e9, 1) for case in found[0]] == [0.8, 1.3, 1.9]
    for case in found[0]:
        np.testing.assert_array_equal(case.now, measured[case.moment.stamp_ns])
        end = min(commands, key=lambda stamp: abs(stamp - case.moment.stamp_ns - CHUNK_S * 1e9))
        np.testing.assert_allclose(case.chunk[-1], commands[end], atol=1e-6)
        assert case.chunk.shape == (15, 26) and case.moment.window.known.previous


def test_images_between_the_moments_do_not_matter(pipeline: Pipeline, found: list[list[Case]]) -> None:
    """What was seen at a moment is the same as if every image had been looked at."""
    pipeline.reset()
    future, seen = pipeline.capability("future"), {}
    for sample in episodes(SOURCE)[0].samples():
        if isinstance(sample, JointCommand):
            continue
        for _ in pipeline.step(sample):
            pass
        if future.moment is not None:  # type: ignore[attr-defined]
            seen[future.moment.stamp_ns] = future.moment  # type: ignore[attr-defined]
    for case in found[0]:
        full = seen[case.moment.stamp_ns]
        np.testing.assert_allclose(case.moment.forecast.body.numpy(), full.forecast.body.numpy(), atol=1e-5)


def test_the_true_chunk_is_first_where_it_costs_least(pipeline: Pipeline, found: list[list[Case]]) -> None:
    class Fixed(Ranking):
        def _costs(self, case, chunks):
            assert np.allclose(chunks[0], case.chunk, atol=1e-6) and len(chunks) == 4
            return {"model": np.array([1.0, 0.5, 2.0, 3.0]), "forecast": np.array([0.0, 1.0, 1.0, 1.0])}

    own, others = found
    ranking = Fixed(pipeline.capability("future"), samples=4)  # type: ignore[arg-type]
    metrics = {metric.name: metric.statistics for metric in ranking.metrics(own, others)}
    assert metrics["first_elsewhere"]["model"].mean() == 0 and metrics["first_elsewhere"]["forecast"].mean() == 1
    assert metrics["beaten_spread_0.1"]["model"].mean() == pytest.approx(2 / 3)
    assert metrics["first_elsewhere"]["chance"].mean() == 0.25


def test_wrong_chunks_from_elsewhere_begin_where_the_joints_are(pipeline: Pipeline, found: list[list[Case]]) -> None:
    own, others = found
    chunks = Ranking(pipeline.capability("future"), samples=4)._elsewhere(own[0], others)  # type: ignore[arg-type]
    assert len({chunk.tobytes() for chunk in chunks}) == 4
    ways = [other.chunk - other.now for other in others]
    for chunk in chunks[1:]:
        assert any(np.allclose(chunk - own[0].now, way, atol=1e-6) for way in ways)


def test_the_command_prints_and_writes_the_same_twice(tmp_path) -> None:
    for name in ("one", "two"):
        given = ["planning", SOURCE, "--out", str(tmp_path / name), "--samples", "4"]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 0, result.output
        assert "elsewhere" in result.output and "25.0%" in result.output
    assert (tmp_path / "one" / "metrics.json").read_bytes() == (tmp_path / "two" / "metrics.json").read_bytes()
    report = json.loads((tmp_path / "one" / "metrics.json").read_text())
    entry = report["metrics"]["first_spread_0.1"]
    assert set(entry["baselines"]) == {"chance", "forecast", "least_motion"} and entry["n"] == 6
    low, high = entry["wilson_ci95"]
    assert low <= entry["value"] <= high


def test_too_few_moments_are_refused(tmp_path) -> None:
    result = CliRunner().invoke(app, ["planning", SOURCE.replace("3.2", "1.5"), "--out", str(tmp_path / "out")])
    assert "too few moments" in str(result.exception)
