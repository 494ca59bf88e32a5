"""Moments of scenes: what is in a window, and that they are drawn once."""

import numpy as np
import pytest
import torch

from wm_ros.future.config import FutureConfig, TrajectoryConfig
from wm_ros.training import scene_windows
from wm_ros.training.future_windows import batch_of
from wm_ros.training.scene_windows import SceneConfig, SceneWindows, build, mixed

CONFIG = FutureConfig(state_width=8, image_width=64, image_height=48, trajectory=TrajectoryConfig(image="patches"))
SEEDS = "7-9"


def encode(frames):
    """Two tokens that tell images apart."""
    return np.repeat(frames.astype(np.float32).mean((1, 2, 3))[:, None, None] / 255, 16, 1).reshape(-1, 2, 8)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    return build(SceneConfig(seeds=SEEDS), CONFIG, tmp_path_factory.mktemp("cache"), encode, "key")


@pytest.fixture(scope="module")
def windows(arrays):
    like = {"latent": torch.ones(2, 3), "latents": torch.ones(3, 2, 3), "source": torch.tensor(1)}
    like["asked"] = torch.ones(CONFIG.history_steps, 26)
    return SceneWindows(CONFIG, arrays, like)


def test_each_scene_costs_eight_images_and_has_a_window_for_every_object(arrays, windows):
    assert len(arrays.images) == 3 * 8
    first = [i for i in range(len(windows)) if arrays.rows["now"][i] == 0]
    assert len(first) >= 2
    texts = {arrays.texts[arrays.rows["text"][i]] for i in first}
    assert len(texts) == len(first)
    items = [windows[i] for i in first]
    assert all(torch.equal(item["image"], items[0]["image"]) for item in items)
    places = torch.stack([item["where"] for item in items if item["where"].isfinite().all()])
    assert (torch.pdist(places) > 0.05).all()


def test_the_same_image_has_another_future_for_another_word(arrays, windows):
    told = [windows[i] for i in range(len(windows)) if arrays.rows["now"][i] == 0 and windows[i]["there"].all()]
    assert len(told) >= 2
    moved = [(item["future"][-1, :6] - item["body"][-1, :6]).view(2, 3).norm(dim=1) for item in told]
    assert all(int(m.argmax()) == int(moved[0].argmax()) for m in moved)  # the same hand goes
    assert float((told[0]["future"][-1] - told[1]["future"][-1])[:6].norm()) > 0.04


def test_items_collate_with_what_the_model_takes(windows):
    batch = batch_of(torch.utils.data.default_collate([windows[i] for i in range(4)]))
    assert batch.image.shape == (4, 3, 48, 64) and batch.known.shape == (4, 6)
    assert batch.body.shape == (4, CONFIG.history_steps, CONFIG.values) and batch.states.shape == (4, 2, 2, 8)


def test_a_previous_state_is_known_only_where_there_is_an_older_image(arrays, windows):
    for index in range(len(windows)):
        older = int(arrays.rows["previous"][index]) >= 0
        item = windows[index]
        assert bool(item["known"][3]) == older
        assert bool(item["states"][0].any()) == older


def test_scenes_are_drawn_once(arrays, tmp_path, monkeypatch):
    build(SceneConfig(seeds="7"), CONFIG, tmp_path, encode, "key")
    monkeypatch.setattr(scene_windows, "_write", lambda *_: pytest.fail("drawn again"))
    again = build(SceneConfig(seeds="7"), CONFIG, tmp_path, encode, "key")
    np.testing.assert_array_equal(again.images, arrays.images[:8])


def test_windows_can_be_held_out(arrays, windows):
    like = windows.fixed
    train, held_out = SceneWindows(CONFIG, arrays, like, 0.75), SceneWindows(CONFIG, arrays, like, -0.25)
    assert len(train) + len(held_out) == len(windows)
    assert torch.equal(train[0]["body"], windows[0]["body"])
    assert torch.equal(held_out[len(held_out) - 1]["body"], windows[len(windows) - 1]["body"])


def test_the_share_is_of_the_draws(windows):
    class Few:
        def __len__(self):
            return 5

    both = mixed(Few(), windows, share=0.75)
    assert len(both) == 5 + len(windows)
    assert both.weights[5:].sum() / both.weights.sum() == pytest.approx(0.75)
