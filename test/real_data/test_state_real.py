"""The shipped state model on recordings of a real humanoid that it was not trained on."""

import os
from pathlib import Path

import numpy as np
import pytest

from wm_ros.capability import load
from wm_ros.data.sources import episodes
from wm_ros.evaluation.state import StateScorer
from wm_ros.paths import MODELS
from wm_ros.types import Frame

DATA = Path(os.environ.get("WM_DATA", "../shared/data"))
ROBOT = DATA / "robot" / "g1_bottle_15hz"
BUNDLE = MODELS / "state-lite"

pytestmark = pytest.mark.skipif(
    not (ROBOT / "meta" / "info.json").is_file(),
    reason=f"no robot recordings at {ROBOT}: set WM_DATA to the data folder",
)


def test_two_tokens_give_back_more_of_an_unseen_recording_than_principal_components() -> None:
    (episode,) = episodes(f"{ROBOT}?episodes=40")
    state, scorer = load("state", BUNDLE), StateScorer(BUNDLE)
    for number, sample in enumerate(episode.samples()):
        scorer.observe(sample)
        if isinstance(sample, Frame) and number % 4 == 0:
            scorer.predict(state.step(sample))
    metrics = {metric.name: metric.statistics for metric in scorer.finish().metrics}
    for name in ("reconstruction_psnr", "reconstruction_ssim"):
        values = {method: float(np.mean(rows)) for method, rows in metrics[name].items()}
        assert values["model"] > values["pca"] > values["mean_image"]
    assert {"action_r2@k8", "interpolation_psnr"} <= metrics.keys()
