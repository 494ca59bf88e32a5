"""The shipped bundle on a real G1 recording that it was not trained on."""

import os
from pathlib import Path

import numpy as np
import pytest

from wm_ros.capability import load
from wm_ros.data.sources import episodes
from wm_ros.evaluation.future import SCORER
from wm_ros.paths import MODELS
from wm_ros.types import StatePrediction

DATA = Path(os.environ.get("WM_DATA", "../shared/data")) / "robot" / "g1_bottle_15hz"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recordings at {DATA}: set WM_DATA to the data folder")


@pytest.fixture(scope="module")
def scores():
    state, future = load("state", MODELS / "state-lite"), load("future", MODELS / "future-lite")
    scorer = SCORER(MODELS / "future-lite")
    state.wanted, future.wanted = set(), set()  # hands and joints only: frames are scored by `wm eval`

    def hear(sample):
        scorer.observe(sample)
        if isinstance(sample, future.inputs):
            prediction = future.step(sample)
            if prediction is not None:
                scorer.predict(prediction)
        if isinstance(sample, state.inputs):
            seen = state.step(sample)
            if isinstance(seen, StatePrediction):
                hear(seen.tokens)

    for sample in episodes(f"{DATA}?episodes=40")[0].samples():
        hear(sample)
    return scorer.finish()


def test_the_right_wrist_is_quoted(scores):
    assert {row["side"] for row in scores.rows} == {"right"}


# The promise stands and the shipped bundle does not keep it (its card says by how much); strict, so that a bundle that
# does keep it has this mark removed.
@pytest.mark.parametrize(
    ("horizon", "baseline"),
    [
        ("0.5s", "hold"),
        ("0.5s", "constant_velocity"),
        ("0.5s", "phase"),
        ("2.0s", "hold"),
        ("2.0s", "constant_velocity"),
        ("2.0s", "phase"),
    ],
)
def test_the_wrist_is_foreseen_better_than_by(scores, horizon, baseline):
    metric = next(metric for metric in scores.metrics if metric.name == f"hand_ade_moving@{horizon}")
    assert metric.statistics["model"].mean() < metric.statistics[baseline].mean()


def test_errors_are_of_the_size_of_a_wrist_motion(scores):
    """Millimetres: a mix-up of units or frames would be a thousand times off."""
    metric = next(metric for metric in scores.metrics if metric.name == "hand_ade@0.2s")
    assert 0.2 < np.mean(metric.statistics["model"]) < 5.0
