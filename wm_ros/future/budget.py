"""How much of stage II fits into what a cycle has left: fewer steps first, then fewer frames, then none.

A cycle's frames cost one encoding, `evaluations` runs of the network for each frame, and the decoding of each picture
(the current one too). Each part is believed to take as long as the slowest of its recent measurements, and between two
frames the clock is asked again; so a machine that turns slow gives one late answer, not a series of them. While nothing
fits nothing is measured. After `PATIENCE` such cycles one frame in one step is tried, but only where the fastest
measurements would fit: on a machine that was never fast enough nothing is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wm_ros.errors import UserError

PARTS = ("encode", "evaluate", "decode")
RECENT = 30
PATIENCE = 45
EPSILON_S = 1e-6


@dataclass(frozen=True)
class Limits:
    """What of a prediction is shown, and in what time.

    Attributes:
        samples: how many sampled trajectories, the most probable ones; 0: all.
        frame_steps: of the sampler in each frame: 1 is the conditional mean, more draw a sample; 0: as the bundle says.
        horizon_s: how far ahead; 0: as far as the bundle looks. budget_ms: of one step of the capability; 0: none.
    """

    samples: int = 0
    frame_steps: int = 0
    horizon_s: float = 0.0
    budget_ms: float = 0.0

    def check(self, modes: int, offsets_s: Sequence[float]) -> None:
        """Raises UserError where the model has fewer trajectories, or does not look so far."""
        if not 0 <= self.samples <= modes:
            raise UserError(f"samples = {self.samples}: the bundle has {modes} trajectories; 0 shows all")
        if self.horizon_s and not offsets_s[0] <= self.horizon_s + EPSILON_S <= offsets_s[-1] + 2 * EPSILON_S:
            reach = f"from {offsets_s[0]:.3f} to {offsets_s[-1]:g} s"
            raise UserError(f"horizon_s = {self.horizon_s:g}: the bundle looks {reach} ahead; 0.0 shows all")

    def within(self, offsets_s: Sequence[float]) -> int:
        """How many of ascending `offsets_s` are shown."""
        return sum(not self.horizon_s or at_s <= self.horizon_s + EPSILON_S for at_s in offsets_s)


@dataclass(frozen=True)
class Plan:
    """What will be drawn.

    Attributes:
        frames: how many, nearest horizon first. steps: of the sampler, in each. left_ms: what was left to draw them in,
            None without a budget. reason: why it is less than what was asked for; "" where it is not.
    """

    frames: int
    steps: int
    left_ms: float | None = None
    reason: str = ""


class FrameBudget:
    """Measures the parts of stage II and plans with them. Times are milliseconds.

    Attributes:
        budget_ms: of a cycle, stage I included; 0: none, everything is drawn.
    """

    def __init__(self, budget_ms: float = 0.0) -> None:
        self.budget_ms = budget_ms
        self.forget()

    def forget(self) -> None:
        """Forget all measurements."""
        self._recent_ms: dict[str, deque[float]] = {part: deque(maxlen=RECENT) for part in PARTS}
        self._fastest_ms: dict[str, float] = {}
        self._barren = 0

    def measured(self, part: str, spent_ms: float) -> None:
        """One run of `part` ("encode" one image, "evaluate" the network once, "decode" one picture) took so long."""
        self._recent_ms[part].append(spent_ms)
        self._fastest_ms[part] = min(spent_ms, self._fastest_ms.get(part, spent_ms))

    def plan(self, spent_ms: float, frames: int, steps: int, evaluations: Callable[[int], int]) -> Plan:
        """What can be drawn after `spent_ms` of the cycle.

        Args:
            frames, steps: asked for; 0 frames: nobody looks. evaluations: steps → runs of the network for one frame.
        """
        if not self.budget_ms or not frames:
            return Plan(frames, steps)
        left_ms = self.budget_ms - spent_ms
        found = self._largest(left_ms, frames, steps, evaluations)
        if found.frames:
            self._barren = 0
            return found
        self._barren += 1
        fastest_ms = self._cost(1, evaluations(1), self._fastest_ms)
        if self._barren > PATIENCE and fastest_ms <= left_ms:
            self._barren = 0
            return Plan(1, 1, left_ms, "frames did not fit for long; one is tried")
        return found

    def fits_another(self, left_ms: float, evaluations: int, drawn: int) -> bool:
        """Whether a frame more can be drawn, and all decoded, when `drawn` are done and `left_ms` remain."""
        if not self.budget_ms:
            return True
        slowest_ms = self._slowest()
        return evaluations * slowest_ms["evaluate"] + (drawn + 2) * slowest_ms["decode"] <= left_ms

    def _largest(self, left_ms: float, frames: int, steps: int, evaluations: Callable[[int], int]) -> Plan:
        if len(self._fastest_ms) < len(PARTS):
            return Plan(1, 1, left_ms, "nothing is measured yet, so one frame in one step")
        slowest_ms = self._slowest()
        reason = f"{left_ms:.0f} ms of {self.budget_ms:g} are left"
        for fewer in range(steps, 0, -1):
            if self._cost(frames, evaluations(fewer), slowest_ms) <= left_ms:
                return Plan(frames, fewer, left_ms, "" if fewer == steps else f"{reason}: {fewer} of {steps} steps")
        for fewer in range(frames - 1, 0, -1):
            if self._cost(fewer, evaluations(1), slowest_ms) <= left_ms:
                return Plan(fewer, 1, left_ms, f"{reason}: {fewer} of {frames} frames")
        one_ms = self._cost(1, evaluations(1), slowest_ms)
        return Plan(0, 1, left_ms, f"{reason} and one frame takes {one_ms:.0f}: no frames")

    def _slowest(self) -> dict[str, float]:
        return {part: max(recent, default=0.0) for part, recent in self._recent_ms.items()}

    @staticmethod
    def _cost(frames: int, evaluations: int, each_ms: dict[str, float]) -> float:
        encode, evaluate, decode = (each_ms.get(part, 0.0) for part in PARTS)
        return encode + frames * evaluations * evaluate + (frames + 1) * decode
