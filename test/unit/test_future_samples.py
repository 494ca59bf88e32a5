"""Samples of stage I: what is drawn, when drawing ends, regions and scores, calibration on held-out episodes."""

import pytest
import torch

from wm_ros.future.config import FramesConfig, FutureConfig, SamplesConfig, TrajectoryConfig
from wm_ros.future.history import Batch
from wm_ros.future.model import FutureModel
from wm_ros.future.samples import Samples, energy_score, region
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.nn.language import batch_ids
from wm_ros.training.future_calibration import calibrate

STEPS = 30


@pytest.fixture
def samples() -> Samples:
    torch.manual_seed(0)
    samples = Samples(SamplesConfig(count=8, coefficients=6, width=16, dropout=0.0), 12, 2, STEPS)
    samples.fit(torch.randn(200, STEPS, 6).cumsum(1))
    return samples.eval()


def test_coefficients_and_paths_are_each_other_s_inverse(samples):
    coefficients = torch.randn(3, 4, 6)
    assert torch.allclose(samples.coefficients(samples.left_open(coefficients)), coefficients, atol=1e-4)


def test_dispersion_widens_the_samples_of_its_kind_only(samples):
    context, kind = torch.randn(2, 12), torch.tensor([0, 1])
    before, _, _ = samples.draw(context, kind, 8, 4)
    samples.dispersion[1] = 3.0
    after, _, _ = samples.draw(context, kind, 8, 4)
    assert torch.equal(before[0], after[0])
    assert torch.allclose(after[1], 3.0 * before[1], atol=1e-5)


def test_drawing_ends_where_the_energy_no_longer_falls(samples):
    context, kind = torch.randn(2, 12), torch.zeros(2, dtype=torch.long)
    samples.judge = lambda context, z: torch.zeros(z.shape[:2])  # level everywhere
    _, _, taken = samples.draw(context, kind, 8, 6)
    assert taken.tolist() == [2.0, 2.0]
    levels = iter(range(100, 0, -1))
    samples.judge = lambda context, z: torch.full(z.shape[:2], float(next(levels)))  # falls at every step
    _, _, taken = samples.draw(context, kind, 8, 6)
    assert taken.tolist() == [6.0, 6.0]


def test_the_losses_teach_a_one_dimensional_fan(samples):
    torch.manual_seed(1)
    optimiser = torch.optim.Adam(samples.parameters(), 3e-3)
    context = torch.randn(64, 12)
    # The first coefficient is ±2 and nothing tells which; the others are small.
    for _ in range(400):
        true = 0.1 * torch.randn(64, 6)
        true[:, 0] += 2.0 * torch.randint(2, (64,)) * 2 - 2.0
        path = samples.left_open(true)
        losses = samples.losses(context, path, samples.left_open(3 * torch.randn(64, 4, 6)))
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    drawn, _, _ = samples.draw(context[:8], torch.zeros(8, dtype=torch.long), 32, 8)
    first = samples.coefficients(drawn)[..., 0]
    assert (first.abs() - 2.0).abs().median() < 0.7
    assert 0.2 < (first > 0).float().mean() < 0.8
    likely, unlikely = torch.zeros(8, 1, 6), torch.zeros(8, 1, 6)
    likely[..., 0], unlikely[..., 3] = 2.0, 4.0
    assert (samples.judge(context[:8], likely) < samples.judge(context[:8], unlikely)).all()


def test_a_region_holds_its_share_of_the_samples_and_grows_with_them():
    torch.manual_seed(0)
    paths, equal = torch.randn(5, 40, STEPS, 3).cumsum(2), torch.full((5, 40), 1 / 40)
    middle, radius = region(paths, equal, 0.9)
    inside = ((paths - middle[:, None]).norm(dim=-1) <= radius[:, None] + 1e-5).all(-1)
    assert torch.equal(inside.sum(1), torch.full((5,), 36))
    assert torch.allclose(region(2 * paths, equal, 0.9)[1], 2 * radius, rtol=1e-4)
    one = torch.zeros(5, 40)
    one[:, 7] = 1.0  # all of the weight on one sample
    assert torch.allclose(region(paths, one, 0.9)[0], paths[:, 7])


def test_the_energy_score_is_the_error_of_one_sample_and_likes_the_true_spread():
    torch.manual_seed(0)
    truth = torch.randn(400, STEPS, 3)
    point = energy_score(torch.zeros(400, 1, STEPS, 3), torch.ones(400, 1), truth)
    assert torch.allclose(point, truth.norm(dim=-1).mean(1), atol=1e-5)
    equal = torch.full((400, 16), 1 / 16)
    scores = {s: float(energy_score(s * torch.randn(400, 16, STEPS, 3), equal, truth).mean()) for s in (0.3, 1.0, 3.0)}
    assert min(scores, key=lambda s: scores[s]) == 1.0


@pytest.fixture
def trajectory():
    torch.manual_seed(0)
    config = FutureConfig(
        state_width=16,
        image_height=32,
        image_width=64,
        trajectory=TrajectoryConfig(width=16, layers=1, heads=2),
        samples=SamplesConfig(count=16, coefficients=6, width=16),
        frames=FramesConfig(width=32, layers=1, heads=2),
        autoencoder=AutoencoderConfig(channels=4, width=16, blocks=1),
    )
    model = FutureModel(config).eval().trajectory
    model.samples.fit(torch.randn(200, STEPS, 6).cumsum(1))
    return model


def windows(config: FutureConfig, count: int = 300) -> dict[str, torch.Tensor]:
    return {
        "body": torch.zeros(count, config.history_steps, config.values),
        "states": torch.randn(count, 2, 2, 16),
        "words": batch_ids(["lift it"] * count),
        "known": torch.ones(count, 6, dtype=torch.bool),
        "asked": torch.zeros(count, config.history_steps, 26),
        "future": 0.01 * torch.randn(count, STEPS, config.values).cumsum(1),
        "there": torch.ones(count, STEPS, dtype=torch.bool),
        "source": torch.zeros(count, dtype=torch.long),
    }


def test_calibration_brings_the_region_to_ninety_percent(trajectory):
    model, item = trajectory, windows(trajectory.config)
    facts = calibrate(model, item)
    assert facts["coverage_0"] == pytest.approx(0.9, abs=0.03)
    batch = Batch(*(item[name] for name in ("body", "states", "words", "known", "asked")))
    fan = model.imagine(model(batch))
    future, inside = item["future"], []
    for first in (0, 3):
        middle, radius = region(fan.hands[..., first : first + 3], fan.probability)
        inside.append(((future[..., first : first + 3] - middle).norm(dim=-1) <= radius).all(1))
    # Judged is the wrist that goes further.
    right = (future[:, -1, 3:6] - future[:, 0, 3:6]).norm(dim=-1) > (future[:, -1, :3] - future[:, 0, :3]).norm(dim=-1)
    inside = torch.where(right, inside[1], inside[0]).float().mean()
    assert 0.75 < inside < 1.0


def test_the_reading_is_heeded_where_held_out_windows_gain_by_it(trajectory):
    """A reading of 1 everywhere, in units of the spread, on futures that are there, halfway, or elsewhere."""
    item = windows(trajectory.config)
    trajectory.body_out.bias.data.fill_(1.0)
    for true, heed in ((1.0, 1.0), (0.5, 0.5), (-1.0, 0.0)):
        future = torch.full_like(item["future"], true)
        facts = calibrate(trajectory, item | {"future": future})
        assert facts["heed_0"] == heed == float(trajectory.heed[0])
        assert facts["heeded_mm_0"] <= facts["unheeded_mm_0"]


def test_scenes_have_a_say_in_what_is_heeded(trajectory):
    item, scenes = windows(trajectory.config), windows(trajectory.config, 900)
    trajectory.body_out.bias.data.fill_(1.0)
    item["future"], scenes["future"] = torch.zeros_like(item["future"]), torch.ones_like(scenes["future"])
    assert calibrate(trajectory, item)["heed_0"] == 0.0
    assert calibrate(trajectory, item, scenes, share=0.1)["heed_0"] == 0.0
    assert calibrate(trajectory, item, scenes, share=0.7)["heed_0"] == 1.0
