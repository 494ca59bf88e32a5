"""The JEPA objective: what each encoder sees, what tokens do, where gradient flows, what the spread term punishes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wm_ros.lidar.config import EncoderConfig, LidarConfig, OccupancyConfig, VoxelConfig
from wm_ros.lidar.encoder import BevEncoder
from wm_ros.lidar.jepa import Jepa, draw_masks, keep_voxels, spread_penalty
from wm_ros.lidar.representation import effective_rank
from wm_ros.lidar.sparse import Sparse

CONFIG = LidarConfig(
    voxels=VoxelConfig(range_m=(-6.4, -6.4, -3.0, 6.4, 6.4, 1.0)),
    encoder=EncoderConfig(channels=(4, 4, 8, 8), out_channels=8),
    occupancy=OccupancyConfig(cells=32, channels=(8, 8, 8)),
)


def sweeps(batch: int = 2, voxels: int = 400, seed: int = 0) -> Sparse:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.rand(batch, *CONFIG.voxels.shape, generator=generator)
    sites = (grid < voxels / grid[0].numel()).nonzero()
    return Sparse(torch.rand(len(sites), 4, generator=generator), sites, CONFIG.voxels.shape, batch)


@pytest.fixture
def parts() -> tuple[BevEncoder, Jepa, Sparse]:
    torch.manual_seed(0)
    encoder = BevEncoder(CONFIG)
    return encoder, Jepa(encoder), sweeps()


def test_context_and_target_see_disjoint_voxels_that_share_no_cell(parts) -> None:
    encoder, _, x = parts
    masks = draw_masks(x, encoder.stride, encoder.bev_shape, 0.5)
    context, target = keep_voxels(x, ~masks.voxel_hidden), keep_voxels(x, masks.voxel_hidden)
    assert len(context.sites) + len(target.sites) == len(x.sites)

    def cells(part: Sparse) -> set[tuple[int, ...]]:
        return {(b, y // encoder.stride[0], xx // encoder.stride[1]) for b, _, y, xx in part.sites.tolist()}

    assert cells(context) and cells(target) and not cells(context) & cells(target)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_share_of_hidden_cells_is_exact_over_the_batch_for_occupied_ones(parts, ratio: float) -> None:
    encoder, _, x = parts
    masks = draw_masks(x, encoder.stride, encoder.bev_shape, ratio)
    occupied = int(masks.occupied.sum())
    assert int((masks.occupied & masks.hidden).sum()) == occupied - round(occupied * (1 - ratio))
    empty = ~masks.occupied
    assert float((masks.hidden & empty).sum() / empty.sum()) == pytest.approx(ratio, abs=0.08)


def test_tokens_stand_where_they_should_and_maps_are_unit_vectors(parts) -> None:
    encoder, jepa, x = parts
    masks = draw_masks(x, encoder.stride, encoder.bev_shape, 0.5)
    context, prediction, target = jepa.maps(encoder, x, masks)
    hidden, empty = F.normalize(jepa.mask_token, dim=0), F.normalize(jepa.empty_token, dim=0)
    seen = context.permute(0, 2, 3, 1)
    torch.testing.assert_close(seen[masks.hidden], hidden.expand(int(masks.hidden.sum()), -1))
    context_empty = ~masks.hidden & ~masks.occupied
    torch.testing.assert_close(seen[context_empty], empty.expand(int(context_empty.sum()), -1))
    target_empty = masks.hidden & ~masks.occupied
    found = target.permute(0, 2, 3, 1)[target_empty]
    torch.testing.assert_close(found, empty.expand(int(target_empty.sum()), -1))
    for one in (context.permute(0, 2, 3, 1)[masks.hidden], prediction.permute(0, 2, 3, 1)[masks.hidden]):
        assert torch.allclose(one.norm(dim=1), torch.ones(len(one)), atol=1e-4)


def test_gradient_reaches_encoder_predictor_and_tokens_but_never_the_target_encoder(parts) -> None:
    encoder, jepa, x = parts
    jepa(encoder, x)["loss"].backward()
    for name, parameter in [*encoder.named_parameters(), *jepa.predictor.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert jepa.mask_token.grad is not None and jepa.mask_token.grad.abs().sum() > 0
    assert all(p.grad is None for p in jepa.target.parameters())


def test_empty_token_gets_gradient_from_the_target_map_too(parts) -> None:
    encoder, jepa, x = parts
    masks = draw_masks(x, encoder.stride, encoder.bev_shape, 0.5)
    _, _, target = jepa.maps(encoder, x, masks)
    (gradient,) = torch.autograd.grad((target * torch.randn_like(target)).sum(), jepa.empty_token)
    assert gradient.abs().sum() > 0


def test_target_follows_parameters_with_momentum_and_keeps_its_own_statistics(parts) -> None:
    encoder, jepa, _ = parts
    before = jepa.target.blocks[0].convolution.weight.clone()
    statistics = jepa.target.blocks[0].norm.running_mean.clone()
    with torch.no_grad():
        encoder.blocks[0].convolution.weight.add_(1.0)
        encoder.blocks[0].norm.running_mean.add_(1.0)
    jepa.follow(encoder, 0.0)
    torch.testing.assert_close(jepa.target.blocks[0].convolution.weight, before + 0.004)
    assert torch.equal(jepa.target.blocks[0].norm.running_mean, statistics)
    now = jepa.target.blocks[0].convolution.weight.clone()
    jepa.follow(encoder, 1.0)
    assert torch.equal(jepa.target.blocks[0].convolution.weight, now)


def test_spread_penalty_punishes_collapse_and_spares_spread_out_channels() -> None:
    cells = torch.ones(1, 20, 20, dtype=torch.bool)
    collapsed = F.normalize(torch.ones(1, 16, 20, 20), dim=1)
    spread = F.normalize(torch.randn(1, 16, 20, 20, generator=torch.Generator().manual_seed(0)), dim=1)
    assert spread_penalty(collapsed, cells) == pytest.approx(16**-0.5 - 1e-2, abs=1e-4)
    assert spread_penalty(spread, cells) < 0.02


def test_effective_rank_counts_the_directions_that_are_used() -> None:
    values = torch.zeros(4000, 8)
    values[:, :3] = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    assert effective_rank(values) == pytest.approx(3.0, abs=0.05)


def test_a_few_steps_lower_the_loss_without_collapse(parts) -> None:
    encoder, jepa, x = parts
    optimiser = torch.optim.AdamW([*encoder.parameters(), *jepa.predictor.parameters(), jepa.mask_token], lr=3e-3)
    losses = []
    for step in range(12):
        torch.manual_seed(step)
        found = jepa(encoder, x)
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
        jepa.follow(encoder, step / 12)
        losses.append(float(found["loss"].detach()))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert float(found["target_rank"]) > 2
