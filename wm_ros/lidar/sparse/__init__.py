"""Sparse 3D convolution: only occupied sites are stored, only existing neighbours are multiplied."""

from wm_ros.lidar.sparse.backends import choose
from wm_ros.lidar.sparse.layers import Block, InverseConv3d, StridedConv3d, SubmanifoldConv3d
from wm_ros.lidar.sparse.tensor import Sparse, Triple

__all__ = [
    "Block",
    "InverseConv3d",
    "Sparse",
    "StridedConv3d",
    "SubmanifoldConv3d",
    "Triple",
    "choose",
]
