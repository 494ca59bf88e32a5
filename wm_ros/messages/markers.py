"""MarkerArray ↔ boxes, detections and hands in an image; the fan of sampled hand trajectories for RViz."""

from __future__ import annotations

import colorsys
import math
import zlib
from itertools import pairwise
from typing import Any

import numpy as np

from wm_ros.errors import MessageError
from wm_ros.messages.cdr import (
    NANO,
    deserialise,
    duration_message,
    header,
    make,
    nanoseconds,
    point,
    pose,
    require_finite,
    serialise,
    stamp_of,
    vector,
    xyz,
)
from wm_ros.messages.motion import hand_of
from wm_ros.types import Boxes, Detections, FuturePrediction, HandTrajectory

TYPE = "visualization_msgs/msg/MarkerArray"
CUBE, LINE_STRIP = 1, 4
ADD, DELETE_ALL = 0, 3
BOX_LIFETIME_S = 0.5
FAN_LIFETIME_S = 0.5
"""A prediction that is not renewed vanishes from the picture."""
MAX_BOXES = 10_000
BOARD_THICKNESS = 0.001  # of boxes in an image; RViz draws nothing that has no thickness
SIDE_HUE = {"left": 0.58, "right": 0.08}


def decode_boxes(cdr: bytes | memoryview, stamp_ns: int = 0) -> Boxes:
    """Boxes from the CUBE markers: namespace = label, id = track; other markers are not boxes and are passed over."""
    return _boxes(*_cubes(cdr, stamp_ns))


def decode_detections(cdr: bytes | memoryview, stamp_ns: int = 0) -> Detections:
    """As `decode_boxes`, with the score that each marker's text says."""
    cubes, stamp_ns, frame_id = _cubes(cdr, stamp_ns)
    found = _boxes(cubes, stamp_ns, frame_id)
    try:
        scores = np.array([float(m.text) for m in cubes], np.float32)
    except ValueError:
        raise MessageError("MarkerArray.markers.text: is not the score of a detection") from None
    if not ((scores >= 0) & (scores <= 1)).all():
        raise MessageError("MarkerArray.markers.text: a score is outside of 0 … 1")
    return Detections(stamp_ns, frame_id, found.boxes, found.labels, found.track_ids, scores=scores)


def encode_boxes(sample: Boxes) -> bytes:
    """Boxes as CUBE markers after one that clears those of before."""
    return _encode_cubes(sample, [""] * len(sample.labels), [0.5] * len(sample.labels))


def encode_detections(sample: Detections) -> bytes:
    """The same, each with its score as text (RViz shows none on a cube; programs read it) and as opacity."""
    require_finite(sample.scores, "MarkerArray.markers.text")
    texts = [f"{score:.4f}" for score in sample.scores.tolist()]
    return _encode_cubes(sample, texts, [0.15 + 0.6 * score for score in sample.scores.tolist()])


def _encode_cubes(sample: Boxes, texts: list[str], alphas: list[float]) -> bytes:
    require_finite(sample.boxes, "MarkerArray.markers")
    markers = [_marker(sample.stamp_ns, sample.frame_id, "", 0, CUBE, DELETE_ALL)]
    rows = zip(sample.boxes.tolist(), sample.labels, sample.track_ids, texts, alphas, strict=True)
    for box, label, track, text, alpha in rows:
        x, y, z, length, width, height, yaw = box
        markers.append(
            _marker(
                sample.stamp_ns,
                sample.frame_id,
                label,
                track,
                CUBE,
                ADD,
                pose=pose(np.array([x, y, z]), (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))),
                scale=vector(length, width, height),
                color=_colour(zlib.crc32(label.encode()) % 360 / 360, alpha),
                lifetime=duration_message(BOX_LIFETIME_S),
                text=text,
            )
        )
    return _serialise(markers)


def encode_hand_boxes(hand: HandTrajectory) -> bytes:
    """Boxes of one hand in an image: CUBE markers, each with its own stamp, after one that clears those of before.

    Position and scale are in shares of the image (x of its width, y of its height), not metres, for no message of the
    common packages carries several stamped rectangles of an image (`vision_msgs` would have to be built). Boxes that
    are not valid are left out. RViz draws them on a board of 1 × 1, the image's y downwards.
    """
    if hand.kind != "box":
        raise MessageError(f"MarkerArray of the {hand.side} hand: kind {hand.kind} is no box in an image")
    boxes = hand.values[hand.valid]
    require_finite(boxes, f"MarkerArray.markers of the {hand.side} hand")
    markers = [_marker(hand.stamp_ns, hand.frame_id, "", 0, CUBE, DELETE_ALL)]
    for number, (offset, box) in enumerate(zip(hand.offsets_s[hand.valid], boxes.tolist(), strict=True)):
        centre_u, centre_v, width, height = box
        markers.append(
            _marker(
                hand.stamp_ns + round(float(offset) * NANO),
                hand.frame_id,
                f"hand_box_{hand.side}",
                number,
                CUBE,
                ADD,
                pose=pose(np.array([centre_u, centre_v, 0.0])),
                scale=vector(width, height, BOARD_THICKNESS),
                color=_colour(SIDE_HUE.get(hand.side, 0.3), 0.5),
                lifetime=duration_message(BOX_LIFETIME_S),
            )
        )
    return _serialise(markers)


def decode_hand_boxes(cdr: bytes | memoryview, topic: str, stamp_ns: int = 0) -> HandTrajectory:
    """The inverse; `topic` says which hand. Offsets are relative to the stamp of the first marker, the clearing one."""
    side, kind = hand_of(topic)
    markers = deserialise(TYPE, cdr).markers
    if kind != "box" or not markers or len(markers) > MAX_BOXES:
        raise MessageError(f"MarkerArray.markers: {len(markers)} on '{topic}' are no boxes of a hand in an image")
    stamp = stamp_of(markers[0].header, stamp_ns)
    cubes = [m for m in markers if m.type == CUBE and m.action == ADD]
    stamps = [nanoseconds(m.header.stamp) for m in cubes]
    if any(later <= earlier for earlier, later in pairwise(stamps)):
        raise MessageError("MarkerArray.markers: their stamps do not ascend")
    boxes = [_box(m) for m in cubes]
    return HandTrajectory(
        stamp,
        markers[0].header.frame_id,
        side,
        np.array([(s - stamp) / NANO for s in stamps], np.float64),
        np.array([[u, v, width, height] for u, v, _, width, height, *_ in boxes], np.float32).reshape(-1, 4),
        np.ones(len(stamps), np.bool_),
        "box",
    )


def encode_fan(prediction: FuturePrediction) -> bytes:
    """Sampled trajectories as line strips: one namespace for each hand, id = sample, width and alpha by probability.

    The first marker clears what was drawn before, so that fewer samples leave none behind.
    """
    samples, probability = prediction.samples, prediction.probability
    require_finite(samples, "MarkerArray.markers of future/samples")
    require_finite(probability, "probability of future/samples")
    frame_id = prediction.hands[0].frame_id if prediction.hands else prediction.frame_id
    markers = [_marker(prediction.stamp_ns, frame_id, "", 0, LINE_STRIP, DELETE_ALL)]
    share = probability / max(float(probability.max(initial=0.0)), 1e-9)
    for column, hand in enumerate(prediction.hands):
        for number, line in enumerate(samples[:, column]):
            weight = float(np.clip(share[number], 0, 1))
            markers.append(
                _marker(
                    prediction.stamp_ns,
                    frame_id,
                    f"hand_{hand.side}",
                    number,
                    LINE_STRIP,
                    ADD,
                    scale=vector(0.001 + 0.005 * weight, 0, 0),
                    color=_colour(SIDE_HUE.get(hand.side, 0.3), 0.15 + 0.85 * weight),
                    lifetime=duration_message(FAN_LIFETIME_S),
                    points=[point(*p) for p in line],
                )
            )
    return _serialise(markers)


def _cubes(cdr: bytes | memoryview, stamp_ns: int) -> tuple[list[Any], int, str]:
    """The markers that are boxes, and stamp and frame of the message."""
    markers = deserialise(TYPE, cdr).markers
    cubes = [m for m in markers if m.type == CUBE and m.action == ADD]
    if len(cubes) > MAX_BOXES:
        raise MessageError(f"MarkerArray.markers: {len(cubes)} boxes, more than {MAX_BOXES}")
    first = (cubes or markers or [None])[0]
    if first is None:
        return cubes, stamp_ns, ""
    return cubes, stamp_of(first.header, stamp_ns), first.header.frame_id


def _boxes(cubes: list[Any], stamp_ns: int, frame_id: str) -> Boxes:
    boxes = np.array([_box(m) for m in cubes], np.float32).reshape(-1, 7)
    return Boxes(stamp_ns, frame_id, boxes, tuple(m.ns for m in cubes), tuple(int(m.id) for m in cubes))


def _box(marker: Any) -> list[float]:
    centre = xyz(marker.pose.position, "MarkerArray.markers.pose.position")
    size = xyz(marker.scale, "MarkerArray.markers.scale")
    q = marker.pose.orientation
    yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
    if not math.isfinite(yaw):
        raise MessageError("MarkerArray.markers.pose.orientation: is not finite")
    return [*centre, *size, yaw]


def _marker(stamp_ns: int, frame_id: str, ns: str, number: int, kind: int, action: int, **fields: Any) -> Any:
    none = np.zeros(0, np.uint8)
    empty = make("std_msgs/Header", stamp=header(0, "").stamp, frame_id="")
    values: dict[str, Any] = {
        "header": header(stamp_ns, frame_id),
        "ns": ns,
        "id": number,
        "type": kind,
        "action": action,
        "pose": pose(np.zeros(3)),
        "scale": vector(0, 0, 0),
        "color": _colour(0.0, 0.0),
        "lifetime": duration_message(0),
        "frame_locked": False,
        "points": [],
        "colors": [],
        "texture_resource": "",
        "texture": make("sensor_msgs/CompressedImage", header=empty, format="", data=none),
        "uv_coordinates": [],
        "text": "",
        "mesh_resource": "",
        "mesh_file": make("visualization_msgs/MeshFile", filename="", data=none),
        "mesh_use_embedded_materials": False,
    }
    return make("visualization_msgs/Marker", **(values | fields))


def _colour(hue: float, alpha: float) -> Any:
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.8, 0.95)
    return make("std_msgs/ColorRGBA", r=red, g=green, b=blue, a=alpha)


def _serialise(markers: list[Any]) -> bytes:
    return serialise(make("visualization_msgs/MarkerArray", markers=markers))
