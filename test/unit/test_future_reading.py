"""Stage I with each backbone: it hears everything, unknown parts stay unheard, and a bundle says which one it has."""

import pytest
import torch
from pydantic import ValidationError

from wm_ros.bundle import TrainingRecord
from wm_ros.future import model as bundles
from wm_ros.future.config import FramesConfig, FutureConfig, TrajectoryConfig
from wm_ros.future.history import Batch
from wm_ros.future.losses import trajectory_loss
from wm_ros.future.model import FutureModel
from wm_ros.future.reading import PastFirst, make_reader
from wm_ros.future.trajectory import Normaliser, TrajectoryModel
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.nn.language import batch_ids
from wm_ros.nn.sequence import MIXERS
from wm_ros.paths import bundle_path

KINDS = sorted(MIXERS)


def config_of(kind: str) -> FutureConfig:
    return FutureConfig(
        state_width=16,
        image_height=32,
        image_width=64,
        trajectory=TrajectoryConfig(backbone=kind, width=32, layers=2),
        frames=FramesConfig(width=32, layers=1, heads=2, fusion_layers=2),
        autoencoder=AutoencoderConfig(channels=4, width=16, blocks=1),
    )


def model_of(kind: str) -> TrajectoryModel:
    torch.manual_seed(0)
    config = config_of(kind)
    model = TrajectoryModel(config, Normaliser(config, 4)).eval()
    torch.nn.init.normal_(model.body_out.weight, std=0.1)  # it starts at zero
    return model


def batch_of(count: int = 3, history_steps: int = 12) -> Batch:
    torch.manual_seed(1)
    states = torch.randn(count, 2, 2, 16)
    known, asked = torch.ones(count, 6, dtype=torch.bool), torch.zeros(count, history_steps, 26)
    return Batch(torch.randn(count, history_steps, 32), states, batch_ids(["grasp the red can"] * count), known, asked)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_backbone_hears_the_past_the_states_and_the_instruction(kind):
    model, batch = model_of(kind), batch_of()
    said = model(batch).body
    assert said.shape == (3, 30, 32)
    past, before = batch.body.clone(), batch.states.clone()
    past[:, 3] = torch.randn(3, 32)  # earlier than the linear path looks
    before[:, 0] = torch.randn(3, 2, 16)
    words = batch_ids(["lift the box"] * 3)
    for other in (batch._replace(body=past), batch._replace(states=before), batch._replace(words=words)):
        assert (said - model(other).body).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_unknown_joints_are_not_heard(kind):
    model, batch = model_of(kind), batch_of()
    blind = batch._replace(known=torch.tensor([[False, True, True, True, True, True]]).expand(3, 6))
    other = batch.body.clone()
    other[..., 6:] = 99.0
    assert torch.allclose(model(blind).body, model(blind._replace(body=other)).body)


@torch.no_grad()
def test_the_backbone_reads_the_past_alone_and_in_its_order():
    reader = PastFirst(TrajectoryConfig(backbone="gru", width=32, layers=2), history_steps=5).eval()
    tokens, heard = torch.randn(2, 4 + 5 + 2, 32), []
    reader.backbone.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    assert reader(tokens).shape == (2, 2, 32)
    assert torch.equal(heard[0], tokens[:, 4:9])


@pytest.mark.parametrize("kind", ["all_tokens", *KINDS])
def test_each_learns_one_batch_by_heart(kind):
    torch.manual_seed(0)
    config = config_of(kind)
    model, batch = TrajectoryModel(config, Normaliser(config, 4)).eval(), batch_of(4)
    future, there = torch.randn(4, 30, 32), torch.ones(4, 30, dtype=torch.bool)
    optimiser, errors = torch.optim.AdamW(model.parameters(), 3e-3), []
    for _ in range(40):
        forecast = model(batch)
        loss = trajectory_loss(forecast.body, forecast.scale, future, there)["hands"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.5 * errors[0]


def test_a_bundle_keeps_the_backbone(tmp_path):
    torch.manual_seed(0)
    model = FutureModel(config_of("selective")).eval()
    torch.nn.init.normal_(model.trajectory.body_out.weight, std=0.1)
    record = TrainingRecord(command="-", data=[], data_licence="-", seed=0, steps=0)
    bundles.save(tmp_path, "tiny", model, record, "# card")
    config, again = bundles.load(tmp_path)
    assert config.model.trajectory.backbone == "selective"
    said, repeated = (each.trajectory(batch_of()).body for each in (model, again))
    assert torch.allclose(said, repeated, atol=2e-2)


def test_the_shipped_bundle_reads_all_tokens_with_one_transformer():
    config, model = bundles.load(bundle_path("future-lite"))
    assert config.model.trajectory.backbone == "all_tokens"
    assert isinstance(model.trajectory.blocks, torch.nn.TransformerEncoder)


def test_a_backbone_without_a_layer_or_a_name_is_refused():
    with pytest.raises(ValidationError, match="layers = 1: s4d needs"):
        TrajectoryConfig(backbone="s4d", layers=1)
    with pytest.raises(ValidationError, match="backbone"):
        TrajectoryConfig(backbone="lstm")
    assert make_reader(TrajectoryConfig(layers=1), 12)
