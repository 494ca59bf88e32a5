"""Planning by imagination: several chunks are thought through before one is executed. Beyond the published methods.

A flow head draws the chunks; for one that gives one answer, they are that answer and smooth changes of it. Each is
rolled through `future`: where the hands would go, and by its energy how plausible that is after what was seen. With a
goal, a place where a hand shall be, what a chunk gains towards it counts too. The cheapest chunk is executed:

    cost = energy_weight · energy − progress_weight · metres gained

It takes a robot whose arms are known by their joint names: what `future` judges are paths of wrists in metres. A goal
given as an image is not available.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wm_ros.bundle import StrictModel
from wm_ros.errors import RefusedError, UserError
from wm_ros.kinematics import SIDES, Arm, arm_for
from wm_ros.types import Frame, Instruction, Joints, MotionQuery, Prediction, Sample, StateTokens

Double = NDArray[np.float64]
Chunks = NDArray[np.float32]
INPUTS = (Frame, StateTokens, Joints, Instruction)
MAX_LAG_S = 0.3  # of what `future` said last behind the chunk; older than that judges nothing


class Goal(NamedTuple):
    """Where a hand shall be: `side` is left or right, `position_m` (3,) in the torso frame, x forward, y left, z up."""

    side: str
    position_m: Double


class ImaginationConfig(StrictModel):
    """How chunks are thought through.

    Attributes:
        samples: chunks to choose from. energy_weight: of the energy, which ranks but is no calibrated probability.
        progress_weight: of each metre gained towards the goal. spread_rad: of the changes that make chunks of one.
        goal: "left x y z" or "right x y z" in metres; "" for none.
    """

    samples: int = Field(default=8, ge=2, le=64)
    energy_weight: float = Field(default=1.0, ge=0)
    progress_weight: float = Field(default=40.0, ge=0)
    spread_rad: float = Field(default=0.1, ge=0)
    goal: str = ""


class Rolls(Protocol):
    """What is asked of the capability `future`."""

    inputs: tuple[type[Sample], ...]
    withheld: str
    state_tokens_sha256: str
    wanted: set[str]

    @property
    def looks(self) -> bool:
        """Whether it needs images besides state tokens."""

    def step(self, sample: Sample) -> Prediction | None:
        """Take a sample; a prediction where it triggers one."""

    def judge(self, queries: Sequence[MotionQuery]) -> Double:
        """Energies (K,) of motions from the newest prediction on."""

    def reset(self) -> None:
        """Forget all history."""

    def warm_up(self) -> None:
        """One inference on made-up input."""


@dataclass
class Record:
    """What was chosen since the last reset.

    Attributes:
        chosen: (K,) how often each sample was. Sample 0 of a head that gives one answer is that answer.
        unjudged: how often none could be judged and sample 0 was taken. why: of the last choice, "" if it was judged.
        took_ms: of the last choice. gain: by how much the last choice was cheaper than sample 0.
    """

    chosen: NDArray[np.int64]
    unjudged: int = 0
    why: str = ""
    took_ms: float = 0.0
    gain: float = 0.0

    def figures(self) -> dict[str, str]:
        """For diagnostics."""
        counts = {f"chosen_{index}": str(count) for index, count in enumerate(self.chosen)}
        return {**counts, "unjudged": str(self.unjudged), "took_ms": f"{self.took_ms:.1f}", "gain": f"{self.gain:.3f}"}


class Imagination:
    """Chooses among chunks of the joints `names`. `inputs`: of `future`; `record`: what it has chosen.
    `seed`: of the changes.

    Raises:
        UserError: no arm is among the joints, or the goal is not one.
    """

    def __init__(self, config: ImaginationConfig, names: Sequence[str], future: Rolls, seed: int = 0) -> None:
        self.config, self.names, self.future, self.seed = config, tuple(names), future, seed
        self.arms: dict[str, tuple[Arm, list[int]]] = {}
        for side in SIDES:
            if (arm := arm_for(self.names, side)) is not None:
                self.arms[side] = arm, [self.names.index(name) for name in arm.joint_names]
        if not self.arms:
            raise UserError(
                f"imagine: '{self.names[0]}' and the other joints of the policy make no arm that is known, and joints "
                "that are places of a hand are not available here; set imagine to 0"
            )
        self.goal = None if not config.goal else parse_goal(config.goal)
        if self.goal is not None and self.goal.side not in self.arms:
            raise UserError(f"imagine_goal = '{config.goal}': the policy moves only the {', '.join(self.arms)} arm")
        # Stage I needs no image, unless it looks; frames to come and samples are for those who show them.
        future.wanted = set()
        self.inputs = tuple(k for k in future.inputs if k in INPUTS and (k is not Frame or future.looks))
        self._said_ns: int | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all history; what was chosen once is chosen again."""
        self.future.reset()
        self._said_ns = None
        self._rng = np.random.default_rng(self.seed)
        self.record = Record(np.zeros(self.config.samples, np.int64))

    def observe(self, sample: Sample) -> None:
        """Hand a sample to `future`."""
        if type(sample) in self.inputs and (said := self.future.step(sample)) is not None:
            self._said_ns = said.stamp_ns

    def choose(self, stamp_ns: int, offsets_s: Double, chunks: Chunks) -> Chunks:
        """The best chunk (F, J).

        Args:
            offsets_s: (F,) after `stamp_ns`. chunks: (K, F, J) that were drawn, or (1, F, J), of which others are made.
        """
        start, record = time.perf_counter(), self.record
        if len(chunks) == 1:
            chunks = self.changed(chunks[0])
        best, record.gain = 0, 0.0
        cost, record.why = self._cost(stamp_ns, offsets_s, chunks)
        if cost is None:
            record.unjudged += 1
        else:
            best = int(cost.argmin())
            record.gain = float(cost[0] - cost[best])
        record.chosen[best] += 1
        record.took_ms = (time.perf_counter() - start) * 1e3
        return chunks[best]

    def changed(self, chunk: Chunks) -> Chunks:
        """A chunk (F, J) and smooth changes of it (K, F, J) in the joints of the arms; all begin as it does.

        A change is a drift, which ends `spread_rad` away in the root mean square, and a bulge half as high.
        """
        count, (steps, _) = self.config.samples, chunk.shape
        columns = sorted(column for _, places in self.arms.values() for column in places)
        share = np.arange(1, steps + 1) / steps
        shapes = np.stack([(1.0 - np.cos(np.pi * share)) / 2.0, np.sin(np.pi * share) ** 2 / 2.0])
        drawn = self._rng.normal(size=(count - 1, len(columns), 2)) * self.config.spread_rad
        chunks = np.repeat(chunk[None], count, axis=0)
        chunks[1:, :, columns] += np.einsum("kjs,sf->kfj", drawn, shapes).astype(np.float32)
        return chunks

    def _cost(self, stamp_ns: int, offsets_s: Double, chunks: Chunks) -> tuple[Double | None, str]:
        """Of each chunk (K,), or None and why they cannot be judged."""
        if self._said_ns is None:
            return None, self.future.withheld or "future has said nothing yet"
        lag_s = (stamp_ns - self._said_ns) / 1e9
        if abs(lag_s) > MAX_LAG_S:
            return None, self.future.withheld or f"future spoke {lag_s:.2f} s before the image"
        queries = [MotionQuery(stamp_ns, "", self.names, offsets_s + lag_s, chunk) for chunk in chunks]
        try:
            energies = self.future.judge(queries)
        except RefusedError as refused:
            return None, str(refused)
        cost = self.config.energy_weight * energies
        if self.goal is not None:
            cost = cost - self.config.progress_weight * self._gained_m(chunks, self.goal)
        return (cost, "") if np.isfinite(cost).all() else (None, "the energies are not finite")

    def _gained_m(self, chunks: Chunks, goal: Goal) -> Double:
        """By how much each chunk (K,) ends nearer to the goal than sample 0 begins."""
        arm, columns = self.arms[goal.side]
        ends, start = arm.wrist(chunks[:, -1, columns]), arm.wrist(chunks[0, 0, columns])
        gained: Double = np.linalg.norm(start - goal.position_m) - np.linalg.norm(ends - goal.position_m, axis=-1)
        return gained


def parse_goal(text: str) -> Goal:
    """'right 0.3 -0.1 0.2' → Goal. Raises UserError for another form."""
    side, *numbers = text.split()
    try:
        position = np.array([float(number) for number in numbers])
    except ValueError:
        position = np.zeros(0)
    if side not in SIDES or position.shape != (3,) or not np.isfinite(position).all():
        raise UserError(f"imagine_goal = '{text}': write side x y z in metres, e.g. 'right 0.3 -0.1 0.2'")
    return Goal(side, position)
