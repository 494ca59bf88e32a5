"""The policy head and its latent objective: masks, absence, hold at the start, what is trained and what is not."""

import pytest
import torch
from policy_parts import CONFIG, make_head

from wm_ros.nn.language import batch_ids
from wm_ros.policy.context import Observation
from wm_ros.policy.head import PolicyHead
from wm_ros.policy.objectives import LatentObjective, masked_l1


def observation(batch: int = 3, seed: int = 0, **changes: torch.Tensor) -> Observation:
    generator = torch.Generator().manual_seed(seed)
    seen = Observation(
        joints=torch.randn(batch, 4, 3, generator=generator),
        joints_pad=torch.zeros(batch, 4, dtype=torch.bool),
        state=torch.randn(batch, 2, 2, 8, generator=generator),
        state_pad=torch.zeros(batch, 2, dtype=torch.bool),
        text=batch_ids(["lift the cup"] * batch),
        bev=torch.randn(batch, 3, 5, generator=generator),
        bev_pad=torch.zeros(batch, dtype=torch.bool),
    )
    return seen._replace(**changes)


def test_an_untrained_head_holds_still() -> None:
    seen = observation()
    chunk = PolicyHead(CONFIG).eval()(seen)
    torch.testing.assert_close(chunk, seen.joints[:, -1:].expand(-1, CONFIG.chunk_steps, -1))


@pytest.mark.parametrize("field", ["joints", "state", "text", "bev"])
def test_every_input_counts(field: str) -> None:
    head, seen = make_head(), observation()
    other = {
        "joints": seen.joints + 0.1,
        "state": seen.state + 1,
        "text": batch_ids(["push the box"] * 3),
        "bev": seen.bev + 1 if seen.bev is not None else None,
    }[field]
    change = (head(seen) - head(seen._replace(**{field: other}))).abs().max()
    assert change > 1e-4


def test_padded_joints_and_absent_states_do_not_count() -> None:
    head = make_head()
    pad = torch.tensor([[True, True, False, False]] * 3)
    none = torch.tensor([[True, False]] * 3)
    gone = torch.ones(3, dtype=torch.bool)
    seen = observation(joints_pad=pad, state_pad=none, bev_pad=gone)
    joints, state, bev = seen.joints.clone(), seen.state.clone(), torch.full((3, 3, 5), 7.0)
    joints[:, :2], state[:, 0] = 99.0, 99.0
    torch.testing.assert_close(head(seen), head(seen._replace(joints=joints, state=state, bev=bev)))
    assert not torch.allclose(head(seen), head(observation()))


def test_a_missing_bev_is_the_same_as_an_absent_one() -> None:
    head = make_head()
    absent = head(observation(bev_pad=torch.ones(3, dtype=torch.bool)))
    torch.testing.assert_close(head(observation()._replace(bev=None, bev_pad=None)), absent)


def test_items_of_a_batch_do_not_see_each_other() -> None:
    head, seen = make_head(), observation()
    alone = Observation(*(None if part is None else part[1:2] for part in seen))
    torch.testing.assert_close(head(seen)[1:2], head(alone), atol=1e-6, rtol=1e-5)


def test_masked_loss_is_the_mean_over_what_is_real() -> None:
    error = torch.tensor([[[1.0, -3.0], [100.0, 100.0]], [[2.0, 2.0], [4.0, 4.0]]])
    pad = torch.tensor([[False, True], [False, False]])
    assert masked_l1(error, pad).item() == pytest.approx((1 + 3 + 2 + 2 + 4 + 4) / 6)
    assert masked_l1(error, torch.ones(2, 2, dtype=torch.bool)).item() == 0.0


def test_padded_future_does_not_change_the_latent_targets_that_count() -> None:
    head = make_head()
    latent = LatentObjective(CONFIG, head.context).eval()
    future, pad = torch.randn(1, 15, 3), torch.arange(15)[None] >= 9
    text, now = batch_ids(["go"]), torch.zeros(1, 3)
    other = torch.where(pad[..., None], 50.0, future)
    got, changed = (latent.targets(text, f, now, pad) for f in (future, other))
    torch.testing.assert_close(got[:, :9], changed[:, :9])
    assert not torch.allclose(got[:, :9], latent.targets(text, future, now, torch.zeros_like(pad))[:, :9])


def test_the_target_gets_no_gradient_and_follows_the_encoder() -> None:
    head = make_head()
    latent = LatentObjective(CONFIG, head.context, momentum=0.9)
    before = latent.target.joints.weight.clone()
    with torch.no_grad():
        head.context.joints.weight += 1.0
    latent.follow(head.context, progress=0.0)
    torch.testing.assert_close(latent.target.joints.weight, before + 0.1)
    latent.follow(head.context, progress=1.0)  # momentum has risen to 1
    torch.testing.assert_close(latent.target.joints.weight, before + 0.1)
    seen = observation()
    context, pad = head.context(seen)
    future = torch.randn(3, 15, 3)
    target = latent.targets(seen.text, future, seen.joints[:, -1], torch.zeros(3, 15, dtype=torch.bool))
    masked_l1(latent.predict(context, pad) - target, torch.zeros(3, 15, dtype=torch.bool)).backward()
    assert all(p.grad is None for p in latent.target.parameters())
    assert head.context.joints.weight.grad is not None and head.context.joints.weight.grad.abs().sum() > 0


def test_the_target_never_drops_out() -> None:
    latent = LatentObjective(CONFIG, make_head().context).train()
    arguments = (batch_ids(["go"]), torch.randn(1, 15, 3), torch.zeros(1, 3), torch.zeros(1, 15, dtype=torch.bool))
    torch.testing.assert_close(latent.targets(*arguments), latent.targets(*arguments), atol=0, rtol=0)


def test_acting_needs_nothing_of_the_latent_part() -> None:
    assert not [name for name in make_head().state_dict() if "target" in name or "predict" in name]


@pytest.mark.parametrize("layers", [1, 2])
def test_a_settled_head_acts_alike_and_learning_forgets(layers: int) -> None:
    sizes = CONFIG.transformer.model_copy(update={"decoder_layers": layers})
    head, seen = make_head(CONFIG.model_copy(update={"transformer": sizes})), observation()
    pad = torch.tensor([[True, True, False, False]] * 3)
    others = (seen._replace(joints_pad=pad), seen._replace(text=batch_ids(["push the box"] * 3)), seen)
    wanted = [head(other) for other in others]
    head.settle()
    for other, before in zip(others, wanted, strict=True):
        torch.testing.assert_close(head(other), before)
    with torch.no_grad():
        head.queries.add_(torch.randn_like(head.queries))
    torch.testing.assert_close(head(seen), before)  # what the queries say is kept
    assert not torch.allclose(head.train().eval()(seen), before)
