"""From overlapping chunks to one target for each control period. Three strategies behind one interface:

- queue: the first `n_action_steps` of a chunk, then the newest one that has come.
- ensemble: all chunks that cover now, averaged with weights exp(-m·i), i = 0 the oldest (ACT, Zhao et al. 2023).
  Older plans weigh more, so that a single odd chunk hardly moves the arm.
- real_time: as queue, but a new chunk goes on from the one that runs (`wm_ros.policy.realtime`): the steps that pass
  while a chunk is computed are kept, and the rest is faded into.

A chunk says when each of its points is due, so a late one is entered where time is now, with whatever strategy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wm_ros.bundle import StrictModel
from wm_ros.errors import UserError
from wm_ros.policy.realtime import Schedule, blend
from wm_ros.types import ActionChunk

Double = NDArray[np.float64]
StrategyName = Literal["queue", "ensemble", "real_time"]
SafeCommand = Literal["hold", "stop"]
STRATEGIES: tuple[str, ...] = get_args(StrategyName)
SAFE_COMMANDS: tuple[str, ...] = get_args(SafeCommand)

MAX_CHUNKS = 64
RECENT = 20  # chunks whose delays are remembered; the worst of them counts


class ExecutionConfig(StrictModel):
    """How chunks are executed.

    Attributes:
        strategy: see above.
        n_action_steps: points of a chunk before the next one is taken. 0: half of the chunk for queue; for real_time
            one, so that each chunk is taken when it comes.
        ensemble_decay: m of the ensemble's weights. fade_steps, schedule: of real_time, in control periods.
        safe_command: "hold" the measured joints (the last command where they are not fresh), or "stop": brake where
            the joints are commanded to be.
        chunk_timeout_s, joints_timeout_s: without a new one for longer, the safe command is due.
        hold_time_s: in which a safe command of one point is reached.
    """

    strategy: StrategyName = "real_time"
    control_rate_hz: float = Field(default=30.0, gt=0, le=1000)
    n_action_steps: int = Field(default=0, ge=0)
    ensemble_decay: float = Field(default=0.01, ge=0)
    fade_steps: int = Field(default=10, ge=1)
    schedule: Schedule = "linear"
    safe_command: SafeCommand = "hold"
    chunk_timeout_s: float = Field(default=0.5, gt=0)
    joints_timeout_s: float = Field(default=0.5, gt=0)
    hold_time_s: float = Field(default=0.1, ge=0)


class Strategy(ABC):
    """Chunks in, targets out. Times are those of one clock, ns.

    Attributes:
        delays_ns: from a chunk's stamp to its arrival, of the last `RECENT` chunks.
    """

    def __init__(self) -> None:
        self.delays_ns: deque[int] = deque(maxlen=RECENT)

    def add(self, chunk: ActionChunk, now_ns: int) -> None:
        """Take a chunk that has just come."""
        self.delays_ns.append(max(0, now_ns - chunk.stamp_ns))
        self._take(chunk)

    @property
    def delay_ns(self) -> int:
        """The worst recent delay, 0 before the first chunk."""
        return max(self.delays_ns, default=0)

    @abstractmethod
    def target(self, now_ns: int) -> Double | None:
        """Joint positions (J,) due at `now_ns`, rad; between two points of a chunk on the line between them, before the
        first one of the first chunk that. None where no chunk reaches that far: the queue ran dry."""

    @abstractmethod
    def left_s(self, now_ns: int) -> float:
        """Seconds for which there are targets, 0 where there are none."""

    @abstractmethod
    def drop(self) -> None:
        """Let go of all chunks: a new instruction. Delays are remembered."""

    @abstractmethod
    def _take(self, chunk: ActionChunk) -> None: ...


class Ensemble(Strategy):
    """`decay`: m of the weights, 0 = plain mean."""

    def __init__(self, decay: float = 0.01) -> None:
        super().__init__()
        self.decay = decay
        self._chunks: deque[ActionChunk] = deque(maxlen=MAX_CHUNKS)

    def target(self, now_ns: int) -> Double | None:
        while self._chunks and end_ns(self._chunks[0]) < now_ns:
            self._chunks.popleft()
        covering = [chunk for chunk in self._chunks if begin_ns(chunk) <= now_ns <= end_ns(chunk)] or [
            chunk for chunk in self._chunks if chunk.stamp_ns <= now_ns <= end_ns(chunk)
        ]
        if not covering:
            return None
        points = np.stack([positions_at(chunk, np.array([now_ns]))[0] for chunk in covering])
        weights = np.exp(-self.decay * np.arange(len(covering)))
        mean: Double = weights @ points / weights.sum()
        return mean

    def left_s(self, now_ns: int) -> float:
        return max([0.0, *((end_ns(chunk) - now_ns) / 1e9 for chunk in self._chunks)])

    def drop(self) -> None:
        self._chunks.clear()

    def _take(self, chunk: ActionChunk) -> None:
        if self._chunks and chunk.stamp_ns < self._chunks[-1].stamp_ns:
            self._chunks.clear()  # stamps began anew
        self._chunks.append(chunk)


class Queue(Strategy):
    """`n_action_steps`: points of a chunk, from where it is entered, after which the next one is taken.

    While none has come it goes on with the rest of the chunk.
    """

    def __init__(self, n_action_steps: int) -> None:
        super().__init__()
        self.n_action_steps = n_action_steps
        self._running: ActionChunk | None = None
        self._waiting: ActionChunk | None = None
        self._until_ns = 0

    def target(self, now_ns: int) -> Double | None:
        over = self._running is None or now_ns >= self._until_ns or now_ns > end_ns(self._running)
        if self._waiting is not None and over:
            step_ns = (end_ns(self._waiting) - self._waiting.stamp_ns) / len(self._waiting.offsets_s)
            self._until_ns = now_ns + round(self.n_action_steps * step_ns)
            self._running, self._waiting = self._enter(self._waiting, now_ns), None
        if self._running is None or now_ns > end_ns(self._running):
            return None
        return positions_at(self._running, np.array([now_ns]))[0]

    def left_s(self, now_ns: int) -> float:
        chunks = [chunk for chunk in (self._running, self._waiting) if chunk is not None]
        return max([0.0, *((end_ns(chunk) - now_ns) / 1e9 for chunk in chunks)])

    def drop(self) -> None:
        self._running = self._waiting = None

    def _take(self, chunk: ActionChunk) -> None:
        self._waiting = chunk

    def _enter(self, chunk: ActionChunk, now_ns: int) -> ActionChunk:
        """What is run of `chunk` from now on: before its first point, the way there from where the running one is."""
        if self._running is None or not now_ns <= end_ns(self._running) or now_ns >= begin_ns(chunk):
            return chunk
        here = positions_at(self._running, np.array([now_ns])).astype(np.float32)
        offsets_s = np.concatenate([[(now_ns - chunk.stamp_ns) / 1e9], chunk.offsets_s])
        return replace(chunk, offsets_s=offsets_s, position_rad=np.concatenate([here, chunk.position_rad]))


class RealTime(Queue):
    """`fade_steps`: control periods over which the running chunk fades, after those that are committed."""

    def __init__(self, n_action_steps: int, period_s: float, fade_steps: int, schedule: Schedule = "linear") -> None:
        super().__init__(n_action_steps)
        self.period_ns, self.fade_steps, self.schedule = round(period_s * 1e9), fade_steps, schedule

    def _enter(self, chunk: ActionChunk, now_ns: int) -> ActionChunk:
        left_ns = end_ns(chunk) - now_ns
        if self._running is None or now_ns > end_ns(self._running) or left_ns <= 0:
            return chunk
        due_ns = np.minimum(now_ns + np.arange(-(-left_ns // self.period_ns) + 1) * self.period_ns, end_ns(chunk))
        running = positions_at(self._running, due_ns[due_ns <= end_ns(self._running)])
        # Of the steps that the worst delay takes from the chunk's stamp on, those that have passed are behind.
        committed = math.ceil(max(0, self.delay_ns - (now_ns - chunk.stamp_ns)) / self.period_ns)
        path = blend(
            running, positions_at(super()._enter(chunk, now_ns), due_ns), committed, self.fade_steps, self.schedule
        )
        return ActionChunk(now_ns, "", chunk.names, (due_ns - now_ns) / 1e9, path.astype(np.float32))


def steps_of(config: ExecutionConfig, chunk_steps: int) -> int:
    """Points of a chunk of `chunk_steps` that are executed. Raises UserError where more are asked for."""
    if config.n_action_steps > chunk_steps:
        raise UserError(
            f"n_action_steps = {config.n_action_steps}, but a chunk has {chunk_steps} steps; "
            f"choose 1 to {chunk_steps}, or 0"
        )
    if config.strategy == "ensemble":
        return 1
    return config.n_action_steps or (max(1, chunk_steps // 2) if config.strategy == "queue" else 1)


def make_strategy(config: ExecutionConfig, steps: int) -> Strategy:
    """The strategy that `config` names, of which `steps` points of a chunk are executed."""
    if config.strategy == "ensemble":
        return Ensemble(config.ensemble_decay)
    if config.strategy == "queue":
        return Queue(steps)
    return RealTime(steps, 1.0 / config.control_rate_hz, config.fade_steps, config.schedule)


def begin_ns(chunk: ActionChunk) -> int:
    """When the first point of a chunk is due."""
    return chunk.stamp_ns + round(float(chunk.offsets_s[0]) * 1e9)


def end_ns(chunk: ActionChunk) -> int:
    """When the last point of a chunk is due."""
    return chunk.stamp_ns + round(float(chunk.offsets_s[-1]) * 1e9)


def positions_at(chunk: ActionChunk, due_ns: NDArray[np.int64]) -> Double:
    """Positions (n, J) of a chunk at `due_ns` (n,), its first or last ones where it does not reach."""
    offsets_s = np.clip((due_ns - chunk.stamp_ns) / 1e9, chunk.offsets_s[0], chunk.offsets_s[-1])
    position = chunk.position_rad.astype(np.float64)
    after = np.clip(np.searchsorted(chunk.offsets_s, offsets_s), 1, max(len(position) - 1, 1))
    if len(position) == 1:
        return np.repeat(position, len(due_ns), axis=0)
    begin, end = chunk.offsets_s[after - 1], chunk.offsets_s[after]
    share = ((offsets_s - begin) / (end - begin))[:, None]
    path: Double = position[after - 1] * (1.0 - share) + position[after] * share
    return path
