"""Simulated grasps: a head camera over the two arms of a G1, one of which takes the object that it was told to take.

The samples are those of a recorded episode: `Joints` and `JointCommand` by name, `Instruction` at the start,
`HandTrajectory` (where each wrist is now, from the measured joints), `Frame`. Equal seeds give equal bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator import tabletop_motion as motion
from wm_ros.data.simulator import tabletop_scene as scenery
from wm_ros.data.simulator.tabletop_plan import Scene, choices, reachable_scene
from wm_ros.data.simulator.tabletop_poses import standing
from wm_ros.data.simulator.tabletop_render import Camera, Renderer
from wm_ros.data.simulator.tabletop_robot import arm_parts, hand_frames, hand_parts
from wm_ros.data.simulator.tabletop_shapes import TABLE, Double, Part, box
from wm_ros.errors import UserError
from wm_ros.kinematics import ARM_JOINTS, G1_JOINTS, HAND_JOINTS, SIDES, hands_of, rotation
from wm_ros.types import Frame, HandTrajectory, Instruction, JointCommand, Joints, Sample

START_NS = 1_000_000_000_000
_NOISE_RAD = 0.0004


@dataclass(frozen=True)
class Stage:
    """One episode before it is played: all that a seed decides. T times.

    Attributes:
        scene: who stands where and what the hands do; `items[0]` is the object to take.
        text: the instruction. times_s: (T,). command, joints: (T, 26) rad, joints as measured.
    """

    scene: Scene
    text: str
    times_s: Double
    command: Double
    joints: Double
    size: tuple[int, int]
    _view: scenery.View
    _renderer: Renderer
    _poses: Callable[[int], Double]

    def camera(self, index: int) -> Camera:
        """The head camera at a time."""
        width, height = self.size
        focal = width / 2 / np.tan(self._view.across_rad / 2)
        return Camera(self._view.pose_at(float(self.times_s[index])), focal, width, height)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, what it sees then."""
        return self._renderer.picture(self.camera(index), self._poses(index))


def tabletop_samples(
    seed: int,
    seconds: float = 6.0,
    width: int = 128,
    height: int = 96,
    rate_hz: float = 15.0,
    objects: int = -1,
    choice: int = 1,
) -> Iterator[Sample]:
    """One simulated episode.

    Args:
        seconds: length; the grasp takes 4 to 6. width, height: of the image, pixels. rate_hz: of all samples.
        objects: on the table, 1 to 6; -1 draws 2 to 4.
        choice: how many of them the hand could take at least; which one it takes is then drawn and nothing but the
            instruction says it. With more than 1, hands pass over what stands in their way.

    Raises:
        UserError: an argument out of range; while reading, no room for that many objects.
    """
    _check(seconds, width, height, rate_hz, objects, choice)
    times = np.arange(max(1, round(seconds * rate_hz))) / rate_hz
    return _episode(seed, times, (width, height), objects, choice)


def stage(seed: int, times_s: Double, size: tuple[int, int] = (128, 96), objects: int = -1, choice: int = 1) -> Stage:
    """The episode of a seed at evenly spaced times from 0; arguments as in `tabletop_samples`. Raises UserError."""
    scene, command, measured, rng = reachable_scene(seed, times_s, objects, choice)
    return _set(scene, command, measured, rng, times_s, size)


def stages(seed: int, times_s: Double, size: tuple[int, int], choice: int) -> list[Stage]:
    """The same table once for each object that the hand could take: other motions and words, the same first picture."""
    scenes, rng = choices(seed, -1, choice)
    found = []
    for scene in scenes:
        command, _ = motion.commands(scene.plans, times_s)
        own = copy.deepcopy(rng)
        measured = motion.follow(command, float(times_s[1]), own.uniform(0.05, 0.11))
        found.append(_set(scene, command, measured, own, times_s, size))
    return found


def _set(
    scene: Scene,
    command: Double,
    measured: Double,
    rng: np.random.Generator,
    times_s: Double,
    size: tuple[int, int],
) -> Stage:
    text = scenery.instruction(rng, scene.items[0].words)
    carried = carried_poses(scene, measured, times_s)
    view, light = scenery.draw_view(rng), scenery.draw_light(rng)
    parts, place = _build(scene, rng)
    renderer = Renderer(parts, light, scenery.draw_texture(rng), scenery.TEXEL_M, scenery.TEXTURE_CENTRE_M)
    # Drawn last, so that a longer or a faster recording of a seed shows the same scene.
    noisy = measured + rng.normal(0.0, _NOISE_RAD, measured.shape)
    return Stage(scene, text, times_s, command, noisy, size, view, renderer, lambda i: place(measured[i], carried[i]))


def _episode(seed: int, times: Double, size: tuple[int, int], objects: int, choice: int) -> Iterator[Sample]:
    shown = stage(seed, times, size, objects, choice)
    for i, time in enumerate(times):
        stamp = START_NS + round(float(time) * 1e9)
        joints = Joints(stamp, "", G1_JOINTS, shown.joints[i])
        yield joints
        yield JointCommand(stamp, "", G1_JOINTS, shown.command[i])
        if i == 0:
            yield Instruction(stamp, "", shown.text)
        for side, position in hands_of(joints).items():
            yield HandTrajectory(
                stamp, "torso", side, np.zeros(1), position[None].astype(np.float32), np.ones(1, dtype=bool)
            )
        yield Frame(stamp, "camera", shown.picture(i))


def _check(seconds: float, width: int, height: int, rate_hz: float, objects: int, choice: int) -> None:
    for name, value, low, high in (
        ("seconds", seconds, 0.1, 3600.0),
        ("width", width, 8, 4096),
        ("height", height, 8, 4096),
        ("rate_hz", rate_hz, 1.0, 120.0),
        ("choice", choice, 1, 2 if objects == -1 else max(1, objects)),
    ):
        if not low <= value <= high:
            raise UserError(f"tabletop: {name} = {value} is out of range; choose {low:g} to {high:g}")
    if objects != -1 and not 1 <= objects <= 6:
        raise UserError(f"tabletop: objects = {objects} is out of range; choose 1 to 6, or -1 to draw 2 to 4")


def carried_poses(scene: Scene, measured: Double, times: Double) -> Double:
    """Pose (T, 4, 4) of the object: with the hand while it is held, upright on the table otherwise."""
    plan, here = scene.plans[0], scene.items[0].pose
    wrists = motion.g1_arm(plan.side).wrist_pose(measured[:, motion.columns(plan.side, ARM_JOINTS)])
    poses, grip = np.empty((len(times), 4, 4)), None
    for i, time in enumerate(times):
        if plan.held_s[0] <= time < plan.held_s[1]:
            grip = np.linalg.inv(wrists[i]) @ here if grip is None else grip
            here = wrists[i] @ grip
        elif grip is not None:  # put down: it stands where it was let go
            forward = here[:2, 0] / np.linalg.norm(here[:2, 0])
            here, grip = here.copy(), None
            here[:3, :3] = rotation("z", np.arctan2(forward[1], forward[0]))
            here[2, 3] = scene.table_m
        poses[i] = here
    return poses


def _build(scene: Scene, rng: np.random.Generator) -> tuple[list[Part], Callable[[Double, Double], Double]]:
    """All parts of the scene, and a function that gives their poses from joints (26,) and the object's pose."""
    shell, metal, dark = scenery.draw_robot_colours(rng)
    desk = np.eye(4)
    desk[:3, 3] = (0.55, 0.0, scene.table_m - 0.02)
    parts: list[Part] = [box((rng.uniform(0.7, 1.0), 2.4, 0.04), 0.3 * np.ones(3), texture=TABLE)]
    fixed = [desk]
    for _ in range(int(rng.integers(0, 4))):  # things at the far edge that are never touched
        size = rng.uniform((0.03, 0.04, 0.01), (0.12, 0.16, 0.08))
        spot = np.array([rng.uniform(0.72, 0.9), rng.uniform(-0.4, 0.4)])
        parts.append(box(size, np.clip(rng.uniform(0.03, 0.7, 3), 0, 1)))
        fixed.append(standing(rng, spot, scene.table_m + size[2] / 2))
    for item in scene.items[1:]:
        parts.append(item.solid.part)
        fixed.append(item.pose)
    parts.append(scene.items[0].solid.part)
    links = {side: arm_parts(motion.g1_arm(side), shell, metal, dark) for side in SIDES}
    for side in SIDES:
        parts += [part for _, part in links[side]] + hand_parts(shell, dark)
    still = np.stack(fixed)

    def place(joints: Double, carried: Double) -> Double:
        poses = [still, carried[None]]
        for side in SIDES:
            frames = motion.g1_arm(side).frames(joints[motion.columns(side, ARM_JOINTS)])
            poses.append(frames[[number for number, _ in links[side]]])
            poses.append(frames[-1] @ hand_frames(joints[motion.columns(side, HAND_JOINTS)], side))
        return np.concatenate(poses)

    return parts, place
