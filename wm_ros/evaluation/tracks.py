"""What live judging needs: the world of the last seconds, predictions whose time is to come, running errors.

All of it is bounded in memory. No ROS in here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from wm_ros.types import Sample

HISTORY_S = 4.0  # twice the longest horizon: a slow model's prediction may come after its truth
PENDING = 200
NANO = 1_000_000_000
Value = TypeVar("Value")


@dataclass
class Track:
    """The errors of one kind of prediction at one horizon.

    Attributes:
        reference: what the second error is of, e.g. "hold": the same error of a prediction that costs nothing.
        shown: turns a mean error into the figure that people know (MSE → PSNR).
    """

    name: str
    unit: str
    reference: str
    window: int
    shown: Callable[[float], float] = float
    count: int = 0
    errors: deque[float] = field(init=False)
    references: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        self.errors, self.references = deque(maxlen=self.window), deque(maxlen=self.window)

    def add(self, error: float, reference: float) -> None:
        """Count one; a value that is not finite cannot be an error and is left out."""
        if np.isfinite(error) and np.isfinite(reference):
            self.errors.append(error)
            self.references.append(reference)
            self.count += 1

    def mean(self) -> float:
        return float(np.mean(self.errors))

    def reference_mean(self) -> float:
        return float(np.mean(self.references))

    def last_ratio(self) -> float:
        """The last error in units of the reference's running mean."""
        return self.errors[-1] / max(self.reference_mean(), 1e-9)

    def ratio(self) -> float:
        """1: no better than the reference; 0: perfect."""
        return self.mean() / max(self.reference_mean(), 1e-9)


class History(Generic[Value]):
    """Values of the last seconds by stamp."""

    def __init__(self, seconds: float = HISTORY_S, most: int = 1000) -> None:
        self.span_ns = int(seconds * NANO)
        self.rows: deque[tuple[int, Value]] = deque(maxlen=most)

    def add(self, stamp_ns: int, value: Value) -> None:
        if self.rows and stamp_ns <= self.rows[-1][0]:
            return
        self.rows.append((stamp_ns, value))
        while self.rows[0][0] < stamp_ns - self.span_ns:
            self.rows.popleft()

    @property
    def newest_ns(self) -> int:
        return self.rows[-1][0] if self.rows else -1

    def nearest(self, stamp_ns: int, tolerance_s: float) -> tuple[int, Value] | None:
        """The value whose stamp is nearest; None if none is within the tolerance."""
        best = min(self.rows, key=lambda row: abs(row[0] - stamp_ns), default=None)
        return best if best is not None and abs(best[0] - stamp_ns) <= tolerance_s * NANO else None


def interpolate(history: History[NDArray[np.float64]], stamps_ns: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Values (T, …) at stamps (T,) by linear interpolation; None where the history does not span them."""
    if len(history.rows) < 2 or stamps_ns[0] < history.rows[0][0] or stamps_ns[-1] > history.newest_ns:
        return None
    begin = history.rows[0][0]
    times = np.array([stamp - begin for stamp, _ in history.rows], np.float64)
    values = np.stack([value for _, value in history.rows])
    wanted = (stamps_ns - begin).astype(np.float64)
    flat = values.reshape(len(values), -1)
    columns = [np.interp(wanted, times, flat[:, column]) for column in range(flat.shape[1])]
    return np.stack(columns, -1).reshape(len(wanted), *values.shape[1:])


class Judge(ABC):
    """Holds predictions of one kind until their time has come.

    Attributes:
        name: row of the surprise. pending: (due_ns, what `settle_one` needs).
    """

    name: ClassVar[str]

    def __init__(self, window: int) -> None:
        self.window = window
        self.tracks: dict[str, Track] = {}
        self.reset()

    def reset(self) -> None:
        """Forget world and predictions; the errors stay."""
        self.pending: deque[tuple[int, Any]] = deque(maxlen=PENDING)

    @abstractmethod
    def takes(self, prediction: Sample) -> bool:
        """Whether a prediction is of this kind."""

    @abstractmethod
    def predict(self, prediction: Sample) -> None:
        """Take a prediction of this kind: put what must be judged on `pending`."""

    @abstractmethod
    def observe(self, sample: Sample) -> None:
        """Take a sample of the world."""

    @abstractmethod
    def newest_ns(self) -> int:
        """Up to when the truth is known."""

    @abstractmethod
    def settle_one(self, due_ns: int, item: Any) -> bool:
        """Score one whose time has come; False where the truth is missing."""

    def settle(self) -> bool:
        """Score all whose time has come. True if there was one."""
        newest, waiting, scored = self.newest_ns(), [], False
        for due_ns, item in self.pending:
            if due_ns > newest:
                waiting.append((due_ns, item))
            else:
                scored |= self.settle_one(due_ns, item)
        self.pending = deque(waiting, maxlen=PENDING)
        return scored

    def add(self, name: str, error: float, baseline: float, **track: Any) -> None:
        """Add an error, and that of the reference, to the track `name`, made at the first one with `track`."""
        if name not in self.tracks:
            self.tracks[name] = Track(name, window=self.window, **track)
        self.tracks[name].add(error, baseline)
