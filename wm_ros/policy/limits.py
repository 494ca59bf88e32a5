"""Commands that a joint can follow: limits of position, velocity and acceleration, kept for any target.

A command is a position for each control period; its velocity is the step from the command before over the period, its
acceleration the change of that. All three are kept together: a joint that moves is braked early enough to stop before
the end of its range, so that no later target can force a limit to be broken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Double = NDArray[np.float64]

UNLIMITED = 1e9  # stands for "no limit" in the arithmetic, which infinities would turn into NaN
CLIPPED_RAD = 1e-6  # a command this far from what was asked for counts as clipped
REST_RAD = 1e-6  # nearer than this a joint has arrived
LONGEST_S = 10.0  # a way to rest that takes longer is cut short


@dataclass(frozen=True)
class JointLimits:
    """Limits of J joints; infinite where there is none.

    Attributes:
        lower_rad, upper_rad, velocity_radps, acceleration_radps2: (J,). Metres for joints that slide.
    """

    names: tuple[str, ...]
    lower_rad: Double
    upper_rad: Double
    velocity_radps: Double
    acceleration_radps2: Double

    @classmethod
    def none(cls, names: Sequence[str]) -> JointLimits:
        """No limits at all."""
        free = np.full(len(names), np.inf)
        return cls(tuple(names), -free, free, free, free)

    def at_most(self, velocity_radps: float = 0.0, acceleration_radps2: float = 0.0) -> JointLimits:
        """The same, with a common bound on every joint; 0 adds none."""
        return replace(
            self,
            velocity_radps=np.minimum(self.velocity_radps, velocity_radps or np.inf),
            acceleration_radps2=np.minimum(self.acceleration_radps2, acceleration_radps2 or np.inf),
        )


class Limiter:
    """Turns any sequence of targets into commands within the limits, one for each control period.

    Attributes:
        position, velocity: (J,) of the last command, rad and rad/s.
        clipped: commands that differed from their target, so far; clipped_joint: the one that differed most, last time.
    """

    def __init__(self, limits: JointLimits, period_s: float) -> None:
        self.limits, self.period_s = limits, period_s
        self.lower = np.maximum(limits.lower_rad, -UNLIMITED)
        self.upper = np.minimum(limits.upper_rad, UNLIMITED)
        self._fastest = np.minimum(limits.velocity_radps, UNLIMITED)
        self._gain = np.minimum(limits.acceleration_radps2 * period_s, UNLIMITED)  # rad/s that one period can change
        self.clipped, self.clipped_joint = 0, ""
        self.begin(np.zeros(len(limits.names)))

    def begin(self, position: Double) -> None:
        """Start at rest where the joints are (J,); at the end of its range where one is outside of it."""
        self.position = np.clip(position, self.lower, self.upper)
        self.velocity = np.zeros(len(self.position))
        self._asked = self.position.copy()

    def step(self, target: Double) -> Double:
        """The next command (J,) on the way to `target` (J,); a value of it that is not finite is the one before it."""
        self._follow(target)
        off = np.abs(self.position - target)
        off = np.where(np.isfinite(off), off, np.inf)
        if off.max(initial=0.0) > CLIPPED_RAD:
            self.clipped += 1
            self.clipped_joint = self.limits.names[int(off.argmax())]
        return self.position.copy()

    def come_to(self, target: Double) -> Double:
        """Commands (n, J), n >= 1, until the joints rest at `target` (J,); these are not counted as clipped."""
        goal = np.clip(target, self.lower, self.upper)
        return self._until(
            lambda: self._follow(goal),
            lambda: bool(
                (np.abs(self.position - goal) < REST_RAD).all() and (np.abs(self.velocity) <= self._gain).all()
            ),
        )

    def stop(self) -> Double:
        """Commands (n, J), n >= 1, that brake every joint as fast as it may, until all rest."""
        rest = np.zeros(len(self.velocity))
        return self._until(
            lambda: self._move(rest), lambda: bool((np.abs(self.velocity) * self.period_s < REST_RAD).all())
        )

    def _until(self, move: Callable[[], None], at_rest: Callable[[], bool]) -> Double:
        way = []
        for _ in range(max(1, round(LONGEST_S / self.period_s))):
            move()
            way.append(self.position.copy())
            if at_rest():
                break
        return np.stack(way)

    def _follow(self, target: Double) -> None:
        """Exact where the limits allow it: the target's own velocity is followed, and what is left of the way is gone
        at a speed that can still be braked, so that a target that stands still is not passed."""
        asked = np.clip(np.where(np.isfinite(target), target, self._asked), self.lower, self.upper)
        own = np.clip((asked - self._asked) / self.period_s, -self._fastest, self._fastest)
        left = asked - own * self.period_s - self.position
        self._asked = asked
        self._move(own + np.sign(left) * self._stoppable(np.abs(left)))

    def _move(self, velocity: Double) -> None:
        """One period at `velocity` (J,), as far as the limits allow."""
        slowest = np.maximum(-self._fastest, -self._stoppable(self.position - self.lower))
        fastest = np.minimum(self._fastest, self._stoppable(self.upper - self.position))
        allowed = np.clip(velocity, np.maximum(slowest, self.velocity - self._gain), fastest)
        self.velocity = np.minimum(allowed, self.velocity + self._gain)
        self.position = np.clip(self.position + self.velocity * self.period_s, self.lower, self.upper)

    def _stoppable(self, room: Double) -> Double:
        """The greatest speed (J,) from which a joint comes to rest within `room` (J,), this period included.

        At speed v = n·g + r, with 0 <= r < g and g the change of a period, it goes ((n + 1)·v − g·n·(n + 1)/2) periods.
        """
        periods = np.maximum(room, 0.0) / self.period_s
        n = np.floor((np.sqrt(1.0 + 8.0 * periods / self._gain) - 1.0) / 2.0)
        return periods / (n + 1.0) + self._gain * n / 2.0
