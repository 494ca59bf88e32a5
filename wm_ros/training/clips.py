"""Training clips of `state`: three images of one episode, the second half way between the others."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.utils.data import Dataset

from wm_ros.nn.preprocessing import to_tensor
from wm_ros.training.image_cache import ImageCache


class Clips(Dataset[torch.Tensor]):
    """(3, 3, H, W) in 0..1: first, middle and last image. One without followers near enough is three times itself.

    Args:
        rows: of the cache, where clips may begin. gaps: images from the first to the middle one, drawn from these.
        clip_s: longest clip. shares: how often each source is drawn, None for in proportion to its size.

    Attributes:
        photometric: strength of random gain, gamma and colour balance. shift_px: random shift at most. Both are the
            same for the three images: light and camera do not change within a clip.
    """

    def __init__(
        self,
        cache: ImageCache,
        rows: NDArray[np.int64],
        gaps: tuple[int, ...],
        clip_s: float,
        shares: list[float] | None = None,
    ) -> None:
        self.cache, self.rows, self.gaps, self.clip_s = cache, rows, gaps, clip_s
        self.photometric, self.shift_px = 0.0, 0
        self.weights = None if shares is None else _weights(cache.source[rows], shares)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        first = int(self.rows[index])
        gap = self._gap(first, self.gaps[int(torch.randint(len(self.gaps), ()))])
        clip = to_tensor(self.cache.images[np.array([first, first + gap, first + 2 * gap])])
        return self._shifted(self._lit(clip))

    def _gap(self, first: int, gap: int) -> int:
        """The gap, or a smaller one where the episode ends or its images are too far apart."""
        episode, stamp_s = self.cache.episode, self.cache.stamp_s
        while gap > 0:
            last = first + 2 * gap
            if last < len(episode) and episode[last] == episode[first] and stamp_s[last] - stamp_s[first] < self.clip_s:
                break
            gap //= 2
        return gap

    def _lit(self, clip: torch.Tensor) -> torch.Tensor:
        if not self.photometric:
            return clip
        gain, gamma, *balance = torch.exp(self.photometric * torch.randn(5)).tolist()
        return (gain * clip**gamma * torch.tensor(balance).view(3, 1, 1)).clamp(0.0, 1.0)

    def _shifted(self, clip: torch.Tensor) -> torch.Tensor:
        if not self.shift_px:
            return clip
        height, width = clip.shape[-2:]
        padded = functional.pad(clip, (self.shift_px,) * 4, mode="replicate")
        down, right = torch.randint(2 * self.shift_px + 1, (2,)).tolist()
        return padded[..., down : down + height, right : right + width]


def evenly(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of `rows`, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]


def _weights(source: NDArray[np.int64], shares: list[float]) -> NDArray[np.float64]:
    """Of each item, so that source n is drawn in proportion to shares[n]."""
    return np.asarray(shares)[source] / np.bincount(source, minlength=len(shares))[source]
