"""What moves the robot: a strategy's targets within the joints' limits, one for each control period, and the watchdog.

The executor is armed by the first target that it can start on, from where the joints were measured. A policy that stops
answering, joints that fall silent, or a queue that runs dry gets the safe command, once; then it says nothing until a
new chunk comes. Two clocks: stamps are compared with the node's clock (ns, it may be simulated), silence is measured by
a steady one (s).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from wm_ros.policy.execution import ExecutionConfig, end_ns, make_strategy, steps_of
from wm_ros.policy.limits import JointLimits, Limiter
from wm_ros.types import ActionChunk, Joints

NO_CHUNK = "no chunk yet"
OUTSIDE_RAD = 0.1  # a joint measured this far outside of its range is not started from


@dataclass(frozen=True)
class Command:
    """What to send now. `chunk`: one point, or the way to rest; its stamp is zero, which controllers read as now.
    `why`: the reason of a safe command, "" of an ordinary one."""

    chunk: ActionChunk
    why: str = ""

    @property
    def rest(self) -> ActionChunk:
        """Where it ends, as a chunk of one point: for those who follow chunks and brake by themselves."""
        chunk = self.chunk
        return replace(chunk, offsets_s=chunk.offsets_s[-1:], position_rad=chunk.position_rad[-1:])


class Executor:
    """Chunks and measured joints in, commands out.

    Args:
        names: the joints that are commanded, in the order of commands. chunk_steps, chunk_rate_hz: of the chunks.

    Attributes:
        chunk_s, executed_s: length of a chunk, and of what is executed of one.
        armed: whether the robot moves by our commands. waiting: why it does not, in words.
        halts: safe commands so far; halted: why the last one was sent.
    """

    def __init__(
        self,
        config: ExecutionConfig,
        names: Sequence[str],
        chunk_steps: int,
        chunk_rate_hz: float,
        limits: JointLimits | None = None,
    ) -> None:
        self.config, self.names = config, tuple(names)
        self.period_s = 1.0 / config.control_rate_hz
        steps = steps_of(config, chunk_steps)
        self.strategy = make_strategy(config, steps)
        self.chunk_s, self.executed_s = chunk_steps / chunk_rate_hz, steps / chunk_rate_hz
        self.limiter = Limiter(limits or JointLimits.none(self.names), self.period_s)
        self.halts, self.halted = 0, ""
        self._columns: dict[tuple[str, ...], NDArray[np.int64]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all without a word: the clock jumped, or the node begins anew."""
        self.strategy.drop()
        self.armed, self.waiting = False, NO_CHUNK
        self._measured: NDArray[np.float64] | None = None
        self._measured_s = self._chunk_s = -math.inf

    # ------------------------------------------------------------------------- inputs

    def observe(self, joints: Joints, now_ns: int, now_s: float) -> str:
        """Take measured joints, in whatever order; why they are refused, or ""."""
        age_s = (now_ns - joints.stamp_ns) / 1e9
        if now_ns > 0 and age_s > self.config.joints_timeout_s:
            return f"stale: joints were measured {age_s:.2f} s ago by their stamp"
        columns, missing = self._place(joints.names)
        if missing:
            return f"joints missing: {missing}"
        if len(joints.position_rad) != len(joints.names):
            return f"malformed: {len(joints.names)} joint names but {len(joints.position_rad)} positions"
        position = np.asarray(joints.position_rad, np.float64)[columns]
        if not np.isfinite(position).all():
            return f"not finite: joint {self.names[int(np.flatnonzero(~np.isfinite(position))[0])]}"
        self._measured, self._measured_s = position, now_s
        return ""

    def add(self, chunk: ActionChunk, now_ns: int, now_s: float) -> str:
        """Take a chunk that has just come; why it is refused, or ""."""
        columns, missing = self._place(chunk.names)
        if missing:
            return f"joints missing: {missing}"
        if not len(chunk.offsets_s) or not np.isfinite(chunk.position_rad).all():
            return "not finite: a chunk with a value that is no number, or without points"
        if end_ns(chunk) < now_ns:
            return f"too late: its last point was due {(now_ns - end_ns(chunk)) / 1e9:.2f} s ago"
        position = chunk.position_rad[:, columns]
        self.strategy.add(ActionChunk(chunk.stamp_ns, chunk.frame_id, self.names, chunk.offsets_s, position), now_ns)
        self._chunk_s = now_s
        return ""

    def _place(self, names: tuple[str, ...]) -> tuple[NDArray[np.int64], str]:
        """Where our joints are among `names`, and those that are not there, in words."""
        if names not in self._columns:
            place = {name: index for index, name in enumerate(names)}
            missing = [name for name in self.names if name not in place]
            if missing:
                more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
                return np.zeros(0, np.int64), ", ".join(missing[:3]) + more
            self._columns[names] = np.asarray([place[name] for name in self.names], np.int64)
        return self._columns[names], ""

    # ------------------------------------------------------------------------- output

    def tick(self, now_ns: int, now_s: float) -> Command | None:
        """Once in each control period: what to send, or None for nothing."""
        if (safe := self.watch(now_s)) is not None:
            return safe
        target = self.strategy.target(now_ns + round(self.period_s * 1e9))  # due at the end of this period
        if target is None:
            return self.halt("the queue ran dry", now_s)
        if not self.armed and not self._begin(now_s):
            return None
        return Command(self._chunk(self.limiter.step(target)[None], self.period_s))

    def watch(self, now_s: float) -> Command | None:
        """The safe command if it is due; `tick` looks too."""
        trouble = self._trouble(now_s) if self.armed else ""
        return self.halt(trouble, now_s) if trouble else None

    def halt(self, why: str, now_s: float) -> Command | None:
        """Drop all chunks; the safe command where the robot moved by our commands, else None."""
        self.strategy.drop()
        if not self.armed:
            return None
        self.armed, self.waiting = False, f"{self.config.safe_command} was sent: {why}"
        self.halts, self.halted = self.halts + 1, why
        hold = self.config.safe_command == "hold" and self._measured is not None and not self._silent(now_s)
        way = self.limiter.come_to(self._measured) if hold and self._measured is not None else self.limiter.stop()
        return Command(self._chunk(way, self.config.hold_time_s if len(way) == 1 else self.period_s), why)

    def _trouble(self, now_s: float) -> str:
        if self._silent(now_s):
            return f"no joints for {self.config.joints_timeout_s:g} s"
        if now_s - self._chunk_s > self.config.chunk_timeout_s:
            return f"no chunk for {self.config.chunk_timeout_s:g} s"
        return ""

    def _silent(self, now_s: float) -> bool:
        return now_s - self._measured_s > self.config.joints_timeout_s

    def _begin(self, now_s: float) -> bool:
        """Start from where the joints are; False where that is not known, or where they must not be."""
        if self._measured is None or self._silent(now_s):
            self.waiting = "no fresh joints to start from"
            return False
        outside = np.maximum(self.limiter.lower - self._measured, self._measured - self.limiter.upper)
        if outside.max(initial=0.0) > OUTSIDE_RAD:
            worst = int(outside.argmax())
            self.waiting = f"joint {self.names[worst]} is {outside[worst]:.2f} rad outside of its limits"
            return False
        self.limiter.begin(self._measured)
        self.armed, self.waiting = True, ""
        return True

    def _chunk(self, way: NDArray[np.float64], step_s: float) -> ActionChunk:
        offsets_s = np.arange(1, len(way) + 1, dtype=np.float64) * step_s
        # Not rounded to float32: a limit would be passed by a hair.
        return ActionChunk(0, "", self.names, offsets_s, cast(NDArray[np.float32], way))

    # ------------------------------------------------------------------------- diagnostics

    def warning(self) -> str:
        """What is not as it should be, in words; "" where nothing is."""
        if not self.armed:
            return "" if self.waiting == NO_CHUNK else self.waiting
        needed_s = self.strategy.delay_ns / 1e9 + self.executed_s
        if needed_s > self.chunk_s:
            return f"chunks last {self.chunk_s:.2f} s, of which delay and n_action_steps take {needed_s:.2f} s"
        return ""

    def figures(self, now_ns: int, now_s: float) -> dict[str, str]:
        """For /diagnostics."""
        since_s, left_s = now_s - self._chunk_s, self.strategy.left_s(now_ns)
        delay_s = self.strategy.delay_ns / 1e9
        return {
            "strategy": self.config.strategy,
            "queue_steps": str(math.floor(left_s / self.period_s + 1e-6)),
            "queue_s": f"{left_s:.2f}",
            "delay_steps": str(math.ceil(delay_s / self.period_s - 1e-6)),
            "delay_ms": f"{delay_s * 1e3:.1f}",
            "since_chunk_s": f"{since_s:.2f}" if math.isfinite(since_s) else "never",
            "clipped": str(self.limiter.clipped),
            "clipped_joint": self.limiter.clipped_joint,
            "safe_commands": str(self.halts),
            "last_safe_command": self.halted,
        }
