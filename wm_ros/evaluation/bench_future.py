"""Rows of `wm bench` for `future`: a trajectory, and three frames on one, beside 50 steps of DDIM on the same network.

The peer is `diffusers.DDIMScheduler` as Stable Diffusion sets it up. The network was trained for rectified flow,
z = (1 − σ) x + σ ε with velocity v = ε − x; DDIM's state is y = α x + s ε with α² + s² = 1. They are the same point up
to scale: y / (α + s) = z at σ = s / (α + s), so ε = z + (1 − σ) v is what the scheduler is told, and nothing of the
network changes. Both draw on the true motion of simulated scenes that no training has seen; the report says how near
each comes to the frames that followed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from wm_ros.capability import load
from wm_ros.data.simulator import tabletop_samples
from wm_ros.evaluation.bench import Row
from wm_ros.evaluation.replay import Pipeline
from wm_ros.future.capability import FutureCapability, Moment
from wm_ros.future.frames import Scene
from wm_ros.future.memory import Memory
from wm_ros.future.model import FutureModel
from wm_ros.nn import flow
from wm_ros.nn.image_quality import psnr, ssim
from wm_ros.nn.preprocessing import resize_area, to_tensor
from wm_ros.paths import bundle_path
from wm_ros.types import Frame, Joints, Sample, StateTokens

PEER = "ddim50_2_threads"
PEER_STEPS = 50
SEEDS = (100000, 100001, 100002, 100003)
EVERY = 20  # predictions between the moments that are painted


@dataclass
class Painting:
    """Moments to paint, what came after each, and what was painted of each by which method."""

    model: FutureModel
    moments: list[Moment]
    bodies: list[Tensor]
    seen: list[Tensor]
    painted: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def facts(self, threads: int, median_s: float) -> dict[str, Any]:
        """Mean PSNR (dB) and SSIM over horizons and moments of each method, over the moments that all have painted."""
        common = set.intersection(*(set(drawn) for drawn in self.painted.values()))
        quality: dict[str, Any] = {}
        for name, drawn in self.painted.items():
            pairs = [(drawn[n][0], self.seen[n]) for n in sorted(common)]
            decibel = torch.stack([psnr(image, truth).mean() for image, truth in pairs]).mean()
            structure = torch.stack([ssim(image, truth).mean() for image, truth in pairs]).mean()
            quality[name] = {"psnr_db": round(float(decibel), 2), "ssim": round(float(structure), 3)}
        return {"quality": quality, "moments": len(common)}


def future_rows() -> list[Row]:
    """`trajectory`: one step of the capability without frames. `three_frames`: stage II on a given trajectory."""
    painting = _moments()
    ours = _timed(painting, "ours", lambda image, scene, body: painting.model.paint(image, scene, body))
    peer = _timed(painting, "ddim50", lambda image, scene, body: _paint_by_ddim(painting.model, image, scene, body))
    return [
        Row("trajectory", _trajectory()),
        Row("three_frames", lambda threads: ours(), peers={PEER: lambda: peer(2)}, facts=painting.facts),
    ]


def _trajectory() -> Callable[[int], float]:
    capability = load("future", bundle_path("future-lite"))
    capability.wanted = set()
    samples = [sample for sample in _heard(1) if isinstance(sample, capability.inputs)]
    position = 0

    def run(threads: int) -> float:
        nonlocal position
        while True:
            sample = samples[position % len(samples)]
            if position % len(samples) == 0:
                capability.reset()
            position += 1
            begin = time.perf_counter()
            if capability.step(sample) is not None:
                return time.perf_counter() - begin

    return run


def _heard(seed: int) -> list[Sample]:
    """A simulated episode with its state tokens."""
    pipeline = Pipeline(["state"], {"state": bundle_path("state-lite")})
    samples = tabletop_samples(seed=seed, seconds=6.0, width=256, height=192)
    return [heard for sample in samples for heard, _, prediction in pipeline.step(sample) if prediction is None]


def _moments() -> Painting:
    capability = load("future", bundle_path("future-lite"))
    assert isinstance(capability, FutureCapability)
    capability.wanted = set()
    config = capability.config
    painting = Painting(capability.model, [], [], [])
    offsets_ns = np.round(np.arange(1, config.horizon_steps + 1) * 1e9 / config.rate_hz).astype(np.int64)
    for seed in SEEDS:
        capability.reset()
        truth, moments, frames = Memory(config, span_s=float("1e9")), [], []
        for sample in _heard(seed):
            capability.step(sample)
            if type(sample) is Joints:
                truth.take_joints(sample)
            if isinstance(sample, Frame):
                frames.append(resize_area(sample.rgb, config.image_height, config.image_width))
            if isinstance(sample, StateTokens):
                moments.append(capability.moment)
        for now in range(EVERY, len(moments) - config.horizon_steps, EVERY):
            moment = moments[now]
            assert moment is not None
            painting.moments.append(moment)
            painting.bodies.append(torch.from_numpy(truth.body_at(moment.stamp_ns + offsets_ns)[0]).float()[None])
            painting.seen.append(to_tensor(np.stack([frames[now + step] for step in config.frame_steps])))
    return painting


def _timed(painting: Painting, name: str, paint: Callable[[Tensor, Scene, Tensor], Tensor]) -> Callable[..., float]:
    """Each call paints the next moment, in a ring; the image is encoded beforehand, as for its state."""
    drawn = painting.painted.setdefault(name, {})
    position = 0

    @torch.inference_mode()
    def run(threads: int = 0) -> float:
        nonlocal position
        if threads:
            torch.set_num_threads(threads)
        number = position % len(painting.moments)
        position += 1
        moment, config = painting.moments[number], painting.model.config
        assert moment.frame is not None
        image = to_tensor(resize_area(moment.frame.rgb, config.image_height, config.image_width))[None]
        scene = Scene.of(moment.batch, painting.model.autoencoder.encode(image))
        begin = time.perf_counter()
        drawn[number] = paint(image, scene, painting.bodies[number])
        return time.perf_counter() - begin

    return run


def _paint_by_ddim(model: FutureModel, image: Tensor, scene: Scene, trajectory: Tensor) -> Tensor:
    """Frames (B, K, 3, H, W) like those of `FutureModel.paint`, each drawn from noise by DDIM."""
    generator = torch.Generator().manual_seed(0)
    latents = model.frames.draw(scene, trajectory, lambda velocity, like: ddim(velocity, like, generator))
    return model.compose(image, scene, latents)


def ddim(velocity: flow.Velocity, like: Tensor, generator: torch.Generator, steps: int = PEER_STEPS) -> Tensor:
    """A sample like a tensor (B, …) by diffusers' DDIM of a network that was trained for rectified flow."""
    scheduler: Any = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    scheduler.set_timesteps(steps)
    y = torch.randn(like.shape, generator=generator)
    for step in scheduler.timesteps:
        alpha, s = scheduler.alphas_cumprod[step].sqrt(), (1 - scheduler.alphas_cumprod[step]).sqrt()
        sigma = s / (alpha + s)
        z = y / (alpha + s)
        noise = z + (1 - sigma) * velocity(z, sigma.expand(len(z)))
        y = scheduler.step(noise, int(step), y).prev_sample
    return y
