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


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, float]]:
    """Figures of every method on one unseen episode, by metric."""
    (episode,) = episodes(f"{ROBOT}?episodes=40")
    state, scorer = load("state", BUNDLE), StateScorer(BUNDLE)
    for sample in episode.samples():
        scorer.observe(sample)
        if isinstance(sample, Frame):
            scorer.predict(state.step(sample))
    found = {}
    for metric in scorer.finish().metrics:
        figure = (
            (lambda rows: float(np.mean(rows)))
            if metric.pooled is None
            else lambda rows, m=metric: m.pooled(rows.sum(0))
        )
        found[metric.name] = {method: figure(rows) for method, rows in metric.statistics.items()}
    return found


def test_two_tokens_give_back_more_of_an_unseen_recording_than_principal_components(figures) -> None:
    psnr, ssim = figures["reconstruction_psnr"], figures["reconstruction_ssim"]
    assert psnr["model"] > psnr["pca"] + 0.3 > psnr["mean_image"]
    assert ssim["model"] > ssim["pca"] + 0.02 > ssim["mean_image"]


def test_the_mean_of_two_states_is_the_image_between_them(figures) -> None:
    psnr, hand = figures["interpolation_psnr"], figures["interpolation_ssim_hand"]
    assert psnr["model"] > psnr["first"] + 1.5
    assert psnr["model"] > psnr["pca"]
    assert hand["model"] > hand["pixel_mean"]


def test_a_change_of_state_tells_the_change_of_the_arm(figures) -> None:
    for k in (1, 2, 4, 8):
        assert figures[f"action_r2@k{k}"]["model"] > figures[f"action_r2@k{k}"]["pca"]
