"""The two stages: shapes, causality, seeds, and what an untrained network says."""

import math

import pytest
import torch

from wm_ros.bundle import TrainingRecord
from wm_ros.errors import BundleError
from wm_ros.future import model as bundles
from wm_ros.future.config import FramesConfig, FutureConfig, SamplesConfig, TrajectoryConfig
from wm_ros.future.frames import PICTURE_FLOOR, Scene
from wm_ros.future.fusion import ALWAYS, Fusion, causal_mask
from wm_ros.future.history import Batch
from wm_ros.future.losses import drop_modalities, trajectory_loss
from wm_ros.future.model import FutureModel, keep_detail
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.nn.language import batch_ids

CONFIG = FutureConfig(
    state_width=16,
    image_height=32,
    image_width=64,
    trajectory=TrajectoryConfig(width=32, layers=1, heads=2),
    samples=SamplesConfig(count=8, steps=4, coefficients=6, width=16),
    frames=FramesConfig(width=32, layers=1, heads=2, fusion_layers=2),
    autoencoder=AutoencoderConfig(channels=4, width=16, blocks=1),
)


@pytest.fixture(scope="module")
def model() -> FutureModel:
    torch.manual_seed(0)
    model = FutureModel(CONFIG).eval()
    # The parts that start at zero get weights, so that what they hear shows in what they say.
    for name, parameter in model.named_parameters():
        if "conv_out" in name or "body_out" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def batch_of(count: int = 3) -> Batch:
    torch.manual_seed(1)
    body = torch.randn(count, CONFIG.history_steps, CONFIG.values)
    states = torch.randn(count, 2, 2, CONFIG.state_width)
    words, asked = batch_ids(["grasp the red can"] * count), torch.randn(count, CONFIG.history_steps, 26)
    return Batch(body, states, words, torch.ones(count, 6, dtype=torch.bool), asked)


def scene_of(count: int = 3) -> Scene:
    batch = batch_of(count)
    return Scene.of(batch, torch.randn(count, 4, 4, 8))


def test_stage_one_gives_a_body_per_step_and_weighted_samples_around_it(model):
    forecast = model.trajectory(batch_of())
    assert forecast.body.shape == (3, 30, 32)
    fan = model.trajectory.imagine(forecast)
    assert fan.hands.shape == (3, 8, 30, 6)
    assert torch.allclose(fan.probability.sum(1), torch.ones(3))
    assert torch.equal(fan.hands, model.trajectory.imagine(forecast).hands)
    assert model.trajectory.imagine(forecast, count=3).hands.shape == (3, 3, 30, 6)


def test_an_untrained_stage_one_says_what_the_linear_path_says():
    fresh, batch = FutureModel(CONFIG).eval(), batch_of()
    kind = torch.zeros(3, dtype=torch.long)
    for path in (fresh.trajectory.base, fresh.trajectory.base_asked):
        path.ridges[0].weight.normal_(std=0.1)
    heard = fresh.trajectory.base_asked(torch.cat([batch.body, batch.asked], -1), kind)
    assert torch.allclose(fresh.trajectory(batch).body, heard, atol=1e-5)
    unheard = batch._replace(known=batch.known & (torch.arange(6) < 4))
    assert torch.allclose(fresh.trajectory(unheard).body, fresh.trajectory.base(batch.body, kind), atol=1e-5)


def test_stage_one_hears_the_instruction_and_both_states(model):
    batch = batch_of()
    said = model.trajectory(batch).body
    assert not torch.allclose(said, model.trajectory(batch._replace(words=batch_ids(["lift the box"] * 3))).body)
    for which in (0, 1):
        states = batch.states.clone()
        states[:, which] += 1.0
        assert not torch.allclose(said, model.trajectory(batch._replace(states=states)).body)


def test_what_is_unknown_does_not_change_the_forecast(model):
    batch = batch_of()
    known = torch.tensor([[False, True, True, False, False, False]]).expand(3, 6)
    first = model.trajectory(batch._replace(known=known)).body
    body, states = batch.body.clone(), batch.states.clone()
    body[..., 6:] = 99.0
    states[:, 0] = 99.0
    asked = torch.full_like(batch.asked, 99.0)
    second = model.trajectory(batch._replace(known=known, body=body, states=states, asked=asked)).body
    assert torch.allclose(first, second)


def test_dropping_modalities_always_leaves_hands_or_joints():
    torch.manual_seed(0)
    known = drop_modalities(batch_of(500), 0.9).known
    assert (known[:, 0] | known[:, 1] | known[:, 2]).all()
    assert not known.all()


def test_the_loss_ignores_steps_after_the_end_of_an_episode(model):
    batch = batch_of()
    forecast, future = model.trajectory(batch), torch.randn(3, 30, 32)
    there = torch.arange(30).expand(3, 30) < 10
    other = torch.where(there[..., None], future, torch.full_like(future, 50.0))
    first = trajectory_loss(forecast.body, forecast.scale, future, there)
    second = trajectory_loss(forecast.body, forecast.scale, other, there)
    assert all(torch.allclose(first[name], second[name]) for name in first)


def test_a_later_entry_of_the_context_changes_nothing_earlier():
    torch.manual_seed(0)
    fusion = Fusion(32, 2, 2).eval()
    action, context = torch.randn(1, 6, 32), torch.randn(1, 4, 32)
    times = torch.tensor([ALWAYS, 0.0, 0.21, 0.4])
    mask = causal_mask(torch.arange(1, 7) / 10, times)
    before = fusion(action, context, mask)
    context[:, 2] = torch.randn(1, 32)  # a shift alone would be taken out by the norm
    after = fusion(action, context, mask)
    assert torch.equal(before[:, :2], after[:, :2])  # the actions up to 0.2 s
    assert not torch.allclose(before[:, 2:], after[:, 2:])


def test_a_frame_to_come_does_not_inform_the_actions_before_it(model):
    scene = scene_of()
    actions = model.frames.actions(scene, torch.randn(3, 30, 32))
    frames = torch.randn(3, 2, 4, 4, 8)
    before = model.frames.fuse(actions, scene, frames)
    frames[:, 1] += 5.0  # due at 0.67 s, step 10
    after = model.frames.fuse(actions, scene, frames)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_frames_depend_on_the_trajectory(model):
    scene, path = scene_of(), torch.randn(3, 30, 32)
    assert not torch.allclose(model.frames.draw(scene, path), model.frames.draw(scene, path + 1.0))
    assert not torch.allclose(model.frames.draw(scene, path), model.frames.draw(scene, None))


def test_sampled_frames_repeat_with_the_seed_and_differ_without():
    torch.manual_seed(0)

    def drawn(seed: int) -> torch.Tensor:
        sizes = CONFIG.frames.model_copy(update={"estimate": "sample", "seed": seed, "sample_steps": 2})
        torch.manual_seed(3)
        model = FutureModel(CONFIG.model_copy(update={"frames": sizes})).eval()
        return model.frames.draw(scene_of(1), torch.zeros(1, 30, 32))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.allclose(drawn(1), drawn(2))


def test_untrained_frames_are_the_current_one():
    model, scene = FutureModel(CONFIG).eval(), scene_of()
    drawn = model.frames.draw(scene, torch.randn(3, 30, 32))
    assert torch.allclose(drawn, scene.latent[:, None].expand_as(drawn))


def test_the_frame_loss_teaches_both_the_estimate_and_the_flow(model):
    torch.manual_seed(0)
    scene, frames = scene_of(4), torch.randn(4, 3, 4, 4, 8)
    for name in ("frames", "pictures"):
        losses = model.frames.losses(scene, torch.randn(4, 30, 32), frames, 1, model.autoencoder.decode)
        losses[name].backward()
        assert torch.isfinite(losses[name])
        assert model.frames.action_in[0].weight.grad.abs().sum() > 0
        assert model.frames.no_action.grad is not None
        model.zero_grad()


def test_the_loss_of_pictures_is_the_logarithm_of_their_error(model):
    """With the identity for a decoder, an estimate that never changes errs by the change of the latent."""
    torch.manual_seed(0)
    scene, still = scene_of(4), FutureModel(CONFIG)  # untrained: the estimate is the current frame
    frames = scene.latent[:, None] + 0.5 * torch.ones(4, 3, 4, 4, 8)
    losses = still.frames.losses(scene, torch.randn(4, 30, 32), frames, 1, lambda latents: latents)
    assert float(losses["pictures"].detach()) == pytest.approx(math.log(0.25 + PICTURE_FLOOR), abs=1e-4)


def test_an_l1_objective_learns_the_estimate_alone():
    torch.manual_seed(0)
    sizes = CONFIG.frames.model_copy(update={"objective": "l1"})
    still, scene = FutureModel(CONFIG.model_copy(update={"frames": sizes})), scene_of(4)
    frames = scene.latent[:, None] - 0.5 * torch.ones(4, 3, 4, 4, 8)
    losses = still.frames.losses(scene, torch.randn(4, 30, 32), frames, 1, lambda latents: latents)
    assert set(losses) == {"frames"} and float(losses["frames"].detach()) == pytest.approx(0.5, abs=1e-5)


def test_the_current_image_stays_where_nothing_changes_and_gives_way_where_something_does():
    current, decoded_now = torch.full((1, 3, 16, 32), 0.6), torch.full((1, 3, 16, 32), 0.5)
    decoded = decoded_now[:, None].clone()
    decoded[..., 16:] = 0.1
    shown = keep_detail(current, decoded_now, decoded, torch.tensor([0.05]))
    assert torch.allclose(shown[..., :8], torch.tensor(0.6))
    assert torch.allclose(shown[..., 24:], torch.tensor(0.1))


def test_a_bundle_gives_back_the_model(model, tmp_path):
    record = TrainingRecord(command="-", data=[], data_licence="-", seed=0, steps=0)
    bundles.save(tmp_path / "b", "tiny", model, record, "# card")
    config, again = bundles.load(tmp_path / "b")
    assert config.model == CONFIG
    assert torch.allclose(model.trajectory(batch_of()).body, again.trajectory(batch_of()).body, atol=2e-2)
    assert torch.equal(model.trajectory.base.ridges[0].weight, again.trajectory.base.ridges[0].weight)


def test_a_damaged_bundle_is_refused(model, tmp_path):
    record = TrainingRecord(command="-", data=[], data_licence="-", seed=0, steps=0)
    bundles.save(tmp_path / "b", "tiny", model, record, "# card")
    weights = tmp_path / "b" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"spam")
    with pytest.raises(BundleError, match="weights_sha256"):
        bundles.load(tmp_path / "b")
