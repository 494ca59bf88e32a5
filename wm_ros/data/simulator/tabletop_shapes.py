"""Triangle meshes of the tabletop scene: solids of revolution, boxes, rods, and the objects to grasp.

A `Part` is rigid: the renderer moves it by one pose per frame. Lengths in metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Double = NDArray[np.float64]

PLAIN, TABLE = 0, 1
_SIDES = 16


@dataclass(frozen=True)
class Part:
    """A rigid mesh in its own frame.

    Attributes:
        vertices, normals: (V, 3). triangles: (T, 3) int64, counter-clockwise from outside.
        colours: (T, 3) linear albedo 0..1. texture: PLAIN, or TABLE where the table's texture replaces `colours`.
    """

    vertices: Double
    normals: Double
    triangles: NDArray[np.int64]
    colours: Double
    texture: int = PLAIN


def lathe(profile: ArrayLike, colours: ArrayLike, sides: int = _SIDES) -> Part:
    """Turn a profile about z.

    Args:
        profile: (P, 2) radius and height, from the bottom up along the outside.
        colours: (P - 1, 3), one for each band between neighbouring rows.
    """
    outline, paint = np.asarray(profile, np.float64), np.asarray(colours, np.float64)
    angle = 2 * np.pi * np.arange(sides) / sides
    around = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    vertices: list[Double] = []
    normals: list[Double] = []
    triangles: list[NDArray[np.int64]] = []
    colour: list[Double] = []
    for (low, high), tint in zip(pairwise(outline), paint, strict=True):
        slope = np.array([high[1] - low[1], low[0] - high[0]])
        slope /= max(float(np.linalg.norm(slope)), 1e-12)
        start = len(vertices) * 2 * sides
        ring = [np.column_stack([around * r, np.full(sides, z)]) for r, z in (low, high)]
        vertices.append(np.concatenate(ring))
        normals.append(np.tile(np.column_stack([around * slope[0], np.full(sides, slope[1])]), (2, 1)))
        i, j = np.arange(sides), (np.arange(sides) + 1) % sides
        band = [t for t, r in (((i, j, j + sides), low[0]), ((i, j + sides, i + sides), high[0])) if r > 1e-9]
        triangles += [start + np.stack(corner, axis=-1) for corner in band]
        colour.append(np.tile(tint, (sides * len(band), 1)))
    return Part(np.concatenate(vertices), np.concatenate(normals), np.concatenate(triangles), np.concatenate(colour))


def box(size_m: ArrayLike, colour: ArrayLike, texture: int = PLAIN) -> Part:
    """A box around the origin; `size_m` (3,) are its edges."""
    half = np.asarray(size_m, np.float64) / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64)
    vertices: list[Double] = []
    normals: list[Double] = []
    triangles: list[NDArray[np.int64]] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            face = np.empty((4, 3))
            face[:, axis] = sign
            face[:, [(axis + 1) % 3, (axis + 2) % 3]] = corners if sign > 0 else corners[::-1]
            triangles += [np.array([(0, 1, 2), (0, 2, 3)]) + 4 * len(vertices)]
            vertices.append(face * half)
            normals.append(np.tile(sign * np.eye(3)[axis], (4, 1)))
    joined = np.concatenate(triangles)
    return Part(
        np.concatenate(vertices),
        np.concatenate(normals),
        joined,
        np.tile(np.asarray(colour), (len(joined), 1)),
        texture,
    )


def capsule(start: ArrayLike, end: ArrayLike, radius_m: float, colour: ArrayLike, thinner: float = 1.0) -> Part:
    """A rounded rod between two points; at its end the radius is `thinner` times that at its start."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(b - a))
    tip = radius_m * thinner
    arc = np.radians([-90, -50, -20, 0])
    low = np.column_stack([radius_m * np.cos(arc), radius_m * np.sin(arc)])
    high = np.column_stack([tip * np.cos(arc), length - tip * np.sin(arc)])[::-1]
    profile = np.concatenate([low, high])
    profile[[0, -1], 0] = 0.0
    rod = _round(lathe(profile, np.tile(np.asarray(colour), (len(profile) - 1, 1)), sides=10), radius_m, tip, length)
    turn = _to_axis((b - a) / max(length, 1e-12))
    return Part(rod.vertices @ turn.T + a, rod.normals @ turn.T, rod.triangles, rod.colours)


def moved(part: Part, offset: ArrayLike, turn: Double | None = None) -> Part:
    """The part turned, then shifted, within its own frame."""
    matrix = np.eye(3) if turn is None else turn
    return Part(
        part.vertices @ matrix.T + np.asarray(offset),
        part.normals @ matrix.T,
        part.triangles,
        part.colours,
        part.texture,
    )


def merged(*parts: Part) -> Part:
    """Several plain parts as one."""
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    return Part(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.colours for part in parts]),
    )


# ----------------------------------------------------------------------------- objects


@dataclass(frozen=True)
class Solid:
    """An object to grasp. Its frame stands on the table: origin at the middle of its foot, z up.

    Attributes:
        radius_m: half of its width where the hand closes. height_m: its height. grip_m: height of the hand's grip.
    """

    part: Part
    radius_m: float
    height_m: float
    grip_m: float


def solid(kind: str, radius_m: float, height_m: float, colour: Double, trim: Double) -> Solid:
    """Make a "can", "box", "ball", "bottle" or "cup" of `colour`, with details in `trim`."""
    r, h = radius_m, height_m
    if kind == "ball":
        turn = np.radians(np.linspace(-90, 90, 11))
        ring = np.column_stack([r * np.cos(turn), r + r * np.sin(turn)])
        ring[[0, -1], 0] = 0.0
        ball = lathe(ring, np.tile(colour, (10, 1)))
        smooth = Part(ball.vertices, (ball.vertices - (0, 0, r)) / r, ball.triangles, ball.colours)
        return Solid(smooth, r, 2 * r, r)
    if kind == "box":
        lid = moved(box((2 * r, 2 * r, 0.12 * h), trim), (0, 0, 0.94 * h))
        return Solid(merged(moved(box((2 * r, 2 * r, 0.88 * h), colour), (0, 0, 0.44 * h)), lid), r, h, 0.5 * h)
    if kind == "can":
        profile = [(0, 0), (r, 0), (r, 0.3 * h), (r, 0.62 * h), (r, 0.95 * h), (0.9 * r, h), (0, h)]
        return Solid(lathe(profile, [colour, colour, trim, colour, colour, 0.8 * colour + 0.2]), r, h, 0.5 * h)
    if kind == "bottle":
        profile = [(0, 0), (r, 0), (r, 0.25 * h), (r, 0.5 * h), (r, 0.62 * h), (0.4 * r, 0.8 * h), (0.4 * r, 0.88 * h)]
        cap = [(0.46 * r, 0.88 * h), (0.46 * r, h), (0, h)]
        return Solid(lathe(profile + cap, [colour] * 2 + [trim] + [colour] * 4 + [trim] * 2), r, h, 0.38 * h)
    profile = [(0, 0), (0.8 * r, 0), (r, h), (0.92 * r, h), (0.74 * r, 0.06 * h), (0, 0.06 * h)]
    return Solid(lathe(profile, [colour, colour, colour, 0.55 * colour, 0.45 * colour]), 0.92 * r, h, 0.5 * h)


def _round(rod: Part, radius: float, tip: float, length: float) -> Part:
    """Normals of a capsule along z, away from its axis."""
    axis = np.clip(rod.vertices[:, 2], 0.0, length)
    out = rod.vertices - np.stack([np.zeros_like(axis), np.zeros_like(axis), axis], axis=-1)
    return Part(
        rod.vertices, out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9), rod.triangles, rod.colours
    )


def _to_axis(direction: Double) -> Double:
    """A rotation that turns z into `direction`."""
    helper = np.eye(3)[int(np.argmin(np.abs(direction)))]
    x = np.cross(helper, direction)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(direction, x), direction], axis=-1)
