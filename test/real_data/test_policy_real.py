"""The shipped policy on a recording of a real humanoid that it was not trained on."""

import os
from pathlib import Path

import pytest

from wm_ros.capability import load
from wm_ros.data.sources import episodes
from wm_ros.evaluation.policy import PolicyScorer
from wm_ros.evaluation.scorer import Scores
from wm_ros.paths import MODELS
from wm_ros.types import Frame, PolicyPrediction, StatePrediction

DATA = Path(os.environ.get("WM_DATA", "../shared/data"))
ROBOT = DATA / "robot" / "g1_bottle_15hz"

pytestmark = pytest.mark.skipif(
    not (ROBOT / "meta" / "info.json").is_file(),
    reason=f"no robot recordings at {ROBOT}: set WM_DATA to the data folder",
)


@pytest.fixture(scope="module")
def episode() -> tuple[int, list[PolicyPrediction], Scores]:
    """One unseen episode through state and policy: number of images, the chunks, the scores."""
    state, policy = load("state", MODELS / "state-lite"), load("policy", MODELS / "policy-lite")
    state.wanted = set()
    scorer = PolicyScorer(MODELS / "policy-lite")
    frames, chunks = 0, []
    for sample in episodes(f"{ROBOT}?episodes=36")[0].samples():
        scorer.observe(sample)
        if isinstance(sample, policy.inputs):
            policy.step(sample)
        if not isinstance(sample, Frame):
            continue
        frames += 1
        seen = state.step(sample)
        assert isinstance(seen, StatePrediction)
        prediction = policy.step(seen.tokens)
        if isinstance(prediction, PolicyPrediction):
            scorer.predict(prediction)
            chunks.append(prediction)
    return frames, chunks, scorer.finish()


def test_every_image_gives_a_chunk(episode: tuple[int, list[PolicyPrediction], Scores]) -> None:
    frames, chunks, _ = episode
    assert len(chunks) == frames > 100


def test_the_chunk_is_nearer_to_what_was_commanded_than_holding_still(
    episode: tuple[int, list[PolicyPrediction], Scores],
) -> None:
    metrics = episode[2].metrics
    assert len(metrics) == 3
    for metric in metrics:
        assert metric.statistics["model"].mean() < metric.statistics["hold"].mean(), metric.name
