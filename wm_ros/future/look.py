"""Looking the instruction up in the image: where is what it names?

A small convolutional stem gives one feature vector for each 8 × 8 pixels. Queries made of the instruction attend to
them, and each reads what it finds and where that is: the mean place under its attention, as coordinates (a spatial
softmax: Levine et al. 2016, "End-to-End Training of Deep Visuomotor Policies"). So a few numbers say where the named
object stands, and no other object has to be told apart from them. Where recordings say where the named object is, the
first query is taught to be there (`where_loss`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_ros.nn.autoencoder import ResidualBlock

CELL_PX = 8
WAVES = (1, 2, 4)
PLACE_CODE = 4 * len(WAVES) + 2


class Looked(NamedTuple):
    """What was found: tokens (B, Q, width), and the attention of the first query, (B, rows, columns), sum 1."""

    tokens: Tensor
    attention: Tensor


class Look(nn.Module):
    """Image (B, 3, H, W) in 0..1 and instruction (B, width) → Looked.

    Args:
        width: of instruction and tokens. channels: of a place. queries: things looked for. size: H, W of the image.
    """

    places: Tensor

    def __init__(self, width: int, channels: int, queries: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.queries, self.grid = queries, (size[0] // CELL_PX, size[1] // CELL_PX)
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels // 4, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(channels // 4, channels // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
            ResidualBlock(channels),
            ResidualBlock(channels),
        )
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.query = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, queries * channels))
        # Two coordinates beside all those features would be learned from last, so they have an entry of their own.
        self.what_in = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        self.where_in = nn.Sequential(
            nn.Linear(PLACE_CODE, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width)
        )
        self.place = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.missing = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.register_buffer("places", cell_places(self.grid), persistent=False)

    def forward(self, image: Tensor, text: Tensor) -> Looked:
        # Features need no more than half precision, which a CPU learns at twice the speed; places do.
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.training):
            cells = self.stem(image - 0.5).float()
        key, value = self.key(cells).flatten(2), self.value(cells).flatten(2)  # (B, C, cells)
        query = self.query(text).unflatten(1, (self.queries, -1))
        attention = (query @ key / key.shape[1] ** 0.5).softmax(-1)
        what, where = attention @ value.transpose(1, 2), attention @ self.places
        return Looked(self.found(what, where), attention[:, 0].unflatten(1, self.grid))

    def found(self, what: Tensor, where: Tensor) -> Tensor:
        """Tokens (B, Q, width) of features (B, Q, C) and places (B, Q, 2)."""
        tokens: Tensor = self.where_in(place_code(where)) + self.what_in(what) + self.place
        return tokens


def place_code(where: Tensor) -> Tensor:
    """Shares of the image (…, 2) → (…, PLACE_CODE): themselves, and sines and cosines of one to four half waves."""
    angle = torch.cat([torch.pi * waves * where for waves in WAVES], -1)
    return 2 * torch.cat([angle.sin(), angle.cos(), 2 * where - 1], -1)


def cell_places(grid: tuple[int, int]) -> Tensor:
    """Middles of the cells (rows · columns, 2): across and down, as shares of the image."""
    rows, columns = (torch.arange(count) + 0.5 for count in grid)
    down, across = torch.meshgrid(rows / grid[0], columns / grid[1], indexing="ij")
    return torch.stack([across, down], -1).flatten(0, 1)


def where_loss(attention: Tensor, where: Tensor) -> Tensor:
    """Mean cross-entropy between the attention (B, rows, columns) and the true place, shared by the four nearest cells.

    Args:
        where: (B, 2) across and down as shares of the image, NaN where unknown: that example does not count.
    """
    known = where.isfinite().all(1)
    rows, columns = attention.shape[1:]
    at = torch.nan_to_num(where) * torch.tensor([columns, rows], device=where.device) - 0.5
    across, down = (
        functional.relu(1 - (at[:, i, None] - torch.arange(count, device=where.device)).abs())
        for i, count in enumerate((columns, rows))
    )
    target = down[:, :, None] * across[:, None]
    target = target / target.sum((1, 2), keepdim=True).clamp(min=1e-6)
    entropy = -(target * (attention + 1e-8).log()).sum((1, 2))
    return (entropy * known).sum() / known.sum().clamp(min=1)
