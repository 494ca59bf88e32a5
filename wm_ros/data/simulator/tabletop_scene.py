"""Draw a tabletop scene: table, lamp, camera, objects, the object to grasp and the words for it.

Everything is in the torso frame of the robot (x forward, y left, z up, metres). Ranges follow recordings of a
Unitree G1 with its head camera looking down at a desk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from wm_ros.data.simulator.tabletop_render import Light, Single
from wm_ros.data.simulator.tabletop_shapes import Double, Solid, solid
from wm_ros.kinematics import rotation

KINDS = ("can", "box", "ball", "bottle", "cup")
COLOURS: dict[str, tuple[float, float, float]] = {  # linear albedo
    "red": (0.55, 0.03, 0.03),
    "green": (0.04, 0.35, 0.06),
    "blue": (0.03, 0.10, 0.50),
    "yellow": (0.75, 0.50, 0.03),
    "orange": (0.75, 0.20, 0.02),
    "purple": (0.22, 0.05, 0.40),
    "pink": (0.75, 0.25, 0.38),
    "white": (0.75, 0.75, 0.75),
    "black": (0.025, 0.025, 0.03),
}
PHRASES = (
    "pick up the {0}",
    "Pick up the {0} on the table.",
    "pick the {0} up",
    "grab the {0}",
    "grasp the {0} and lift it",
    "lift the {0}",
    "lift the {0} from the table",
    "take the {0}",
    "please take the {0}",
    "Please pick up the {0}.",
    "reach for the {0} and lift it",
    "get me the {0}",
    "raise the {0} off the table",
)
TEXEL_M = 0.003
TEXTURE_CENTRE_M = (0.55, 0.0)
_TEXTURE_SIZE = (320, 400)
_RADIUS_M = {
    "can": (0.029, 0.036),
    "box": (0.024, 0.034),
    "ball": (0.03, 0.04),
    "bottle": (0.028, 0.036),
    "cup": (0.032, 0.04),
}
_HEIGHT_M = {
    "can": (0.1, 0.17),
    "box": (0.08, 0.15),
    "ball": (0.06, 0.08),
    "bottle": (0.16, 0.22),
    "cup": (0.085, 0.12),
}


@dataclass(frozen=True)
class Item:
    """An object on the table. `pose` (4, 4): its foot in the torso frame."""

    words: str
    solid: Solid
    pose: Double


@dataclass(frozen=True)
class View:
    """The head camera: pose (4, 4) of its optical frame at rest, field of view, and how it sways.

    Attributes:
        sway: (6, 3) amplitude (m and rad), frequency (Hz) and phase (rad) of x y z and of the turns about them.
    """

    pose: Double
    across_rad: float
    sway: Double

    def pose_at(self, time_s: float) -> Double:
        """(4, 4) pose at a time."""
        shift = self.sway[:, 0] * np.sin(2 * np.pi * self.sway[:, 1] * time_s + self.sway[:, 2])
        moved = np.eye(4)
        moved[:3, :3] = rotation("x", shift[3]) @ rotation("y", shift[4]) @ rotation("z", shift[5])
        moved[:3, 3] = shift[:3]
        return self.pose @ moved


def draw_item(rng: np.random.Generator, taken: set[str], near: str | None = None) -> tuple[str, Solid]:
    """A new object and the words for it, unlike those in `taken`; `near` (words) asks for the same kind or colour."""
    while True:
        colour, kind = str(rng.choice(list(COLOURS))), str(rng.choice(KINDS))
        if near is not None and rng.random() < 0.5:
            old_colour, old_kind = near.split()
            colour, kind = (old_colour, kind) if rng.random() < 0.5 else (colour, old_kind)
        words = f"{colour} {kind}"
        if words not in taken:
            break
    tint = np.clip(np.array(COLOURS[colour]) * rng.uniform(0.85, 1.15) + rng.uniform(-0.015, 0.015, 3), 0.01, 0.9)
    trim = np.clip(0.35 * tint + 0.65 * rng.choice([0.08, 0.4, 0.75]), 0.01, 0.9)
    return words, solid(kind, rng.uniform(*_RADIUS_M[kind]), rng.uniform(*_HEIGHT_M[kind]), tint, trim)


def draw_view(rng: np.random.Generator) -> View:
    """A head camera above the torso, looking down at the desk."""
    down, yaw, roll = rng.normal(0.82, 0.035), rng.normal(0.0, 0.04), rng.normal(0.0, 0.02)
    forward = np.array([np.cos(down) * np.cos(yaw), np.cos(down) * np.sin(yaw), -np.sin(down)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=-1) @ rotation("z", roll)
    pose[:3, 3] = (rng.normal(0.055, 0.012), rng.normal(0.012, 0.012), rng.normal(0.43, 0.015))
    sway = np.stack(
        [np.array([0.002, 0.002, 0.002, 0.004, 0.004, 0.004]), rng.uniform(0.15, 0.8, 6), rng.uniform(0, 6.3, 6)], -1
    )
    sway[:, 0] *= rng.uniform(0.2, 1.0) * (rng.random() < 0.5)  # half of the recordings stand still
    return View(pose, np.radians(rng.uniform(54, 63)), sway)


def draw_light(rng: np.random.Generator) -> Light:
    """A lamp above the desk and light from everywhere."""
    warm = rng.uniform(-0.08, 0.1)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    level = rng.uniform(0.75, 1.15)
    share = rng.uniform(0.35, 0.65)
    return Light(
        position_m=np.array([rng.uniform(-0.2, 1.2), rng.uniform(-1.1, 1.1), rng.uniform(1.2, 2.2)]),
        lamp=level * share * 1.2 * tint,
        ambient=level * (1 - share) * np.ones(3),
        background=rng.uniform(0.05, 0.5) * rng.uniform(0.9, 1.1, 3),
    )


def draw_texture(rng: np.random.Generator) -> Single:
    """Linear colours (A, B, 3) of a wooden, plain, speckled, checked or striped table, slightly blurred."""
    rows, columns = _TEXTURE_SIZE
    style = rng.choice(["wood", "plain", "speckle", "check", "stripe"], p=[0.5, 0.2, 0.1, 0.1, 0.1])
    x, y = np.meshgrid(np.arange(rows) * TEXEL_M, np.arange(columns) * TEXEL_M, indexing="ij")
    if style == "wood":
        tone = rng.uniform(0.5, 1.15) * np.array([0.62, 0.42 * rng.uniform(0.9, 1.1), 0.25 * rng.uniform(0.75, 1.2)])
        along = 1 if rng.random() < 0.6 else 0
        noise = gaussian_filter1d(
            gaussian_filter1d(rng.normal(size=(rows, columns)), 25, axis=along), 1.3, axis=1 - along
        )
        board = ((x if along == 1 else y) / rng.uniform(0.06, 0.14)).astype(int)
        shade = rng.normal(0, 0.07, board.max() + 1)[board] + rng.uniform(0.02, 0.1) * noise / noise.std()
        image = tone * (1 + shade[..., None] * np.array([0.9, 1.0, 1.15]))
    else:
        tone = np.clip(rng.uniform(0.08, 0.75) * rng.uniform(0.75, 1.2, 3), 0.03, 0.85)
        image = np.tile(tone, (rows, columns, 1))
        if style == "speckle":
            image *= 1 + 0.12 * gaussian_filter(rng.normal(size=(rows, columns)), 1.5)[..., None] * 4
        if style in ("check", "stripe"):
            pitch = rng.uniform(0.04, 0.08)
            odd = np.floor(x / pitch) + (np.floor(y / pitch) if style == "check" else 0)
            image = np.where((odd % 2 == 1)[..., None], np.clip(tone * rng.uniform(0.4, 0.8), 0, 1), image)
    return gaussian_filter(np.clip(image, 0.01, 0.9), (0.8, 0.8, 0)).astype(np.float32)


def draw_robot_colours(rng: np.random.Generator) -> tuple[Double, Double, Double]:
    """Shell, metal and dark colour of the robot."""
    shell, metal, dark = (
        rng.uniform(0.6, 0.8) * np.ones(3),
        rng.uniform(0.25, 0.5) * np.ones(3),
        rng.uniform(0.015, 0.05) * np.ones(3),
    )
    if rng.random() < 0.25:
        shell = np.clip(rng.uniform(0.1, 0.7) * rng.uniform(0.6, 1.3, 3), 0.02, 0.8)
    return shell, metal, dark


def instruction(rng: np.random.Generator, words: str) -> str:
    """One of the ways to ask for the object."""
    return str(rng.choice(PHRASES)).format(words)
