"""The head behind LeRobot's interface: keys, shapes, history, queue, loss; and it says what the capability says."""

import numpy as np
import pytest
import torch
from policy_parts import CONFIG, make_head

from wm_ros.capability import load
from wm_ros.data.sources import episodes
from wm_ros.errors import UserError
from wm_ros.evaluation.replay import Pipeline
from wm_ros.paths import bundle_path
from wm_ros.policy.checkpoint import policy_of_bundle
from wm_ros.policy.head import PolicyHead
from wm_ros.policy.lerobot import LeRobotPolicy
from wm_ros.policy.lerobot_config import LeRobotConfig
from wm_ros.types import Frame, Instruction, JointCommand, Joints, PolicyPrediction

IMAGE = "observation.images.camera"


class Tokens:
    """State tokens that are the mean colour, repeated."""

    def preprocess(self, rgb: np.ndarray) -> np.ndarray:
        return rgb

    def tokenize(self, rgb: np.ndarray) -> np.ndarray:
        colour = rgb.reshape(len(rgb), -1, 3).mean(1).astype(np.float32) / 255
        return np.repeat(np.repeat(colour[:, None], 2, 1), 3, 2)[:, :, :8]


def make_policy(**options: int) -> LeRobotPolicy:
    return LeRobotPolicy(LeRobotConfig.of(CONFIG, **options), make_head(), Tokens())


def observation(step: int = 0, batch: int = 2) -> dict[str, object]:
    rng = torch.Generator().manual_seed(step)
    return {
        "observation.state": torch.randn(batch, 3, generator=rng),
        IMAGE: torch.rand(batch, 3, 6, 8, generator=rng),
        "task": ["lift the cup"] * batch,
    }


def window(steps: int = 4, batch: int = 2) -> dict[str, object]:
    seen = [observation(step, batch) for step in range(steps)]
    return {
        "observation.state": torch.stack([s["observation.state"] for s in seen], 1),
        IMAGE: torch.stack([s[IMAGE] for s in seen], 1),
        "task": ["lift the cup"] * batch,
        "action": torch.randn(batch, 15, 3, generator=torch.Generator().manual_seed(9)),
    }


def test_the_configuration_says_what_goes_in_and_out() -> None:
    config = LeRobotConfig.of(CONFIG, camera="wrist", image_size=(48, 64))
    assert config.n_obs_steps == 4 and config.chunk_size == config.n_action_steps == 15
    assert config.input_features["observation.images.wrist"].shape == (3, 48, 64)
    assert config.output_features["action"].shape == (3,)
    assert config.observation_delta_indices == [-3, -2, -1, 0] and config.action_delta_indices[0] == 1


def test_shapes_of_chunk_and_action() -> None:
    policy = make_policy()
    assert policy.predict_action_chunk(window()).shape == (2, 15, 3)
    assert policy.select_action(observation()).shape == (2, 3)


def test_observations_one_by_one_are_the_same_as_a_window_of_them() -> None:
    policy, seen = make_policy(), window()
    for step in range(3):
        policy.predict_action_chunk(observation(step))
    torch.testing.assert_close(policy.predict_action_chunk(observation(3)), policy.predict_action_chunk(seen))


def test_a_chunk_is_asked_for_when_the_queue_is_empty() -> None:
    policy, other = make_policy(n_action_steps=3), make_policy()
    actions = [policy.select_action(observation(step)) for step in range(6)]
    chunks = [other.predict_action_chunk(observation(step)) for step in range(6)]
    for step, action in enumerate(actions):
        torch.testing.assert_close(action, chunks[step // 3 * 3][:, step % 3])


def test_reset_begins_anew_and_dropping_actions_does_not_forget_what_was_seen() -> None:
    policy = make_policy()
    first = policy.select_action(observation(0))
    policy.select_action(observation(1))
    policy.reset()
    torch.testing.assert_close(policy.select_action(observation(0)), first)
    policy.drop_queued_actions()
    told = policy.select_action(observation(1))
    policy.reset()
    assert not torch.allclose(policy.select_action(observation(1)), told), "the observation before it counted"


def test_a_flow_draws_and_draws_the_same_after_a_reset() -> None:
    config = CONFIG.model_copy(update={"decoder": "flow"})
    policy = LeRobotPolicy(LeRobotConfig.of(config), make_head(config), Tokens())
    first, second = (policy.predict_action_chunk(window()) for _ in range(2))
    assert (first - second).abs().max() > 1e-3
    policy.reset()
    torch.testing.assert_close(policy.predict_action_chunk(window()), first)


@pytest.mark.parametrize("key", ["observation.state", IMAGE, "task"])
def test_every_key_counts(key: str) -> None:
    policy, seen = make_policy(), window()
    other = {"task": ["push the box"] * 2}.get(key)
    changed = {**seen, key: other if other is not None else seen[key] * 0.5}
    assert not torch.allclose(policy.predict_action_chunk(seen), policy.predict_action_chunk(changed))


def test_without_images_or_words_it_still_acts() -> None:
    policy, seen = make_policy(), window()
    blind = {"observation.state": seen["observation.state"]}
    chunk = policy.predict_action_chunk(blind)
    assert chunk.shape == (2, 15, 3) and not torch.allclose(chunk, policy.predict_action_chunk(seen))
    torch.testing.assert_close(LeRobotPolicy(policy.config, policy.head).predict_action_chunk(blind), chunk)


def test_forward_gives_a_loss_to_train_with_and_plain_numbers() -> None:
    policy, seen = make_policy(), window()
    policy.train()
    loss, values = policy(seen)
    assert loss.requires_grad and all(type(value) is float for value in values.values())
    assert values["l1_loss"] == pytest.approx(loss.item())
    optimiser = torch.optim.Adam(policy.get_optim_params(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        step, _ = policy(seen)
        step.backward()
        optimiser.step()
    assert policy.eval()(seen)[0] < 0.7 * loss


def test_padded_steps_do_not_count() -> None:
    policy, seen = make_policy().eval(), window()
    pad = torch.arange(15).expand(2, -1) >= 9
    wild = {**seen, "action": torch.where(pad[..., None], 1e3, seen["action"]), "action_is_pad": pad}
    plain, padded = policy({**seen, "action_is_pad": pad})[0], policy(wild)[0]
    torch.testing.assert_close(plain, padded)
    early = torch.tensor([[True, True, False, False]] * 2)
    first = {**seen, "observation.state_is_pad": early}
    moved = {**first, "observation.state": seen["observation.state"].clone()}
    moved["observation.state"][:, :2] = 50.0
    torch.testing.assert_close(policy.predict_action_chunk(first), policy.predict_action_chunk(moved))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"task": ["go"]}, "the batch has no 'observation.state'"),
        ({"observation.state": torch.zeros(2, 4)}, r"shape \(2, 4\), but the policy takes \(B, 3\)"),
        ({"observation.state": torch.zeros(2, 3, 3)}, "3 steps, but the policy sees 4"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_by_name(batch: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_policy().predict_action_chunk(batch)


def test_another_number_of_items_in_an_episode_is_refused() -> None:
    policy = make_policy()
    policy.select_action(observation(0))
    with pytest.raises(UserError, match="reset"):
        policy.select_action(observation(1, batch=3))


def test_more_actions_than_a_chunk_has_are_refused() -> None:
    with pytest.raises(UserError, match="choose 1 to 15"):
        make_policy(n_action_steps=16)


def test_it_says_what_the_capability_says_on_a_simulated_episode() -> None:
    bundles = {"state": bundle_path("state-lite"), "policy": bundle_path("policy-lite")}
    state = load("state", bundles["state"])
    policy = policy_of_bundle(bundles["policy"], tokenizer=state)  # type: ignore[arg-type]
    assert isinstance(policy.head, PolicyHead)
    pipeline = Pipeline(["state", "policy"], bundles)
    text, names, compared = "", policy.config.model.joint_names, 0
    for original in episodes("sim:tabletop?seeds=7&seconds=1.5")[0].samples():
        if isinstance(original, JointCommand):
            continue  # a batch of LeRobot's has no commands of the past
        predictions = [p for _, _, p in pipeline.step(original) if isinstance(p, PolicyPrediction)]
        if isinstance(original, Instruction):
            text = original.text
        elif isinstance(original, Joints) and not isinstance(original, JointCommand):
            joints = original.position_rad[[original.names.index(name) for name in names]]
        elif isinstance(original, Frame):
            image = torch.from_numpy(original.rgb).permute(2, 0, 1)[None].float() / 255
            seen = {"observation.state": torch.from_numpy(joints)[None].float(), IMAGE: image, "task": [text]}
            chunk = policy.predict_action_chunk(seen)[0].numpy()
            np.testing.assert_allclose(chunk, predictions[0].chunk.position_rad, atol=2e-5)
            compared += 1
    assert compared > 15
