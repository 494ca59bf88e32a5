"""How the change of a frame's latent is found from its velocity field: the conditional mean, or a drawn sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wm_ros.future.config import FramesConfig
from wm_ros.nn import flow


class Solver(Protocol):
    """Anything that follows a velocity field; `guidance` is that on the trajectory, 1 = off."""

    @property
    def guidance(self) -> float: ...

    @property
    def steps(self) -> int: ...

    @property
    def evaluations(self) -> int:
        """How often the network runs for one frame."""

    def solve(self, velocity: flow.Velocity, like: Tensor) -> Tensor:
        """The change of a latent; `like` (B, C, h, w) gives shape, type and device."""


@dataclass(frozen=True)
class Mean:
    """The conditional mean: one step, no noise."""

    guidance: float = 1.0
    steps: int = 1
    evaluations: int = 1

    def solve(self, velocity: flow.Velocity, like: Tensor) -> Tensor:
        return flow.conditional_mean(velocity, like)


class Sample:
    """A sample in `steps` Euler steps from noise. Its noise goes on from call to call: make one for each drawing."""

    def __init__(self, steps: int, guidance: float, seed: int) -> None:
        self.steps, self.guidance, self.seed = steps, guidance, seed
        self._generator: torch.Generator | None = None

    @property
    def evaluations(self) -> int:
        return self.steps * (1 if self.guidance == 1.0 else 2)

    def solve(self, velocity: flow.Velocity, like: Tensor) -> Tensor:
        if self._generator is None:
            self._generator = torch.Generator(like.device).manual_seed(self.seed)
        return flow.sample(velocity, like.shape, self.steps, self._generator)


def make_solver(sizes: FramesConfig, steps: int = 0) -> Solver:
    """The solver in `steps` steps: 0 as the bundle's config says, 1 the conditional mean, more a sample."""
    if steps == 1 or (steps == 0 and sizes.estimate == "mean"):
        return Mean()
    return Sample(steps or sizes.sample_steps, sizes.guidance, sizes.seed)
