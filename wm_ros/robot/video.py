"""Rollouts as an MP4: what the robot saw, and in it the way that its hand was told to go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.robot.controller import Double
from wm_ros.types import ActionChunk, Frame, Joints, Sample, WristFrame

Picture = NDArray[np.uint8]
Heard = dict[type[Sample], dict[int, Sample]]

ZOOM = 4
FPS = 20
CAPTION_PX = 24
_NEAR, _FAR = np.array([255.0, 235.0, 60.0]), np.array([235.0, 40.0, 160.0])  # of the plan: soon … late


def episode_pictures(heard: Heard, matrix: Double, caption: str) -> Iterator[Picture]:
    """Each image of an episode, larger, with the plan in force drawn in; the camera on the hand beside it.

    Args:
        heard: samples by stamp. matrix: (3, 4), points of the joints' frame in metres → pixels of the image.
        caption: what to write above; the time is added.
    """
    frames, wrists = heard.get(Frame, {}), heard.get(WristFrame, {})
    start_ns = min(frames, default=0)
    for stamp in sorted(frames):
        frame = frames[stamp]
        assert isinstance(frame, Frame)
        view = enlarged(frame.rgb)
        chunk, joints = _in_force(heard, stamp)
        draw_plan(view, chunk, joints, matrix)
        parts = [view]
        wrist = wrists.get(stamp)
        if isinstance(wrist, WristFrame):
            parts.append(enlarged(wrist.rgb))
        elif wrists:
            parts.append(np.zeros_like(view))
        yield _captioned(np.concatenate(parts, 1), f"{caption}  {(stamp - start_ns) / 1e9:5.2f} s")


def enlarged(rgb: Picture) -> Picture:
    """`ZOOM` times as large, pixels as they are."""
    return np.ascontiguousarray(rgb.repeat(ZOOM, 0).repeat(ZOOM, 1))


def draw_plan(view: Picture, chunk: ActionChunk | None, joints: Joints | None, matrix: Double) -> None:
    """Draw into an enlarged image where the hand is (white) and the way of the chunk (yellow, soon … pink, late)."""
    here = None if joints is None else _pixels(_places(joints.names, joints.position_rad[None]), matrix)
    if chunk is not None:
        way = _pixels(_places(chunk.names, chunk.position_rad.astype(np.float64)), matrix)
        if here is not None:
            way = np.concatenate([here, way])
        for i, (a, b) in enumerate(pairwise(way)):
            share = (i + 1) / max(len(way) - 1, 1)
            colour = tuple(map(float, (1 - share) * _NEAR + share * _FAR))
            cv2.line(view, tuple(map(int, a)), tuple(map(int, b)), colour, 2, cv2.LINE_AA)
    if here is not None:
        cv2.circle(view, tuple(map(int, here[0])), 4, (255, 255, 255), -1, cv2.LINE_AA)


def write_video(path: Path, pictures: Iterable[Picture], fps: int = FPS) -> int:
    """H.264 in MP4, yuv420p, which every browser plays; returns the number of pictures, none of which makes no file."""
    count = 0
    container: Any = None
    stream: Any = None
    try:
        for picture in pictures:
            if container is None:
                container = av.open(str(path), "w")
                stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "23"})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            count += 1
        if container is not None:
            container.mux(stream.encode(None))
    finally:
        if container is not None:
            container.close()
    return count


def _in_force(heard: Heard, stamp: int) -> tuple[ActionChunk | None, Joints | None]:
    """The newest chunk and joints at a stamp."""
    found: list[Any] = []
    for kind in (ActionChunk, Joints):
        stamps = [s for s in heard.get(kind, {}) if s <= stamp]
        found.append(heard[kind][max(stamps)] if stamps else None)
    return found[0], found[1]


def _places(names: tuple[str, ...], values: Double) -> Double:
    """(T, 3) of the hand, from the joints that say it."""
    return values[:, [names.index(name) for name in ("ee_x", "ee_y", "ee_z")]]


def _pixels(points: Double, matrix: Double) -> Double:
    """(T, 2) in the enlarged image."""
    seen = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    pixels: Double = np.clip(seen[:, :2] / seen[:, 2:] * ZOOM, -4096, 4096)
    return pixels


def _captioned(picture: Picture, text: str) -> Picture:
    bar = np.full((CAPTION_PX, picture.shape[1], 3), 24, np.uint8)
    cv2.putText(bar, text, (8, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])
