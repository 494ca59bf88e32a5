"""One episode of the Meta-World robot under somebody's command: time, trajectories, what came of it. No ROS here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.metaworld import observe, stamp_at
from wm_ros.data.simulator.metaworld_arm import FRAME_ID, MAX_STEPS, NAMES, RATE_HZ, TASKS, MetaWorldArm
from wm_ros.data.simulator.metaworld_view import View
from wm_ros.robot.controller import TrajectoryController
from wm_ros.types import ActionChunk, Frame, Instruction, JointCommand, Joints, Sample, WristFrame

TICK_NS = round(1e9 / RATE_HZ)


class Episode:
    """What the robot sees, and what it does, tick by tick.

    Args:
        start_ns: simulated time of its first tick.
        image_every: ticks between two images. cameras: 1 or 2. blind: the images are black.
        delay_s: trajectories take effect so late.
        off: topics of sensors that fail `off_after_s` after the beginning.
    """

    def __init__(
        self,
        arm: MetaWorldArm,
        view: View,
        seed: int,
        start_ns: int,
        *,
        image_every: int = 4,
        cameras: int = 2,
        blind: bool = False,
        delay_s: float = 0.0,
        off: Collection[str] = (),
        off_after_s: float = 0.0,
    ) -> None:
        self._off, self._off_ns = frozenset(off), round(off_after_s * 1e9)
        self.seed, self.step, self.start_ns = seed, 0, start_ns
        self.image_every, self._cameras, self._blind = image_every, cameras, blind
        self._arm, self._view = arm, view
        arm.reset(seed)
        self.controller = TrajectoryController(NAMES, TICK_NS, round(delay_s * 1e9))
        self.controller.reset(arm.set_point)
        self.returned, self.solved_at, self.held = 0.0, 0, 0
        self.refused: Counter[str] = Counter()
        self.chunks, self.waits, self.timeouts = 0, 0, 0
        self.round_trips_ms: list[float] = []
        self._hand = [arm.measured[:3]]
        self._began_s = time.monotonic()
        self._ended_s: float | None = None

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return stamp_at(self.step, self.start_ns)

    @property
    def ended(self) -> bool:
        """Solved, or out of time."""
        return self.solved_at > 0 or self.step >= MAX_STEPS

    @property
    def looks(self) -> bool:
        """Whether there are images at this tick."""
        return self.step % self.image_every == 0

    def instruction(self) -> Instruction:
        """What the robot is told."""
        return Instruction(self.now_ns, "", TASKS[self._arm.task].text)

    def works(self, sensor: str) -> bool:
        """Whether the sensor of a topic says anything now."""
        return sensor not in self._off or self.now_ns - self.start_ns < self._off_ns

    def joints(self) -> Joints:
        """Where the hand is."""
        return Joints(self.now_ns, FRAME_ID, NAMES, self._arm.measured)

    def command(self) -> JointCommand:
        """Where it shall be."""
        return JointCommand(self.now_ns, FRAME_ID, NAMES, self._arm.set_point)

    def true_state(self) -> Joints:
        """Object and goal too."""
        (state,) = observe(self._arm, None, self.now_ns, true_state=True)
        assert isinstance(state, Joints)
        return state

    def images(self) -> Iterator[Sample]:
        """The pictures of now, that of `camera` last, of the cameras that work."""
        _, *pictures = observe(self._arm, self._view, self.now_ns, self._cameras)
        for sample in pictures:
            if not self.works("wrist_image" if isinstance(sample, WristFrame) else "image"):
                continue
            if self._blind and isinstance(sample, Frame | WristFrame):
                sample = replace(sample, rgb=np.zeros_like(sample.rgb))
            yield sample

    def offer(self, chunk: ActionChunk) -> str:
        """Take a trajectory; why it is refused, or ''."""
        reason = self.controller.offer(chunk, self.now_ns)
        if reason:
            self.refused[reason.partition(":")[0]] += 1
        else:
            self.chunks += 1
        return reason

    def advance(self, command: NDArray[np.float64] | None = None) -> None:
        """One tick, towards a `command` (4,) where it is given instead of trajectories."""
        set_point = self.controller.set_point_at(self.now_ns) if command is None else command
        self.held += self.controller.holds(self.now_ns)
        outcome = self._arm.step(set_point)
        self.step += 1
        self.returned += outcome.reward
        self._hand.append(self._arm.measured[:3])
        if outcome.success:
            self.solved_at = self.step
        if self.ended:
            self._ended_s = time.monotonic()

    def result(self) -> dict[str, Any]:
        """What came of it so far, for people and for `wm rollout`."""
        jerk = np.diff(np.array(self._hand), 3, axis=0) * RATE_HZ**3
        trips = np.array(self.round_trips_ms)
        return {
            "task": self._arm.task,
            "seed": self.seed,
            "ended": self.ended,
            "success": self.solved_at > 0,
            "steps": self.step,
            "return": round(self.returned, 3),
            "sim_s": round(self.step / RATE_HZ, 4),
            "wall_s": round((self._ended_s or time.monotonic()) - self._began_s, 3),
            "chunks": self.chunks,
            "refused": dict(sorted(self.refused.items())),
            "held_steps": self.held,
            "waits": self.waits,
            "timeouts": self.timeouts,
            "jerk_rms_mps3": round(float(np.sqrt((jerk**2).sum(1).mean())), 2) if len(jerk) else 0.0,
            "round_trip_ms": None
            if not len(trips)
            else {"median": round(float(np.median(trips)), 2), "p95": round(float(np.percentile(trips, 95)), 2)},
        }
