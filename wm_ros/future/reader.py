"""Where the hands are in a frame: a small reader, trained on frames that were seen, that checks frames that were drawn.

Ego-PM draws frames on a trajectory and does not ask whether the hand is where the trajectory says. The reader sees the
latent of a frame; what it reads is taken as a change from the frame of now, in which the wrists are measured, so that
how a camera is mounted falls out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_ros.future.look import cell_places
from wm_ros.nn.autoencoder import ResidualBlock

PLACES = 16  # things whose place in the image is followed
HANDS = 6  # x, y, z of both wrists


class HandReader(nn.Module):
    """Latents (B, C, h, w) → both wrists (B, 6), m, in the frame of the trajectories.

    Buffers:
        mean, std: (6,) of the wrists. error_m: (K,) mean error on held-out frames that were seen, for each kind of
            recording: the least that a check can tell.
    """

    mean: Tensor
    std: Tensor
    error_m: Tensor
    places: Tensor

    def __init__(self, channels: int, grid: tuple[int, int], width: int, kinds: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), ResidualBlock(width), ResidualBlock(width), ResidualBlock(width)
        )
        self.attend = nn.Conv2d(width, PLACES, 1)
        # Where things are (spatial softmax), and what is at each of those places.
        self.out = nn.Sequential(
            nn.Linear(PLACES * (2 + width), 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, HANDS)
        )
        self.register_buffer("mean", torch.zeros(HANDS))
        self.register_buffer("std", torch.ones(HANDS))
        self.register_buffer("error_m", torch.zeros(kinds))
        self.register_buffer("places", cell_places(grid), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        cells = self.stem(latents)
        attention = self.attend(cells).flatten(2).softmax(-1)  # (B, PLACES, cells)
        where, what = attention @ (2 * self.places - 1), attention @ cells.flatten(2).transpose(1, 2)
        return self.mean + self.std * self.out(torch.cat([where, what], -1).flatten(1)).float()

    def moved(self, now: Tensor, latent: Tensor, frames: Tensor) -> Tensor:
        """Wrists (B, K, 6) in frames (B, K, C, h, w), from where they are `now` (B, 6) and in the frame of now."""
        read = self(torch.cat([latent[:, None], frames], 1).flatten(0, 1)).unflatten(0, frames.shape[:1] + (-1,))
        return now[:, None] + read[:, 1:] - read[:, :1]

    def loss(self, latents: Tensor, hands: Tensor) -> Tensor:
        """Mean distance of the wrists read in latents (B, C, h, w) from hands (B, 6), in spreads of the wrists."""
        error = (self(latents) - hands) / self.std
        return (error.square() + 1e-4).sqrt().mean()


def hand_error_m(read: Tensor, now: Tensor, wanted: Tensor) -> Tensor:
    """How far the wrist that goes further is from where it should be.

    Args:
        read, wanted: (B, K, 6) both wrists, m. now: (B, 6) where they are.

    Returns:
        (B, K) m.
    """
    error = (read - wanted).unflatten(-1, (2, 3)).norm(dim=-1)
    side = (wanted - now[:, None]).unflatten(-1, (2, 3)).norm(dim=-1).argmax(-1, keepdim=True)
    return error.gather(-1, side)[..., 0]
