"""The measure of grounding: what it counts, on paths that are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from wm_ros.data.simulator.tabletop import stages
from wm_ros.evaluation.grounding import Answer, metrics, picked, reachable, subtask_metrics
from wm_ros.evaluation.grounding_report import figures, picture, table
from wm_ros.evaluation.metrics import wilson
from wm_ros.future.history import body_of
from wm_ros.kinematics import G1_JOINTS

TIMES = np.arange(90) / 15.0


@pytest.fixture(scope="module")
def told():
    return stages(11, TIMES, (128, 96), choice=2)


def answer_of(told, right: int, wrong: int) -> Answer:
    """The scene of `told[0]`; the forecast with right and with wrong words is the true motion of another telling."""
    shown = told[0]
    step = int(min(s.scene.plans[0].strokes[0].begin_s for s in told) * 15)

    def path(number: int) -> np.ndarray:
        body = body_of(G1_JOINTS, G1_JOINTS, told[number].joints)[:, :6].reshape(-1, 2, 3).transpose(1, 0, 2)
        begin = int(told[number].scene.plans[0].strokes[0].begin_s * 15)
        return body[:, begin : begin + 31]

    words = {"truth": path(0), "right": path(right), "wrong": path(wrong)}
    start = words["truth"][:, 0]
    paths = {name: each[:, 1:] for name, each in words.items()} | {"none": np.repeat(start[:, None], 30, axis=1)}
    other = next(item for item in shown.scene.items if item.words == told[1].scene.items[0].words)
    return Answer(shown, step, other, start, paths, None)


def test_a_forecast_that_follows_the_words_picks_what_they_name(told):
    answer = answer_of(told, right=0, wrong=1)
    assert picked(answer, answer.paths["right"]) is answer.shown.scene.items[0]
    assert picked(answer, answer.paths["wrong"]) is answer.other
    found = {metric.name: metric.statistics for metric in metrics(answer)}
    assert found["picked"]["model"].item() == found["picked"]["truth"].item() == 1.0
    assert found["picked"]["wrong"].item() == 0.0
    assert found["picked"]["chance"].item() == 1 / len(reachable(answer, answer.side))
    assert found["follows_wrong"]["model"].item() == 1.0
    assert found["wrist_error@2.0s"]["model"].item() < 1e-6 < 50 < found["wrist_error@2.0s"]["wrong"].item()


def test_a_forecast_that_is_deaf_to_words_is_found_out(told):
    found = {metric.name: metric.statistics for metric in metrics(answer_of(told, right=1, wrong=1))}
    assert found["picked"]["model"].item() == 0.0
    errors = found["wrist_error@2.0s"]
    assert errors["model"].item() == errors["wrong"].item() > 50


def test_the_report_has_gains_intervals_and_a_row_per_figure(told):
    report = figures([metrics(answer_of(told, right=0, wrong=1))] * 6)
    gain, low, high = report["wrist_error@2.0s"]["gains"]["wrong"]
    assert low <= gain <= high and gain > 50
    assert report["picked"]["wilson_ci95"]["model"][1] == 1.0
    text = table(report)
    assert all(name in text for name in ("picked (share)", "follows_wrong (share)", "wrist_error@1.0s (mm)"))


def test_the_picture_shows_the_ways_in_their_colours(told):
    shown = picture(answer_of(told, right=0, wrong=1))
    assert shown.shape == (96 * 4, 128 * 4, 3)
    for colour in ((40, 200, 60), (230, 50, 40)):
        assert (np.abs(shown.astype(int) - colour).sum(-1) < 30).sum() > 20


def test_a_phrase_is_judged_beside_the_most_frequent_one():
    answers = [("wait", "wait"), ("wait", "lift"), None, ("lift", "lift"), ("lift", "lift")]
    found = [SimpleNamespace(**m.statistics) for metrics in subtask_metrics(answers) for m in metrics]
    assert [m.model.item() for m in found] == [1.0, 0.0, 1.0, 1.0]
    assert [m.most_frequent.item() for m in found] == [0.0, 1.0, 1.0, 1.0]


def test_the_interval_of_a_share_is_wilsons():
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3
    np.testing.assert_allclose(wilson(81, 263), (0.2553, 0.3662), atol=1e-4)
    np.testing.assert_allclose(wilson(0, 20), (0.0, 0.1611), atol=1e-4)
