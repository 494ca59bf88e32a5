"""What was measured lately, read back on a fixed-rate grid: the newest sample by stamp is held at each step."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

# A sample this little after a grid step still counts as there: the stamps of a steady sensor are rounded.
TOLERANCE_NS = 2_000_000


class History:
    """Values of one stream by stamp. Holds the last `span_s` seconds and the sample before them."""

    def __init__(self, span_s: float) -> None:
        self.span_ns = round(span_s * 1e9)
        self._stamps: list[int] = []
        self._values: list[NDArray[np.float32]] = []

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest sample, None where there is none."""
        return self._stamps[-1] if self._stamps else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the newest value, () where there is none."""
        return self._values[-1].shape if self._values else ()

    def clear(self) -> None:
        """Forget all."""
        self._stamps.clear()
        self._values.clear()

    def add(self, stamp_ns: int, value: NDArray[np.float32]) -> bool:
        """Take a value. False, and all before is forgotten, if it is older than the newest: the clock jumped back."""
        steady = not self._stamps or stamp_ns >= self._stamps[-1]
        if not steady:
            self.clear()
        if self._stamps and stamp_ns == self._stamps[-1]:
            self._values[-1] = value
            return steady
        self._stamps.append(stamp_ns)
        self._values.append(value)
        while len(self._stamps) > 1 and self._stamps[1] <= stamp_ns - self.span_ns:
            del self._stamps[0], self._values[0]
        return steady

    def at(self, stamps_ns: list[int]) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
        """Values held at `stamps_ns`.

        Returns:
            (T, …) values, where the stream had not begun its first one; (T,) bool, True there; and the stamp of the
            value held at the last of `stamps_ns`.
        """
        place = [bisect_right(self._stamps, stamp + TOLERANCE_NS) - 1 for stamp in stamps_ns]
        values = np.stack([self._values[max(p, 0)] for p in place])
        return values, np.asarray([p < 0 for p in place]), self._stamps[max(place[-1], 0)]


def grid_ns(now_ns: int, steps_back: list[int], rate_hz: float) -> list[int]:
    """Stamps of the grid steps so many steps before `now_ns`."""
    return [now_ns - round(back * 1e9 / rate_hz) for back in steps_back]
