"""Stage II: the frames to come, by latent diffusion on the trajectory of stage I, one after another.

What is diffused is the change of the latent from the current frame, so an idle network says "as now". Each frame is
drawn by the U-Net of latent diffusion: the current frame's latent and a map that the condition is lifted to lie beside
the noisy channels, the fused tokens of `fusion` modulate every block and are attended to. A drawn frame re-enters the
context of the next. Rectified flow as in
`wm_ros.nn.flow`; the trajectory is dropped for a tenth of the training examples, for classifier-free guidance and for
the `no_trajectory` control.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from wm_ros.future.config import FutureConfig
from wm_ros.future.fusion import ALWAYS, Fusion, causal_mask, entry
from wm_ros.future.history import Batch
from wm_ros.future.solvers import Solver, make_solver
from wm_ros.future.trajectory import KNOWN_PREVIOUS, Normaliser
from wm_ros.nn import flow
from wm_ros.nn.instruction import make_encoder

PICTURE_FLOOR = 1e-4  # mean squared error below which a picture need not be better (40 dB)


class Scene(NamedTuple):
    """What the frames are drawn from: current body (B, V), states (B, 2, T, D), words, known, latent (B, C, h, w)."""

    body: Tensor
    states: Tensor
    words: Tensor
    known: Tensor
    latent: Tensor

    @classmethod
    def of(cls, batch: Batch, latent: Tensor) -> Scene:
        return cls(batch.body[:, -1], batch.states, batch.words, batch.known, latent)


class FrameModel(nn.Module):
    """Scene and trajectory → latents of the frames at the horizons of the config."""

    norm: Normaliser

    def __init__(self, config: FutureConfig, norm: Normaliser) -> None:
        super().__init__()
        self.config, sizes, channels = config, config.frames, config.autoencoder.channels
        width = sizes.width
        self.steps_per_frame = config.frame_steps[0]
        self.action_in = nn.Sequential(
            nn.Linear(2 * config.values, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.GELU()
        )
        self.action_out = nn.Linear(width, width)
        self.no_action = nn.Parameter(torch.randn(width) * 0.02)
        self.action_place = nn.Parameter(torch.randn(config.frame_steps[-1], width) * 0.02)
        self.state_in = nn.Linear(config.state_width, width)
        self.no_previous = nn.Parameter(torch.randn(width) * 0.02)
        self.text_in = make_encoder(config.language, width, drop=0.1)
        cell = sizes.frame_tokens
        self.frame_in = nn.Conv2d(channels, width, cell, stride=cell)
        grid = (config.image_height // 8 // cell) * (config.image_width // 8 // cell)
        self.frame_place = nn.Parameter(torch.randn(grid, width) * 0.02)
        self.state_place = nn.Parameter(torch.randn(2 * config.state_tokens + 1, width) * 0.02)
        self.time_in = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        self.fusion = Fusion(width, sizes.heads, sizes.fusion_layers)
        self.pooled = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, 2 * width))
        rows, columns = config.image_height // 8, config.image_width // 8
        self.lift = nn.Sequential(
            nn.Linear(2 * width, sizes.lift * rows * columns), nn.Unflatten(1, (sizes.lift, rows, columns))
        )
        finer = len(sizes.channels) - 1
        unet: Any = UNet2DConditionModel(
            sample_size=(rows, columns),
            in_channels=2 * channels + sizes.lift,
            out_channels=channels,
            down_block_types=("DownBlock2D",) * finer + ("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * finer,
            block_out_channels=sizes.channels,
            layers_per_block=sizes.layers,
            norm_num_groups=8,
            cross_attention_dim=width,
            attention_head_dim=sizes.heads,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * width,
            resnet_time_scale_shift="scale_shift",
            dropout=sizes.dropout,
        )
        self.unet: nn.Module = unet
        for parameter in unet.get_submodule("conv_out").parameters():
            nn.init.zeros_(parameter)
        object.__setattr__(self, "norm", norm)

    # ------------------------------------------------------------------ latents

    def scaled(self, latent: Tensor) -> Tensor:
        """Standardise latents (…, C, h, w)."""
        return (latent - self.norm.latent_mean[:, None, None]) / self.norm.latent_std[:, None, None]

    def change(self, latent: Tensor, frame: Tensor, index: int) -> Tensor:
        """From the current latent to that of frame `index`, in units of its spread."""
        return (frame - latent) / self.norm.change_std[index][:, None, None]

    def changed(self, latent: Tensor, change: Tensor, index: int) -> Tensor:
        """The inverse of `change`."""
        return latent + change * self.norm.change_std[index][:, None, None]

    # ------------------------------------------------------------------ conditions

    def actions(self, scene: Scene, trajectory: Tensor | None, drop: Tensor | None = None) -> Tensor:
        """Action embedding of each step (B, Q, width); `trajectory` (B, F, V) future bodies, None where unknown.

        Args:
            drop: (B,) bool, examples whose trajectory is withheld.
        """
        steps = len(self.action_place)
        if trajectory is None:
            return (self.no_action + self.action_place).expand(len(scene.latent), -1, -1)
        body = trajectory[:, :steps]
        moved = (body - scene.body[:, None]) / self.norm.step_std[steps - 1]
        absolute = (body - self.norm.body_mean) / self.norm.body_std
        action = self.action_out(self.action_in(torch.cat([absolute, moved], -1)))
        if drop is not None:
            action = torch.where(drop[:, None, None], self.no_action, action)
        return action + self.action_place

    def context(self, scene: Scene, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, M, width) with their times (M,): text, two states, the current frame, later frames.

        Args:
            frames: (B, n, C, h, w) latents of the first n frames to come (n may be 0).
        """
        config = self.config
        states = (scene.states - self.norm.state_mean) / self.norm.state_std
        previous = torch.where(
            scene.known[:, KNOWN_PREVIOUS, None, None], self.state_in(states[:, 0]), self.no_previous
        )
        tokens, place = config.state_tokens, self.state_place
        gap_s = config.state_gap_steps / config.rate_hz
        parts = [
            (self.text_in(scene.words)[:, None] + place[2 * tokens], ALWAYS),
            (previous + place[:tokens], -gap_s),
            (self.state_in(states[:, 1]) + place[tokens : 2 * tokens], 0.0),
            (self._frame_tokens(scene.latent, 0.0), 0.0),
        ]
        for index in range(frames.shape[1]):
            due_s = config.frame_steps[index] / config.rate_hz
            parts.append((self._frame_tokens(frames[:, index], due_s), due_s))
        return entry(parts)

    def _frame_tokens(self, latent: Tensor, at_s: float) -> Tensor:
        when = self.time_in(torch.full((1, 1), at_s, device=latent.device))
        tokens: Tensor = self.frame_in(self.scaled(latent)).flatten(2).transpose(1, 2) + self.frame_place + when
        return tokens

    def fuse(self, actions: Tensor, scene: Scene, frames: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Fused tokens (B, Q, width) of all action steps, each informed only by what is earlier.

        Args:
            hidden: (B,) bool, examples for which the later frames are withheld from the context.
        """
        context, times = self.context(scene, frames)
        query_s = torch.arange(1, actions.shape[1] + 1, device=actions.device) / self.config.rate_hz
        mask = causal_mask(query_s, times)
        if hidden is not None:
            mask = mask[None] & ~(hidden[:, None] & (times > 0)[None])[:, None]
        fused: Tensor = self.fusion(actions, context, mask)
        return fused

    def velocity(self, scene: Scene, fused: Tensor, index: int) -> flow.Velocity:
        """The velocity of frame `index`, with its condition bound in: the action steps since the frame before."""
        first = self.config.frame_steps[index - 1] if index else 0
        tokens = fused[:, first : self.config.frame_steps[index]]
        pooled = self.pooled(torch.cat([tokens.mean(1), tokens[:, -1]], 1))
        given = torch.cat([self.scaled(scene.latent), self.lift(pooled)], 1)

        def at(z: Tensor, sigma: Tensor) -> Tensor:
            noisy = torch.cat([z, given], 1)
            out: Tensor = self.unet(noisy, sigma * 1000, tokens, class_labels=pooled, return_dict=False)[0]
            return out

        return at

    # ------------------------------------------------------------------ training and drawing

    def losses(
        self, scene: Scene, trajectory: Tensor, frames: Tensor, index: int, decode: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Losses of frame `index` for each example's true latents `frames` (B, K, C, h, w).

        frames: of the velocity. Half of the examples sit at σ = 1 with the noise at its mean, zero. There the best
        velocity is minus the conditional mean of the change: this trains the deterministic estimate directly.
        pictures: logarithm of the mean squared error of that estimate as a picture, which is what PSNR is made of: not
        all that a latent holds is seen alike.

        Args:
            decode: latents (B, C, h, w) → pictures, held fixed.
        """
        count = len(frames)
        drop = torch.rand(count, device=frames.device) < 0.1
        # Frames that re-enter are blurred estimates at run time: train with noise on them, or without them.
        earlier = frames[:, :index]
        earlier = earlier + 0.5 * torch.randn_like(earlier) * self.norm.latent_std[:, None, None] * torch.rand(
            count, 1, 1, 1, 1, device=frames.device
        )
        hidden = torch.rand(count, device=frames.device) < 0.3
        fused = self.fuse(self.actions(scene, trajectory, drop), scene, earlier, hidden)
        clean = self.change(scene.latent, frames[:, index], index)
        sigma = flow.logit_normal_times(count).to(clean)
        noise = torch.randn_like(clean)
        mean = torch.arange(count, device=clean.device) % 2 == 0
        if self.config.frames.objective == "l1":
            mean = torch.ones_like(mean)
        sigma = torch.where(mean, torch.ones_like(sigma), sigma)
        noise = torch.where(mean[:, None, None, None], torch.zeros_like(noise), noise)
        velocity = self.velocity(scene, fused, index)(flow.interpolate(clean, noise, sigma), sigma)
        estimate = self.changed(scene.latent[mean], -velocity[mean].float(), index)
        with torch.autocast(clean.device.type, enabled=False):  # small errors of bright pictures
            with torch.no_grad():
                truth = decode(frames[mean, index])
            error = (decode(estimate) - truth).square().flatten(1).mean(1)
        if self.config.frames.objective == "l1":
            return {"frames": functional.l1_loss(velocity, noise - clean)}
        return {
            "frames": functional.mse_loss(velocity, noise - clean),
            "pictures": (error + PICTURE_FLOOR).log().mean(),
        }

    @torch.no_grad()
    def draw(self, scene: Scene, trajectory: Tensor | None, solver: Solver | None = None) -> Tensor:
        """Latents of all frames (B, K, C, h, w), one after another; `solver`: that of the config by default."""
        solver = solver or make_solver(self.config.frames)
        frames = scene.latent[:, None][:, :0]
        for _ in self.config.frame_steps:
            frames = self.draw_next(scene, trajectory, frames, solver)
        return frames

    @torch.no_grad()
    def draw_next(self, scene: Scene, trajectory: Tensor | None, frames: Tensor, solver: Solver) -> Tensor:
        """The first n frames (B, n, C, h, w), n may be 0, with the next one behind them."""
        index = frames.shape[1]
        velocity = self.velocity(scene, self.fuse(self.actions(scene, trajectory), scene, frames), index)
        if trajectory is not None and solver.guidance != 1.0:
            free = self.velocity(scene, self.fuse(self.actions(scene, None), scene, frames), index)
            velocity = flow.guided(velocity, free, solver.guidance)
        change = solver.solve(velocity, scene.latent)
        return torch.cat([frames, self.changed(scene.latent, change, index)[:, None]], 1)
