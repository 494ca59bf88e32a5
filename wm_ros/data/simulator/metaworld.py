"""Demonstrations in Meta-World V3: a scripted expert solves a task, its hand pushed about by noise.

What is executed is the expert's action and noise; what is recorded as command is the expert's action alone, so that a
policy learns how to come back (noise injection as in DART, Laskey et al. 2017). Only solved demonstrations are kept: a
seed says where things are, and its noise is drawn anew until the expert succeeds.

The samples are those of a recorded episode, eighty times a second: `Instruction` once, `Joints` (where the hand is),
`JointCommand` (the set point that the expert asks for; see `metaworld_arm`), `WristFrame`, `Frame`. Equal arguments
give equal samples, pictures to the byte on the same machine.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wm_ros.data.simulator.metaworld_arm import (
    FRAME_ID,
    MAX_STEPS,
    NAMES,
    RATE_HZ,
    TASKS,
    TRUE_NAMES,
    MetaWorldArm,
    set_point_of,
)
from wm_ros.data.simulator.metaworld_view import CAMERAS, DRAWN_PX, SIZE_PX, View
from wm_ros.errors import UserError
from wm_ros.types import Frame, Instruction, JointCommand, Joints, Sample, WristFrame

START_NS = 1_000_000_000_000
TRIES = 10
SETTLE_STEPS = 15
"""A demonstration goes on for so many steps after its success, so that a policy learns to stay."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Demonstration:
    """One solved episode. `steps`: ticks up to its success. `thrown_away`: tries before it that did not succeed."""

    samples: list[Sample]
    steps: int
    thrown_away: int


def stamp_at(step: int, start_ns: int = START_NS) -> int:
    """Nanoseconds at a tick of an episode."""
    return start_ns + round(step * 1e9 / RATE_HZ)


def observe(
    arm: MetaWorldArm, view: View | None, stamp_ns: int, cameras: int = 2, true_state: bool = False
) -> Iterator[Sample]:
    """What the robot's sensors say now: the joints, and with a `view` the pictures, that of `camera` last.

    Args:
        cameras: 1 or 2. true_state: the joints are followed by object and goal, ten numbers in all.
    """
    if true_state:
        yield Joints(stamp_ns, FRAME_ID, TRUE_NAMES, arm.true_state)
    else:
        yield Joints(stamp_ns, FRAME_ID, NAMES, arm.measured)
    if view is not None:
        if cameras > 1:
            yield WristFrame(stamp_ns, "wrist_camera", view.picture("wrist_camera"))
        yield Frame(stamp_ns, "camera", view.picture("camera"))


def metaworld_samples(
    seed: int,
    task: str = "reach",
    noise: float = 0.15,
    push_ticks: int = 1,
    image_every: int = 1,
    cameras: int = 2,
    size: int = SIZE_PX,
    true_state: int = 0,
) -> Iterator[Sample]:
    """The samples of one demonstration.

    Args:
        task: one of `TASKS`. noise: standard deviation of what is added to the expert's action, -1..1, on each axis.
        push_ticks: for so many ticks in a row the same is added: the hand is pushed further from its way, and a
            policy cannot tell from the hand alone where things are.
        image_every: ticks between two images. cameras: 1 or 2; 0: no images. size: edge of the images, pixels.
        true_state: 1: the joints are followed by the true place of object and goal.

    Raises:
        UserError: an argument out of range, Meta-World is missing, or no try succeeded.
    """
    return iter(demonstrate(seed, task, noise, push_ticks, image_every, cameras, size, true_state).samples)


def demonstrate(
    seed: int,
    task: str = "reach",
    noise: float = 0.15,
    push_ticks: int = 1,
    image_every: int = 1,
    cameras: int = 2,
    size: int = SIZE_PX,
    true_state: int = 0,
) -> Demonstration:
    """One demonstration as a whole. Arguments and errors as of `metaworld_samples`."""
    _check(noise, push_ticks, image_every, cameras, size)
    arm = MetaWorldArm(task)
    for number in range(TRIES):
        # Drawing is the slow part, and changes nothing: only the try that succeeds is drawn.
        samples, steps = _attempt(arm, None, seed, number, noise, push_ticks, image_every, cameras, bool(true_state))
        if not steps:
            log.info("metaworld %s, seed %d: try %d did not succeed and is thrown away", task, seed, number)
            continue
        if cameras:
            with View(arm, size) as view:
                samples, steps = _attempt(
                    arm, view, seed, number, noise, push_ticks, image_every, cameras, bool(true_state)
                )
        return Demonstration(samples, steps, number)
    raise UserError(f"metaworld {task}, seed {seed}: no success in {TRIES} tries at noise {noise:g}; give less noise")


def _attempt(
    arm: MetaWorldArm,
    view: View | None,
    seed: int,
    number: int,
    noise: float,
    push_ticks: int,
    image_every: int,
    cameras: int,
    true_state: bool,
) -> tuple[list[Sample], int]:
    """Samples, and the ticks up to the success: 0 where there was none."""
    arm.reset(seed)
    rng = np.random.default_rng([seed, number])
    samples: list[Sample] = [Instruction(START_NS, "", TASKS[arm.task].text)]
    solved, pushed = 0, np.zeros(4)
    for step in range(MAX_STEPS):
        stamp, command = stamp_at(step), arm.expert()
        joints, *pictures = observe(arm, None if step % image_every else view, stamp, cameras, true_state)
        samples += [joints, JointCommand(stamp, FRAME_ID, NAMES, command), *pictures]
        if step % push_ticks == 0:
            pushed = np.append(rng.normal(0.0, noise, 3), 0.0)
        outcome = arm.step(set_point_of(arm.measured, arm.expert_action() + pushed))
        solved = solved or (step + 1 if outcome.success else 0)
        if solved and step + 1 >= solved + SETTLE_STEPS:
            break
    return samples, solved


def _check(noise: float, push_ticks: int, image_every: int, cameras: int, size: int) -> None:
    for name, value, low, high in (
        ("noise", noise, 0.0, 1.0),
        ("push_ticks", push_ticks, 1, MAX_STEPS),
        ("image_every", image_every, 1, MAX_STEPS),
        ("cameras", cameras, 0, len(CAMERAS)),
        ("size", size, 16, DRAWN_PX),
    ):
        if not low <= value <= high:
            raise UserError(f"metaworld: {name} = {value} is out of range; choose {low:g} to {high:g}")
