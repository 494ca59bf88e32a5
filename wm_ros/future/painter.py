"""Stage II at run time: the frames of a moment, whole or as many of them as the cycle has time for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.future.budget import FrameBudget, Limits, Plan
from wm_ros.future.frames import Scene
from wm_ros.future.history import Batch, Window
from wm_ros.future.model import FutureModel
from wm_ros.future.solvers import Solver, make_solver
from wm_ros.future.trajectory import Forecast
from wm_ros.nn.preprocessing import resize_area, to_tensor, to_uint8
from wm_ros.types import Frame


class Moment(NamedTuple):
    """What the last prediction was made from, so that its frames can be painted on another trajectory."""

    stamp_ns: int
    window: Window
    batch: Batch
    forecast: Forecast
    frame: Frame | None


class Painting(NamedTuple):
    """Frames to come.

    Attributes:
        rgb: (n, H, W, 3) uint8, nearest horizon first. reason: why there are fewer, or in fewer steps, than asked for;
            "" where there are not. hand_error_m: (n,) see `FutureFrames`; () without a reader.
    """

    rgb: NDArray[np.uint8]
    reason: str = ""
    hand_error_m: tuple[float, ...] = ()


class Painter:
    """Paints frames and measures what each part of it takes.

    Attributes:
        clock: seconds that only go forward.
        budget: what the parts have taken, and what may still be taken. plan: what was planned last.
    """

    def __init__(self, model: FutureModel, device: torch.device, clock: Callable[[], float]) -> None:
        self.model, self.device, self.clock = model, device, clock
        self.config, self.limits = model.config, Limits()
        self.budget = FrameBudget()
        self.plan = Plan(0, 0)

    @torch.inference_mode()
    def paint(self, moment: Moment, trajectory: Tensor | None, solver: Solver | None = None) -> Painting:
        """All frames to come of `moment`, whatever they take.

        Raises:
            ValueError: the moment has no image.
        """
        image, scene = self._scene(moment)
        shown = self.model.paint(image, scene, trajectory, solver)
        return Painting(to_uint8(shown[0]), "", () if trajectory is None else self._checked(scene, shown, trajectory))

    @torch.inference_mode()
    def hand_error_m(self, moment: Moment, rgb: NDArray[np.uint8], trajectory: Tensor) -> tuple[float, ...]:
        """How far the hand in any frames (K, H, W, 3) uint8 at the horizons is from a trajectory (1, F, V), m."""
        return self._checked(self._scene(moment)[1], to_tensor(rgb)[None].to(self.device), trajectory)

    @torch.inference_mode()
    def paint_within(self, moment: Moment, trajectory: Tensor, spent_ms: float) -> Painting:
        """The frames for which there is time after `spent_ms` of the cycle.

        Raises:
            ValueError: the moment has no image.
        """
        config, began_s = self.config, self.clock()
        asked = self.limits.frame_steps or make_solver(config.frames).steps
        horizons = self.limits.within(config.frame_horizons_s)
        self.plan = plan = self.budget.plan(spent_ms, horizons, asked, self._evaluations)
        if not plan.frames:
            return Painting(np.zeros((0, config.image_height, config.image_width, 3), np.uint8), plan.reason)
        solver = make_solver(config.frames, self.limits.frame_steps if plan.steps == asked else plan.steps)
        # The current image.
        image, scene = self._scene(moment)
        at_s = self._took("encode", 1, began_s)
        # One frame after another; the clock may have gone on faster than it used to.
        latents, reason = scene.latent[:, None][:, :0], plan.reason
        for drawn in range(plan.frames):
            left_ms = (plan.left_ms or 0.0) - (at_s - began_s) * 1e3
            if drawn and not self.budget.fits_another(left_ms, solver.evaluations, drawn):
                reason = f"slower than measured: {drawn} of {horizons} frames"
                break
            latents = self.model.frames.draw_next(scene, trajectory, latents, solver)
            at_s = self._took("evaluate", solver.evaluations, at_s)
        # The pictures, and whether the hand is where it should be in them.
        shown = self.model.show(image, scene, latents)
        painting = Painting(to_uint8(shown[0]), reason, self._checked(scene, shown, trajectory))
        self._took("decode", len(painting.rgb) + 1, at_s)
        return painting

    def _checked(self, scene: Scene, shown: Tensor, trajectory: Tensor) -> tuple[float, ...]:
        error_m = self.model.hand_error_m(scene, shown, trajectory)
        return () if error_m is None else tuple(error_m[0].tolist())

    def _evaluations(self, steps: int) -> int:
        return make_solver(self.config.frames, steps).evaluations

    def _scene(self, moment: Moment) -> tuple[Tensor, Scene]:
        if moment.frame is None:
            raise ValueError("this moment has no image to paint from")
        rgb = resize_area(moment.frame.rgb, self.config.image_height, self.config.image_width)
        image = to_tensor(rgb)[None].to(self.device)
        return image, Scene.of(moment.batch, self.model.autoencoder.encode(image))

    def _took(self, part: str, runs: int, began_s: float) -> float:
        now_s = self.clock()
        self.budget.measured(part, (now_s - began_s) * 1e3 / runs)
        return now_s
