"""The two cameras of the Meta-World robot, and where a point of its world is in their pictures.

    camera         beside and above the table, as Meta-World's `corner2`, moved nearer; drawn upside down there, and
                   turned here
    wrist_camera   behind the gripper and moving with it (`behindGripper`)

Pictures are drawn at 128 × 128 and cut to the middle 96 × 96. Shadows, reflections and multisampling are off: with
them, drawing in software takes ten times as long and shows a policy nothing new.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.metaworld_arm import MetaWorldArm
from wm_ros.data.simulator.metaworld_gl import no_drawing

DRAWN_PX = 128
SIZE_PX = 96


@dataclass(frozen=True)
class Camera:
    """A camera of Meta-World: its name there, where it is moved to (m), and whether its picture is turned by 180°."""

    name: str
    position_m: tuple[float, float, float] | None = None
    turned: bool = False


CAMERAS = {
    "camera": Camera("corner2", (0.75, 0.075, 0.7), turned=True),
    "wrist_camera": Camera("behindGripper"),
}


class View:
    """Pictures of a robot's world; a context manager, since it holds a GL context.

    Args:
        size_px: edge of the pictures, the middle of what is drawn.

    Raises:
        UserError: this machine cannot draw off-screen; the message has the remedy.
    """

    def __init__(self, arm: MetaWorldArm, size_px: int = SIZE_PX) -> None:
        import mujoco

        place_cameras(arm)
        self._arm, self._edge = arm, (DRAWN_PX - size_px) // 2
        self._off = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)
        arm.model.vis.quality.offsamples = 0
        if os.environ.get("MUJOCO_GL") == "disable":
            raise no_drawing()
        try:
            self._renderer: Any = mujoco.Renderer(arm.model, DRAWN_PX, DRAWN_PX)
        except Exception as error:  # whatever the GL library raises: import, attribute, runtime
            raise no_drawing(error) from None

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the GL context back."""
        self._renderer.close()

    def picture(self, camera: str) -> NDArray[np.uint8]:
        """(size, size, 3) uint8, what `camera` of `CAMERAS` sees now."""
        self._renderer.update_scene(self._arm.data, camera=CAMERAS[camera].name)
        for flag in self._off:  # update_scene turns them on again
            self._renderer.scene.flags[flag] = 0
        drawn = self._renderer.render()
        whole = drawn[::-1, ::-1] if CAMERAS[camera].turned else drawn
        inner = slice(self._edge, DRAWN_PX - self._edge)
        return np.ascontiguousarray(whole[inner, inner], np.uint8)


def place_cameras(arm: MetaWorldArm) -> None:
    """Put the cameras where they belong; the state of the world then knows it too."""
    import mujoco

    for camera in CAMERAS.values():
        if camera.position_m is not None:
            arm.model.cam(camera.name).pos[:] = camera.position_m
    mujoco.mj_forward(arm.model, arm.data)


def projection(arm: MetaWorldArm, camera: str = "camera", size_px: int = SIZE_PX) -> NDArray[np.float64]:
    """(3, 4) matrix: homogeneous points of `base` in metres → homogeneous pixels of the picture as it is now.

    For "camera", which stands still, it is the same throughout. No GL is needed.
    """
    place_cameras(arm)
    view = CAMERAS[camera]
    eye, axes = arm.data.cam(view.name).xpos, arm.data.cam(view.name).xmat.reshape(3, 3)
    focal = DRAWN_PX / 2 / np.tan(np.radians(float(arm.model.cam(view.name).fovy[0])) / 2)
    turn = -1.0 if view.turned else 1.0
    centre = size_px / 2
    # MuJoCo's cameras look along -z, x right, y up; pixels go right and down.
    pixels = np.array([[turn * focal, 0, -centre], [0, -turn * focal, -centre], [0, 0, -1.0]])
    return np.asarray(pixels @ axes.T @ np.column_stack([np.eye(3), -eye]))
