"""A policy that sees images itself: what counts, what it does without, and when it says nothing."""

import numpy as np
import pytest
import torch
from policy_parts import NAMES, START, make_head

from wm_ros.nn.language import batch_ids
from wm_ros.policy import Policy
from wm_ros.policy.config import CameraConfig, PolicyModelConfig, TransformerConfig
from wm_ros.policy.context import Observation
from wm_ros.policy.image_encoder import ImageEncoder
from wm_ros.types import Frame, Joints, Sample, WristFrame

CONFIG = PolicyModelConfig(
    joint_names=NAMES,
    rate_hz=40.0,
    chunk_steps=6,
    joint_history=1,
    token_history=(),
    cameras=CameraConfig(names=("image", "wrist_image"), size=(40, 48), channels=4, features=8),
    relative=False,
    does_without=("image", "wrist_image", "joints"),
    stale_s=0.2,
    transformer=TransformerConfig(width=16, heads=2, layers=1, feedforward=32),
)


def picture(seed: int, size: tuple[int, int] = (40, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def stamp(seconds: float) -> int:
    return START + round(seconds * 1e9)


def look(seconds: float = 0.0, seed: int = 0) -> Frame:
    return Frame(stamp(seconds), "camera", picture(seed))


def wrist(seconds: float = 0.0, seed: int = 1) -> WristFrame:
    return WristFrame(stamp(seconds), "wrist_camera", picture(seed))


def measured(seconds: float = 0.0, value: float = 0.1) -> Joints:
    return Joints(stamp(seconds), "", NAMES, np.full(3, value))


def policy(**changes: object) -> Policy:
    config = CONFIG.model_copy(update=changes)
    return Policy(config, make_head(config))


def said(policy: Policy, *samples: Sample) -> np.ndarray | None:
    """What is said to the last sample."""
    answers = [policy.step(sample) for sample in samples]
    return None if answers[-1] is None else answers[-1].chunk.position_rad


def test_a_chunk_answers_the_first_camera_and_depends_on_both_and_on_the_joints() -> None:
    first = said(policy(), measured(), wrist(), look())
    assert first is not None and first.shape == (6, 3)
    for other in ((measured(value=0.3), wrist(), look()), (measured(), wrist(seed=5), look())):
        assert not np.allclose(said(policy(), *other), first)
    assert not np.allclose(said(policy(), measured(), wrist(), look(seed=7)), first)
    assert said(policy(), measured(), look(), wrist()) is None, "the wrist alone asks for nothing while the other sees"


def test_without_a_sensor_it_acts_and_says_without_which() -> None:
    blind = policy()
    assert said(blind, measured(), look()) is not None and blind.lacking == ("wrist_image",)
    numb = policy()
    assert said(numb, wrist(), look()) is not None and numb.lacking == ("joints",)
    assert said(numb, measured(0.05), wrist(0.05), look(0.05)) is not None and numb.lacking == ()


def test_the_second_camera_takes_over_once_the_first_has_been_silent() -> None:
    found = policy()
    said(found, measured(), wrist(), look())
    assert said(found, measured(0.1), wrist(0.1)) is None
    assert said(found, measured(0.3), wrist(0.3)) is not None and found.lacking == ("image",)
    assert said(found, measured(0.35), wrist(0.35)) is not None, "and goes on"
    assert said(found, measured(0.4), wrist(0.4), look(0.4)) is not None and found.lacking == ()
    assert said(found, measured(0.45), wrist(0.45)) is None, "until the first is back"


def test_an_old_image_does_not_count() -> None:
    found = policy()
    said(found, measured(), wrist(seed=3), look())
    late = said(found, measured(1.0), look(1.0))
    assert found.lacking == ("wrist_image",)
    np.testing.assert_array_equal(late, said(policy(), measured(1.0), look(1.0)))


@pytest.mark.parametrize(
    ("samples", "why"),
    [((measured(), look()), "no image of 'wrist_image'"), ((wrist(), look()), "no joints measured yet")],
)
def test_what_it_was_not_trained_to_do_without_is_asked_for(samples: tuple[Sample, ...], why: str) -> None:
    strict = policy(does_without=())
    assert said(strict, *samples) is None and why in strict.withheld
    assert said(strict, measured(0.01), wrist(0.01), look(0.01)) is not None and not strict.withheld


def test_a_clock_that_jumps_back_clears_what_was_seen() -> None:
    found = policy()
    said(found, measured(5.0), wrist(5.0), look(5.0))
    assert said(found, look(0.0)) is not None
    assert found.lacking == ("joints", "wrist_image")


def test_images_of_another_size_are_resized() -> None:
    large = np.kron(picture(0), np.ones((4, 4, 1), np.uint8))
    first = said(policy(), measured(), wrist(), look())
    np.testing.assert_allclose(said(policy(), measured(), wrist(), Frame(START, "camera", large)), first, atol=1e-6)


def test_bfloat16_convolutions_find_nearly_the_same() -> None:
    encoder = ImageEncoder(CONFIG.cameras, 16).eval()
    images = torch.from_numpy(picture(0).transpose(2, 0, 1))[None]
    exact = encoder(images)
    encoder.arithmetic = torch.bfloat16
    assert 0 < (encoder(images) - exact).abs().max() < 0.05


def test_a_hidden_camera_and_hidden_joints_do_not_count() -> None:
    head = make_head(CONFIG)
    images = torch.randint(0, 255, (2, 2, 3, 40, 48), dtype=torch.uint8)
    gone = torch.tensor([[False, True]] * 2)
    seen = Observation(
        torch.randn(2, 1, 3),
        torch.ones(2, 1, dtype=torch.bool),
        batch_ids(["lift the cup"] * 2),
        images=images,
        images_pad=gone,
    )
    other = images.clone()
    other[:, 1] = 7
    torch.testing.assert_close(head(seen._replace(images=other, joints=seen.joints + 9)), head(seen))
    assert not torch.allclose(head(seen._replace(images=255 - images)), head(seen))


def test_a_bundle_sees_images_or_state_tokens() -> None:
    with pytest.raises(ValueError, match="either images"):
        PolicyModelConfig(joint_names=NAMES, cameras=CameraConfig(names=("image",)))
    with pytest.raises(ValueError, match="cannot do without joints"):
        PolicyModelConfig(joint_names=NAMES, does_without=("joints",))
