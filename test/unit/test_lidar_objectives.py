"""Every label-free objective learns, and each does what sets it apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wm_ros.lidar.config import EncoderConfig, LidarConfig, OccupancyConfig, VoxelConfig
from wm_ros.lidar.encoder import BevEncoder, to_sparse
from wm_ros.lidar.objectives import make_objective
from wm_ros.lidar.sigreg import gaussian_distance
from wm_ros.lidar.voxels import voxelise
from wm_ros.paths import CONFIG as CONFIG_FOLDER
from wm_ros.training.lidar import LidarTrainConfig
from wm_ros.training.lidar_cache import open_sweeps
from wm_ros.training.lidar_windows import SweepWindows
from wm_ros.training.task import read_config

CONFIG = LidarConfig(
    voxels=VoxelConfig(range_m=(-12.8, -12.8, -3, 12.8, 12.8, 1), size_m=(0.2, 0.2, 0.1)),
    encoder=EncoderConfig(channels=(4, 8, 8, 8), out_channels=8),
    occupancy=OccupancyConfig(cells=64, channels=(8, 8)),
)
NAMES = ("jepa", "sigreg", "multi_sweep", "equivariant", "reconstruction")


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> SweepWindows:
    cache: Path = tmp_path_factory.mktemp("sweeps")
    sweeps = open_sweeps("sim:drive?seeds=7&seconds=2&beams=16&azimuths=300", CONFIG, cache)
    return SweepWindows([sweeps], [{0}], CONFIG, augment=True)


def batch(rows: list[int], seed: int = 5) -> dict[str, torch.Tensor]:
    return {"row": torch.tensor(rows), "seed": torch.full((len(rows),), seed)}


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_and_every_parameter_learns(name: str, windows: SweepWindows) -> None:
    torch.manual_seed(0)
    encoder = BevEncoder(CONFIG)
    objective = make_objective(name, encoder)
    parameters = [*encoder.parameters(), *(p for p in objective.parameters() if p.requires_grad)]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    for step in range(12):
        torch.manual_seed(1)  # the same masks each time
        loss = objective(encoder, *windows.clip(batch([6, 8]), objective))["loss"]
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)
        optimiser.step()
        objective.follow(encoder, step / 12)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02


def test_sigreg_knows_a_gaussian_from_what_is_none() -> None:
    torch.manual_seed(0)
    gaussian = torch.randn(4000, 8)
    narrow, collapsed, shifted = gaussian * 0.3, gaussian[:, :1].expand(-1, 8) * 0 + 0.1, gaussian + 1
    one_axis = torch.cat([gaussian[:, :1], torch.zeros(4000, 7)], 1)
    near = float(gaussian_distance(gaussian))
    assert near < 1e-3
    for other in (narrow, collapsed, shifted, one_axis):
        assert float(gaussian_distance(other)) > 10 * near


def test_earlier_sweeps_are_moved_into_the_frame_of_the_newest(windows: SweepWindows) -> None:
    encoder = BevEncoder(CONFIG)
    still = make_objective("multi_sweep", encoder)
    now, past = windows.clip(batch([6], seed=-1), still)
    assert len(past) == len(still.past) == 2
    equivariant = make_objective("equivariant", encoder)
    _, own_frame, motions = windows.clip(batch([6], seed=-1), equivariant)
    assert motions.shape == (1, 1, 4, 4)
    source = windows.sources[0]
    row = windows.rows[6][1]
    expected = np.linalg.inv(source.pose(row - 5)) @ source.pose(row)
    np.testing.assert_allclose(motions[0, 0].numpy(), expected, atol=1e-9)
    assert len(own_frame[0].sites) > 100 and len(now.sites) > 100


def test_masks_of_several_sweeps_follow_the_union_of_their_cells(windows: SweepWindows) -> None:
    encoder = BevEncoder(CONFIG)
    objective = make_objective("multi_sweep", encoder)
    now, past = windows.clip(batch([6, 9]), objective)
    masks, voxels = objective._masks(encoder, [now, *past])
    for sweep, hidden in zip([now, *past], voxels, strict=True):
        b = sweep.sites[:, 0]
        row, column = sweep.sites[:, 2] // encoder.stride[0], sweep.sites[:, 3] // encoder.stride[1]
        assert masks.occupied[b, row, column].all()
        assert torch.equal(masks.hidden[b, row, column], hidden)


@pytest.mark.parametrize(
    ("file", "shape"), [("lidar_kitti_paper.yaml", (256, 200, 176)), ("lidar_waymo_paper.yaml", (256, 188, 188))]
)
def test_the_paper_configs_have_the_published_shapes_and_train_a_step(file: str, shape: tuple[int, int, int]) -> None:
    config = read_config(CONFIG_FOLDER / "train" / file, LidarTrainConfig)
    torch.manual_seed(0)
    encoder = BevEncoder(config.model)
    weights = sum(p.numel() for name, p in encoder.named_parameters() if name.endswith("convolution.weight"))
    assert 0.70e6 < weights < 0.72e6, "0.71 M weights of convolutions"
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform((2, -30, -1.5), (60, 30, 0.5), (400, 3)), rng.random((400, 1))], 1)
    x = to_sparse([voxelise(points.astype(np.float32), config.model.voxels)], config.model.voxels)
    objective = make_objective(config.objective, encoder, ratio=config.ratio, alpha=config.alpha, beta=config.beta)
    losses = objective(encoder, x)
    losses["loss"].backward()
    with torch.no_grad():
        assert encoder.eval()(x).shape[1:] == shape
    assert torch.isfinite(losses["loss"]) and objective.mask_token.grad.abs().sum() > 0
