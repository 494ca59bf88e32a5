"""The backbone of AD-L-JEPA (arXiv 2501.04969): twelve sparse convolutions, then the heights stacked into a BEV map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wm_ros.errors import UserError
from wm_ros.lidar.config import LidarConfig, VoxelConfig
from wm_ros.lidar.sparse import Block, Sparse, StridedConv3d, SubmanifoldConv3d, Triple
from wm_ros.lidar.voxels import Voxels

POINT_FEATURES = 4


def to_sparse(sweeps: Sequence[Voxels], config: VoxelConfig, device: torch.device | str = "cpu") -> Sparse:
    """A batch of voxelised sweeps as one sparse tensor; positions are scaled to about -1..1."""
    sites = [
        torch.cat([torch.full((len(v.coordinates), 1), b), torch.from_numpy(v.coordinates).long()], 1)
        for b, v in enumerate(sweeps)
    ]
    scale = torch.tensor([max(abs(config.range_m[i]), abs(config.range_m[i + 3])) for i in range(3)] + [1.0])
    features = torch.cat([torch.from_numpy(v.features) for v in sweeps]) / scale
    return Sparse(features.to(device), torch.cat(sites).to(device), config.shape, len(sweeps))


class _Down:
    """Kernel, stride and padding of the convolution that enters level 2, 3 or 4.

    With `dilate` kernel 3 as in the paper; its last one pads z by 0, so that 11 heights become 5. Without, the kernel
    is as large as the stride: every site has one parent and sites do not spill into empty cells, which on LiDAR sweeps
    halves the number of sites at each level.
    """

    def __init__(self, stride: Triple, level: int, dilate: bool) -> None:
        padding: Triple = (0 if level == 2 else 1, 1, 1)
        self.sizes: tuple[Triple, Triple, Triple] = (
            ((3, 3, 3), stride, padding) if dilate else (stride, stride, (0, 0, 0))
        )

    def shape(self, shape: Triple) -> Triple:
        z, y, x = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, *self.sizes, strict=True))
        return z, y, x


class BevEncoder(nn.Module):
    """Sparse voxels (B samples) → BEV map (B, bev_channels, rows, columns), row = y and column = x, both ascending."""

    def __init__(self, config: LidarConfig) -> None:
        super().__init__()
        first, second, third, fourth = config.encoder.channels
        downs = [_Down(stride, level, config.encoder.dilate) for level, stride in enumerate(config.encoder.strides)]
        out = config.encoder.out_channels
        self.blocks = nn.Sequential(
            Block(SubmanifoldConv3d(POINT_FEATURES, first)),
            Block(SubmanifoldConv3d(first, first)),
            Block(StridedConv3d(first, second, *downs[0].sizes)),
            Block(SubmanifoldConv3d(second, second)),
            Block(SubmanifoldConv3d(second, second)),
            Block(StridedConv3d(second, third, *downs[1].sizes)),
            Block(SubmanifoldConv3d(third, third)),
            Block(SubmanifoldConv3d(third, third)),
            Block(StridedConv3d(third, fourth, *downs[2].sizes)),
            Block(SubmanifoldConv3d(fourth, fourth)),
            Block(SubmanifoldConv3d(fourth, fourth)),
            Block(StridedConv3d(fourth, out, (3, 1, 1), (2, 1, 1), (0, 0, 0))),
        )
        shape = config.voxels.shape
        for down in downs:
            shape = down.shape(shape)
        depth, height, width = shape
        self.heights = (depth - 3) // 2 + 1
        if self.heights < 1:
            heights = config.voxels.shape[0]
            raise UserError(f"voxels: {heights} heights leave none behind the strides; make size_m smaller along z")
        self.bev_shape = (height, width)
        self.bev_channels = out * self.heights
        self.stride = (config.voxels.shape[1] // height, config.voxels.shape[2] // width)
        self.cell_m = config.voxels.size_m[0] * self.stride[1]

    def forward(self, x: Sparse) -> Tensor:
        dense = self.blocks(x).dense()  # (B, C, heights, rows, columns)
        return dense.flatten(1, 2)
