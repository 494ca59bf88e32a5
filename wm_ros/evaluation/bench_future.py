"""Rows of `wm bench`: hands to come in one step, and the frames to come beside fifty steps of diffusers' samplers.

The peers follow the velocity field of our own U-Net under the same conditions, each with diffusers' own scheduler.

`flow_euler_50`: `FlowMatchEulerDiscreteScheduler`, made for the flow that the network was trained on.

`ddim_50`: `DDIMScheduler`. Our path is z_σ = (1 − σ)·x + σ·ε with velocity u = ε − x, so that x = z − σ·u and
ε = z + (1 − σ)·u. DDIM walks a path that preserves variance, y = √ᾱ·x + √(1 − ᾱ)·ε. Dividing z_σ by
s = √((1 − σ)² + σ²) gives just this path with √ᾱ = (1 − σ)/s and √(1 − ᾱ) = σ/s; for a given ᾱ, therefore,

    σ = √(1 − ᾱ) / (√ᾱ + √(1 − ᾱ)),   s = 1 / (√ᾱ + √(1 − ᾱ)),   z = s·y,   v = √ᾱ·ε − √(1 − ᾱ)·x,

and v is what the scheduler calls `v_prediction`. Its last ᾱ is zero (`rescale_betas_zero_snr`), where z = y is noise.

Time and quality: the frames that each draws at some simulated moments, which no training has seen, against the frames
that came. A sample shows one of the things that may happen and a mean all of them at once, so that samples of a perfect
model are further from the truth than its mean; `last_image` shows what standing still would give.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.capability import load
from wm_ros.data.simulator import tabletop_samples
from wm_ros.evaluation.bench import Row
from wm_ros.evaluation.bench_steps import inputs, stepper
from wm_ros.future.capability import FutureCapability
from wm_ros.future.painter import Moment
from wm_ros.future.solvers import Solver
from wm_ros.nn import flow
from wm_ros.nn.image_quality import psnr, ssim
from wm_ros.nn.preprocessing import resize_area, to_tensor
from wm_ros.paths import bundle_path
from wm_ros.types import Frame, Sample

STEPS = 50
TRAIN_STEPS = 1000
SEEDS = range(100_000, 100_004)
MOMENTS_S = (1.2, 2.2)  # the hand reaches, then carries
PEER_RUNS = 5
Images = NDArray[np.uint8]


def future_rows() -> list[Row]:
    """`trajectory` (to stay within 20 ms, p95 at two threads), `three_frames` (400 ms). Input: simulated grasps."""
    hands = load("future", bundle_path("future-lite"))
    hands.wanted = set()
    scenes = [inputs("future", list(tabletop_samples(seed))) for seed in SEEDS[:1]]
    return [
        Row("trajectory", stepper(hands, scenes[0]), facts=lambda threads, median_s: {"bar_p95_ms": 20.0}),
        frames_row(),
    ]


def frames_row(seeds: range = SEEDS, steps: int = STEPS) -> Row:
    """Stage II alone: the frames on the trajectory of stage I, from the image to the pictures."""
    future = load("future", bundle_path("future-lite"))
    assert isinstance(future, FutureCapability)
    moments = [found for seed in seeds for found in seen_moments(future, list(tabletop_samples(seed, seconds=3.5)))]
    ring = itertools.cycle(moments)
    solvers: dict[str, Solver] = {f"ddim_{steps}": Ddim(steps), f"flow_euler_{steps}": FlowEuler(steps)}

    def run(solver: Solver | None) -> float:
        moment, _ = next(ring)
        begin = time.perf_counter()
        future.paint(moment, moment.forecast.body, solver)
        return time.perf_counter() - begin

    def peer(solver: Solver) -> Callable[[], float]:
        def timed() -> float:
            torch.set_num_threads(2)
            return run(solver)

        return timed

    @cache
    def quality() -> dict[str, Any]:
        last = [(_sized(future, m.frame)[None].repeat(len(seen), 0), seen) for m, seen in moments]
        drawn = {"ours": None} | solvers
        pairs = {
            name: [(future.paint(m, m.forecast.body, solver).rgb, seen) for m, seen in moments]
            for name, solver in drawn.items()
        } | {"last_image": last}
        return {
            "psnr_db": {name: round(_mean(psnr, found), 3) for name, found in pairs.items()},
            "ssim": {name: round(_mean(ssim, found), 4) for name, found in pairs.items()},
            "moments": len(moments),
            "bar_ms": 400.0,
        }

    return Row(
        "three_frames",
        lambda threads: run(None),
        peers={name: peer(solver) for name, solver in solvers.items()},
        facts=lambda threads, median_s: quality(),
        peer_runs=PEER_RUNS,
    )


def seen_moments(future: FutureCapability, samples: list[Sample]) -> list[tuple[Moment, Images]]:
    """The moments of an episode nearest after `MOMENTS_S`, each with the frames (K, H, W, 3) that then came."""
    config, found = future.config, []
    frames = {s.stamp_ns: s for s in samples if isinstance(s, Frame)}
    start_ns = min(frames)
    due = [start_ns + round(at_s * 1e9) for at_s in MOMENTS_S]
    future.reset()
    future.wanted = set()
    for sample in inputs("future", samples):
        if not isinstance(sample, future.inputs) or future.step(sample) is None:
            continue
        assert future.moment is not None
        now_ns = future.moment.stamp_ns
        if due and now_ns >= due[0]:
            due.pop(0)
            later = [now_ns + round(step * 1e9 / config.rate_hz) for step in config.frame_steps]
            nearest = [min(frames, key=lambda stamp: abs(stamp - at)) for at in later]
            found.append((future.moment, np.stack([_sized(future, frames[stamp]) for stamp in nearest])))
    return found


def _sized(future: FutureCapability, frame: Frame | None) -> Images:
    assert frame is not None
    return resize_area(frame.rgb, future.config.image_height, future.config.image_width)


def _mean(measure: Callable[[Tensor, Tensor], Tensor], pairs: list[tuple[Images, Images]]) -> float:
    return float(np.mean([measure(to_tensor(drawn), to_tensor(seen)).mean() for drawn, seen in pairs]))


# ------------------------------------------------------------------------- peers


class FlowEuler:
    """Fifty Euler steps of the flow, by diffusers."""

    guidance = 1.0

    def __init__(self, steps: int, seed: int = 0) -> None:
        self.steps, self.evaluations, self.seed = steps, steps, seed

    def solve(self, velocity: flow.Velocity, like: Tensor) -> Tensor:
        scheduler: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_STEPS)
        scheduler.set_timesteps(self.steps)
        z = _noise(like, self.seed)
        for at in scheduler.timesteps:
            z = scheduler.step(velocity(z, at.expand(len(z)) / TRAIN_STEPS), at, z).prev_sample
        return z


class Ddim:
    """Fifty deterministic DDIM steps on the variance-preserving twin of our path (see the head of this file)."""

    guidance = 1.0

    def __init__(self, steps: int, seed: int = 0) -> None:
        self.steps, self.evaluations, self.seed = steps, steps, seed

    def solve(self, velocity: flow.Velocity, like: Tensor) -> Tensor:
        scheduler: Any = DDIMScheduler(
            num_train_timesteps=TRAIN_STEPS,
            beta_schedule="scaled_linear",
            clip_sample=False,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
        )
        scheduler.set_timesteps(self.steps)
        y = _noise(like, self.seed)
        for at in scheduler.timesteps:
            signal, noise = scheduler.alphas_cumprod[at].sqrt(), (1 - scheduler.alphas_cumprod[at]).sqrt()
            sigma, z = noise / (signal + noise), y / (signal + noise)
            u = velocity(z, sigma.expand(len(z)))
            clean, noisy = z - sigma * u, z + (1 - sigma) * u
            y = scheduler.step(signal * noisy - noise * clean, at, y, eta=0.0).prev_sample
        return y


def _noise(like: Tensor, seed: int) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
