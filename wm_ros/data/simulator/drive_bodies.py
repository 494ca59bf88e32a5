"""Road users: cars, vans, trucks, people on foot and on bicycles, as meshes with their true boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros.data.simulator.drive_shapes import MATERIALS, Builder, Mesh

VEHICLES = ("car", "van", "truck")
_SIZES = {
    "car": ((3.6, 1.6, 1.4), (4.9, 1.9, 1.7)),
    "van": ((4.6, 1.8, 1.9), (6.0, 2.05, 2.6)),
    "truck": ((6.5, 2.2, 2.8), (12.0, 2.5, 3.8)),
}


@dataclass(frozen=True)
class Body:
    """A road user. size_m: its true box (length, width, height). mesh: centred on its place on the ground, x ahead."""

    label: str
    size_m: tuple[float, float, float]
    mesh: Mesh


def vehicle(rng: np.random.Generator, trucks: float = 0.06) -> Body:
    """A car, a van or, with chance `trucks`, a truck."""
    draw = rng.random()
    label = "truck" if draw < trucks else "van" if draw < trucks + 0.12 else "car"
    length, width, height = (float(v) for v in rng.uniform(*_SIZES[label]))
    paint = "dark_paint" if rng.random() < 0.3 else "paint"
    made = Builder()
    for sx in (-1, 1):
        for sy in (-1, 1):
            made.box((0.62, 0.2, 0.62), "dark_paint", (sx * length * 0.31, sy * (width / 2 - 0.11), 0))
    if label == "car":
        made.mesh(_car_shell(length, width, height, paint, float(rng.uniform(0.6, 1.0)), rng.random() < 0.5))
    else:
        cab = min(2.2, length * 0.3)
        made.box((length - cab - 0.2, width, height - 0.6), paint, (-cab / 2 - 0.1, 0, 0.6))
        made.box((cab, width * 0.96, min(height, 2.6) - 0.4), paint, ((length - cab) / 2, 0, 0.4))
        made.box((length * 0.9, width * 0.7, 0.35), "dark_paint", (0, 0, 0.3))
    made.box((0.02, 0.5, 0.12), "plate", (-length / 2 + 0.01, 0, 0.6))
    return Body(label, (length, width, height), made.build(rng))


def _car_shell(length: float, width: float, height: float, paint: str, bonnet_m: float, estate: bool) -> Mesh:
    """A profile (side view) swept over the width: bonnet, sloped windows of glass, roof drawn in at the top."""
    front, back = length / 2, -length / 2
    waist, tail = height * 0.62, 0.25 if estate else 0.75
    side = [  # x, z, share of the half width, material of the strip up to the next one
        (front, 0.3, 0.94, paint),
        (front, waist * 0.78, 0.96, paint),
        (front - bonnet_m, waist, 1.0, "glass"),
        (front - bonnet_m - 0.75, height, 0.78, paint),
        (back + tail, height, 0.78, "glass"),
        (back + 0.1, waist, 1.0, paint),
        (back, 0.3, 0.94, paint),
    ]
    x, z, share = (np.array([row[i] for row in side], np.float64) for i in range(3))
    left = np.stack([x, share * width / 2, z], 1)
    vertices = np.concatenate([left, left * [1, -1, 1]])
    faces, material = [], []
    for i in range(len(side) - 1):  # across
        faces += [[i, i + 1, i + 8], [i, i + 8, i + 7]]
        material += [side[i][3]] * 2
    for group, name in ((((0, 1, 6), (1, 5, 6), (1, 2, 5)), paint), (((2, 3, 5), (3, 4, 5)), "glass")):
        for face in group:
            faces += [list(face), [corner + 7 for corner in face]]
            material += [name] * 2
    return Mesh(vertices, np.array(faces), np.array([MATERIALS.index(name) for name in material]))


def pedestrian(rng: np.random.Generator) -> Body:
    """A person in mid-step."""
    height, width, stride = float(rng.uniform(1.5, 1.9)), float(rng.uniform(0.42, 0.58)), float(rng.uniform(-1, 1))
    made = Builder()
    for sign in (-1, 1):
        made.box((0.16, 0.15, height * 0.5), "cloth", (sign * 0.22 * stride, sign * 0.1, 0))
    made.box((0.26, width, height * 0.36), "cloth", (0, 0, height * 0.5))
    made.pole(0.1, height * 0.14, "cloth", (0, 0, height * 0.86))
    return Body("pedestrian", (0.6, width, height), made.build(rng))


def cyclist(rng: np.random.Generator) -> Body:
    """A bicycle with its rider."""
    length, height = float(rng.uniform(1.6, 1.85)), float(rng.uniform(1.6, 1.85))
    made = Builder()
    for sign in (-1, 1):
        made.box((0.6, 0.05, 0.65), "metal", (sign * (length / 2 - 0.32), 0, 0))
    made.box((0.3, 0.42, height * 0.36), "cloth", (-0.05, 0, height * 0.5))
    made.pole(0.1, height * 0.14, "cloth", (0.1, 0, height * 0.86))
    made.box((0.25, 0.3, height * 0.3), "cloth", (-0.1, 0, height * 0.25))
    made.box((0.06, 0.5, 0.06), "metal", (length * 0.25, 0, 0.95))
    return Body("cyclist", (length, 0.6, height), made.build(rng))


NOTHING = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros(0, np.int64))
