"""Figures, best baselines, gains and intervals of metrics.json."""

import numpy as np

from wm_ros.evaluation.metrics import summarise, tidy_row
from wm_ros.evaluation.scorer import Metric


def error_metric(model, hold, name="error@1.0s"):
    return Metric(name, "m", "lower", {"model": np.array(model), "hold": np.array(hold)})


def test_gain_is_positive_when_a_lower_error_is_better():
    entry = summarise([[error_metric([1.0, 1.0], [3.0, 3.0])]])["error@1.0s"]
    assert entry["value"] == 1.0
    assert entry["baselines"] == {"hold": 3.0}
    assert entry["gain"] == 2.0
    assert entry["gain_ci95"] == [2.0, 2.0]


def test_best_baseline_is_the_strongest_in_the_direction_of_the_metric():
    statistics = {"model": np.ones(4), "weak": np.full(4, 0.1), "strong": np.full(4, 0.9)}
    entry = summarise([[Metric("ap@1.0s", "1", "higher", statistics)]])["ap@1.0s"]
    assert entry["best_baseline"] == "strong"
    assert np.isclose(entry["gain"], 0.1)
    assert np.allclose(entry["gains"]["weak"], 0.9)


def test_interval_spans_zero_when_model_and_baseline_are_drawn_alike():
    rng = np.random.default_rng(1)
    episodes = [[error_metric(rng.normal(5, 1, 20), rng.normal(5, 1, 20))] for _ in range(20)]
    low, high = summarise(episodes)["error@1.0s"]["gain_ci95"]
    assert low < 0 < high


def test_interval_is_over_episodes_when_there_are_enough_and_over_blocks_otherwise():
    few = summarise([[error_metric(np.ones(40), np.ones(40))]])["error@1.0s"]
    many = summarise([[error_metric(np.ones(4), np.ones(4))] for _ in range(6)])["error@1.0s"]
    assert few["gain_ci95_over"] == "blocks of 10 predictions"
    assert many["gain_ci95_over"] == "episodes"


def test_pooled_figure_comes_from_summed_rows_not_from_a_mean_of_ratios():
    hits_and_trials = np.array([[1.0, 1.0], [0.0, 9.0]])
    metric = Metric("iou@1.0s", "1", "higher", {"model": hits_and_trials}, pooled=lambda total: total[0] / total[1])
    assert summarise([[metric]])["iou@1.0s"]["value"] == 0.1


def test_equal_input_gives_equal_output():
    episodes = [[error_metric(np.arange(7.0) + i, np.arange(7.0) * 1.1)] for i in range(8)]
    assert summarise(episodes) == summarise(episodes)


def test_rows_are_rounded_and_plain():
    row = tidy_row({"a": np.float32(1 / 3), "b": np.int64(2), "c": {"d": [0.123456789, True, None]}, "e": float("nan")})
    assert row == {"a": 0.333333, "b": 2, "c": {"d": [0.123457, True, None]}, "e": None}
