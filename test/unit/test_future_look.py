"""Stage I that looks: where attention goes, what it is taught, and that it does without an image."""

import pytest
import torch

from wm_ros.bundle import TrainingRecord
from wm_ros.future import FutureCapability
from wm_ros.future import model as bundles
from wm_ros.future.config import FramesConfig, FutureConfig, TrajectoryConfig
from wm_ros.future.history import Batch
from wm_ros.future.look import Look, cell_places, where_loss
from wm_ros.future.losses import drop_modalities, subtask_loss
from wm_ros.future.model import FutureModel
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.nn.language import batch_ids
from wm_ros.paths import bundle_path

CONFIG = FutureConfig(
    state_width=16,
    image_height=32,
    image_width=64,
    trajectory=TrajectoryConfig(width=32, layers=1, heads=2, image="patches", look_width=32, look_queries=2),
    frames=FramesConfig(width=32, layers=1, heads=2, fusion_layers=2),
    autoencoder=AutoencoderConfig(channels=4, width=16, blocks=1),
    subtasks=("wait", "lift the object"),
)


@pytest.fixture(scope="module")
def model() -> FutureModel:
    torch.manual_seed(0)
    model = FutureModel(CONFIG).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "body_out" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def batch_of(text: str = "lift the red can", image: bool = True) -> Batch:
    torch.manual_seed(1)
    body, states = torch.randn(3, CONFIG.history_steps, CONFIG.values), torch.randn(3, 2, 2, CONFIG.state_width)
    shown = torch.rand(3, 3, 32, 64) if image else None
    known, asked = torch.ones(3, 6, dtype=torch.bool), torch.zeros(3, CONFIG.history_steps, 26)
    return Batch(body, states, batch_ids([text] * 3), known, asked, shown)


def test_attention_is_a_share_of_each_place_and_depends_on_words_and_image(model):
    seen = model.trajectory(batch_of()).attention
    assert seen.shape == (3, 4, 8)
    assert torch.allclose(seen.sum((1, 2)), torch.ones(3), atol=1e-5)
    assert not torch.allclose(seen, model.trajectory(batch_of("lift the blue box")).attention)
    assert not torch.allclose(seen[0], seen[1])


def test_the_image_changes_the_forecast_and_a_forgotten_one_is_as_none_at_all(model):
    shown, blind = batch_of(), batch_of(image=False)
    unseen = shown._replace(known=shown.known.clone())
    unseen.known[:, 5] = False
    with_image, without = model.trajectory(shown).body, model.trajectory(blind).body
    assert not torch.allclose(with_image, without, atol=1e-4)
    assert torch.allclose(model.trajectory(unseen).body, without, atol=1e-6)
    assert model.trajectory(blind).attention is None


def test_training_forgets_some_images():
    torch.manual_seed(0)
    known = torch.ones(400, 6, dtype=torch.bool)
    kept = drop_modalities(batch_of()._replace(known=known), 0.25).known[:, 5].float().mean()
    assert 0.65 < float(kept) < 0.85


def test_the_loss_of_a_place_is_least_where_attention_is_right_between_the_cells():
    grid, where = (4, 8), torch.tensor([[0.5, 0.5], [0.15, 0.125]])
    places = cell_places(grid)
    right = torch.zeros(2, 4, 8)
    right[0, 1:3, 3:5] = 0.25  # the middle of the image lies between four cells
    right[1, 0, :2] = torch.tensor([0.3, 0.7])
    assert torch.allclose((right.flatten(1) @ places), where, atol=1e-6)
    wrong = right.roll(1, dims=2)
    assert float(where_loss(right, where)) < float(where_loss(wrong, where)) - 1
    unknown = torch.stack([where[0], torch.full((2,), torch.nan)])
    assert torch.allclose(where_loss(right, unknown), where_loss(right[:1], where[:1]))
    assert float(where_loss(right, torch.full((2, 2), torch.nan))) == 0.0


def test_looking_learns_to_point_at_what_is_named():
    torch.manual_seed(0)
    text, look = torch.nn.Embedding(2, 16), Look(16, 32, 2, (32, 64))
    optimiser = torch.optim.Adam([*look.parameters(), *text.parameters()], 3e-3)

    def scene(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A red and a blue square in two different columns; which is named, and where it is."""
        image, column = torch.zeros(count, 3, 32, 64), torch.rand(count, 8).argsort(1)[:, :2]
        row, named = torch.randint(4, (count, 2)), torch.randint(2, (count,))
        for i in range(count):
            for kind, channel in enumerate((0, 2)):
                y, x = 8 * int(row[i, kind]), 8 * int(column[i, kind])
                image[i, channel, y : y + 8, x : x + 8] = 1.0
        pick = torch.arange(count)
        where = torch.stack([(column[pick, named] + 0.5) / 8, (row[pick, named] + 0.5) / 4], 1)
        return image, named, where

    for _ in range(150):
        image, named, where = scene(32)
        loss = where_loss(look(image, text(named)).attention, where)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    image, named, where = scene(64)
    attention = look.eval()(image, text(named)).attention
    off = attention.flatten(1) @ cell_places((4, 8)) - where
    assert float((off.abs().amax(1) < 0.1).float().mean()) > 0.9  # chance is one in two


def test_phrases_that_nobody_knows_do_not_count():
    said = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
    assert torch.allclose(subtask_loss(said, torch.tensor([0, -1])), -said[0, 0])
    assert float(subtask_loss(said, torch.tensor([-1, -1]))) == 0.0


def test_a_bundle_keeps_the_look_and_the_phrases(model, tmp_path):
    record = TrainingRecord(command="c", data=["d"], data_licence="l", seed=0, steps=1)
    bundles.save(tmp_path, "tiny", model, record, "card")
    config, again = bundles.load(tmp_path)
    assert config.model.subtasks == CONFIG.subtasks
    before, after = model.trajectory(batch_of()), again.trajectory(batch_of())
    assert torch.allclose(before.attention, after.attention, atol=1e-2)
    assert torch.allclose(before.subtask, after.subtask, atol=5e-2)


def test_a_bundle_of_before_says_no_phrase_and_does_not_look():
    capability = FutureCapability.from_bundle(bundle_path("future-lite"))
    if capability.config.trajectory.image == "none":
        assert capability.model.trajectory.look is None
    if not capability.config.subtasks:
        assert capability.model.trajectory.subtask_out is None
