"""From overlapping chunks to one command per control tick.

Two ways, both of which a chunk's absolute stamps make independent of when it arrived:

- newest: the newest chunk alone (receding horizon). A late chunk is entered where time is now.
- ensemble: all chunks that cover now, averaged with weights exp(-m·i), i = 0 the oldest (ACT, Zhao et al. 2023).
  Older plans weigh more, so that a single odd chunk hardly moves the arm.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wm_ros.types import ActionChunk

MAX_CHUNKS = 64


class ChunkExecution:
    """Holds the chunks that still reach into the future.

    Args:
        mode: "newest" or "ensemble". decay: m of the ensemble's weights, 0 = plain mean.
    """

    def __init__(self, mode: Literal["newest", "ensemble"] = "ensemble", decay: float = 0.01) -> None:
        if mode not in ("newest", "ensemble"):
            raise ValueError(f"mode '{mode}': choose newest or ensemble")
        self.mode, self.decay = mode, decay
        self._chunks: deque[ActionChunk] = deque(maxlen=MAX_CHUNKS)

    def reset(self) -> None:
        """Drop all chunks: a new instruction, or the clock jumped."""
        self._chunks.clear()

    def add(self, chunk: ActionChunk) -> None:
        """Take a chunk. One older than the newest, or of other joints, starts afresh."""
        if self._chunks and (
            chunk.stamp_ns < self._chunks[-1].stamp_ns or chunk.names != self._chunks[-1].names or self.mode == "newest"
        ):
            self._chunks.clear()
        self._chunks.append(chunk)

    def command(self, now_ns: int) -> NDArray[np.float64] | None:
        """Joint positions (J,) for `now_ns`, interpolated between the points of a chunk.

        None where no chunk covers it: the queue ran dry and the robot must hold. Before its first point a chunk
        gives that point.
        """
        while self._chunks and _end_ns(self._chunks[0]) < now_ns:
            self._chunks.popleft()
        covering = [chunk for chunk in self._chunks if chunk.stamp_ns <= now_ns <= _end_ns(chunk)]
        if not covering:
            return None
        points = np.stack([_at(chunk, (now_ns - chunk.stamp_ns) / 1e9) for chunk in covering])
        weights = np.asarray([math.exp(-self.decay * i) for i in range(len(covering))])
        blended: NDArray[np.float64] = weights @ points / weights.sum()
        return blended

    def left_s(self, now_ns: int) -> float:
        """Seconds for which commands are left, 0 where none are."""
        return max([0.0, *((_end_ns(chunk) - now_ns) / 1e9 for chunk in self._chunks)])


def _end_ns(chunk: ActionChunk) -> int:
    return chunk.stamp_ns + round(float(chunk.offsets_s[-1]) * 1e9)


def _at(chunk: ActionChunk, offset_s: float) -> NDArray[np.float64]:
    position = chunk.position_rad.astype(np.float64)
    return np.stack([np.interp(offset_s, chunk.offsets_s, column) for column in position.T])
