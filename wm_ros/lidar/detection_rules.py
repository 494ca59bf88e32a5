"""What counts when detections are scored: KITTI's rules for its labelled frames, and rules like them for other scenes.

KITTI (development kit of the object benchmark, BEV and 3D): a level asks for a least height in the picture and allows
occlusion and truncation up to a limit; labels beyond these limits, and those of the neighbouring class (Van for Car,
Person_sitting for Pedestrian), are ignored; detections less high in the picture than the level asks for are ignored;
other classes count as background. DontCare regions are rectangles in the picture only and play no part in BEV and 3D.
A detection outside of the labelled picture is not scored: nobody looked there.

Scenes with boxes all around (simulation, bags) have no picture. There a level asks for points inside the box and for a
distance from the sensor; objects beyond the limits are ignored, and so are detections farther away than the level
reaches. Van and truck are ignored when cars are scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_ros.lidar import boxes as geometry
from wm_ros.lidar.detection_ap import Scene
from wm_ros.types import Boxes, PictureBoxes

NEAR_M = 0.1  # corners nearer to the camera than this, or behind it, are not projected
MIN_OVERLAP = {"car": 0.7, "pedestrian": 0.5, "cyclist": 0.5}
VIEWS = {"bev": geometry.bev_iou, "3d": geometry.iou_3d}


@dataclass(frozen=True)
class Level:
    """Limits of a level: KITTI's in the picture, and ours (points, metres) where there is no picture."""

    name: str
    min_height_px: float
    max_occlusion: int
    max_truncation: float
    min_points: int
    max_distance_m: float


LEVELS = (
    Level("easy", 40, 0, 0.15, 100, 30.0),
    Level("moderate", 25, 1, 0.30, 20, 45.0),
    Level("hard", 25, 2, 0.50, 5, 50.0),
)
KITTI_NEIGHBOURS = {"car": ("van",), "pedestrian": ("person_sitting",), "cyclist": ()}
NEIGHBOURS = {"car": ("van", "truck"), "pedestrian": ("person_sitting",), "cyclist": ()}


@dataclass(frozen=True)
class Key:
    """One figure: class, view ("bev" or "3d") and level."""

    name: str
    view: str
    level: str

    @property
    def title(self) -> str:
        """As a key of `metrics.json`, e.g. `detection_ap_bev_car_moderate`."""
        return f"detection_ap_{self.view}_{self.name}_{self.level}"


def scenes(
    truth: Boxes,
    points_inside: NDArray[np.int64],
    boxes: NDArray[np.float32],
    labels: tuple[str, ...],
    scores: NDArray[np.float32],
) -> Iterator[tuple[Key, Scene]]:
    """One sweep as a scene for every figure.

    Args:
        truth: the labelled boxes. points_inside: (B,) points of the sweep in each of them.
        boxes, labels, scores: the (D, 7) detections, with names as in `MIN_OVERLAP`.
    """
    names = [label.lower() for label in truth.labels]
    picture = truth if isinstance(truth, PictureBoxes) else None
    if picture is not None:
        height_px, inside = _in_picture(picture, boxes)
        boxes, scores, height_px = boxes[inside], scores[inside], height_px[inside]
        labels = tuple(label for label, seen in zip(labels, inside, strict=True) if seen)
    neighbours = NEIGHBOURS if picture is None else KITTI_NEIGHBOURS
    for name in MIN_OVERLAP:
        own = np.array([label == name for label in labels], bool)
        near = np.array([n == name or n in neighbours[name] for n in names], bool)
        alien = np.array([n != name for n in names], bool)[near]
        overlaps = {view: iou(boxes[own], truth.boxes[near]) for view, iou in VIEWS.items()}
        for level in LEVELS:
            if picture is not None:
                beyond = (
                    (picture.height_px[near] < level.min_height_px)
                    | (picture.occluded[near] > level.max_occlusion)
                    | (picture.truncated[near] > level.max_truncation)
                )
                far = height_px[own] < level.min_height_px
            else:
                distance_m = np.hypot(truth.boxes[near, 0], truth.boxes[near, 1])
                beyond = (points_inside[near] < level.min_points) | (distance_m > level.max_distance_m)
                far = np.hypot(boxes[own, 0], boxes[own, 1]) > level.max_distance_m
            for view, overlap in overlaps.items():
                yield Key(name, view, level.name), Scene(overlap, scores[own].astype(np.float64), far, beyond | alien)


def detection_table(figures: dict[str, float]) -> str:
    """Markdown of figures by `Key.title`; "" where there are none."""
    columns = [(view, level.name) for view in VIEWS for level in LEVELS]
    rows = []
    for name in MIN_OVERLAP:
        values = [figures.get(Key(name, *column).title) for column in columns]
        if any(value is not None for value in values):
            rows.append(f"| {name} | " + " | ".join("–" if v is None else f"{v:.1f}" for v in values) + " |")
    if not rows:
        return ""
    head = " | ".join(f"{view} {level}" for view, level in columns)
    title = "Detection, average precision at 40 recall points in per cent, held-out episodes of the training sources:"
    return "\n".join([title, "", f"| class | {head} |", "|---|" + "---|" * len(columns), *rows, "", ""])


def _in_picture(truth: PictureBoxes, boxes: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Height in pixels of each detection, and whether its centre is seen."""
    left, top, right, bottom = rectangles(truth, boxes).T
    places = np.concatenate([boxes[:, :3], np.ones((len(boxes), 1))], 1)
    centre = np.einsum("nj,ij->ni", places, truth.projection)
    depth = np.maximum(centre[:, 2], 1e-6)
    u, v = centre[:, 0] / depth, centre[:, 1] / depth
    width, height = truth.image_size
    inside = (centre[:, 2] > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    return bottom - top, inside & (right > left) & (bottom > top)


def rectangles(truth: PictureBoxes, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 7) boxes → (N, 4) left, top, right, bottom of their corners in the picture, cut to it; zeros behind it."""
    rows = np.asarray(boxes, np.float64).reshape(-1, 7)
    flat = geometry.corners(rows)
    up = rows[:, 5:6] / 2
    levels = [
        np.concatenate([flat, np.full((len(rows), 4, 1), 0.0) + z[:, None]], 2)
        for z in (rows[:, 2:3] - up, rows[:, 2:3] + up)
    ]
    places = np.concatenate(levels, 1)
    places = np.concatenate([places, np.ones_like(places[..., :1])], 2)
    u, v, depth = np.moveaxis(np.einsum("nci,pi->ncp", places, truth.projection), -1, 0)
    ahead = depth > NEAR_M
    u, v = (np.where(ahead, value / np.maximum(depth, NEAR_M), np.nan) for value in (u, v))
    out = np.zeros((len(rows), 4))
    seen = ahead.any(1)
    limits = np.array([truth.image_size[0] - 1, truth.image_size[1] - 1] * 2, np.float64)
    edges = [f(a[seen], axis=1) for f, a in ((np.nanmin, u), (np.nanmin, v), (np.nanmax, u), (np.nanmax, v))]
    out[seen] = np.clip(np.stack(edges, 1).reshape(-1, 4), 0, limits)
    return out
