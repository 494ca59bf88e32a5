"""The label-free objectives by name; all have the interface of `Jepa`."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from wm_ros.lidar.encoder import BevEncoder
from wm_ros.lidar.equivariance import EquivariantJepa
from wm_ros.lidar.jepa import Jepa
from wm_ros.lidar.multi_sweep import MultiSweepJepa
from wm_ros.lidar.reconstruction import OccupancyReconstruction
from wm_ros.lidar.sigreg import SigReg

Objective = Literal["jepa", "sigreg", "multi_sweep", "equivariant", "reconstruction"]

_KINDS: dict[str, type[nn.Module]] = {
    "jepa": Jepa,
    "sigreg": SigReg,
    "multi_sweep": MultiSweepJepa,
    "equivariant": EquivariantJepa,
    "reconstruction": OccupancyReconstruction,
}


def make_objective(name: Objective, encoder: BevEncoder, **options: Any) -> Any:
    """An objective for `encoder`.

    Its `forward(encoder, x, …)` gives named losses of which `loss` is minimised. `x` are the newest sweeps; where its
    `past` names earlier ones they follow, and where they are not `compensated` their motions too.
    `follow(encoder, progress)` comes after each optimiser step.
    """
    return _KINDS[name](encoder, **options)
