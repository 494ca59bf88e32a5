"""Bytes from anywhere: every decoder gives a sample or a MessageError, never another error, never a hang."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from wm_ros import messages, types
from wm_ros.errors import MessageError
from wm_ros.messages import decode, encode_prediction, encode_sample

STAMP = 1_000_000_000_123
random = np.random.default_rng(0)


def samples() -> list[types.Sample]:
    names, angles = ("a", "b", "c"), np.array([0.1, 0.2, 0.3])
    return [
        types.Sweep(STAMP, "lidar", random.random((20, 4), np.float32)),
        types.EgoPose(STAMP, "odom", "base_link", np.eye(4)),
        types.Frame(STAMP, "camera", random.integers(0, 255, (6, 5, 3), dtype=np.uint8)),
        types.Joints(STAMP, "", names, angles, angles),
        types.Instruction(STAMP, "", "lift the can"),
        types.Boxes(STAMP, "lidar", random.random((2, 7), np.float32), ("car", "van"), (1, 2)),
        types.HandTrajectory(STAMP, "torso", "left", angles, np.ones((3, 3), np.float32), np.ones(3, np.bool_)),
        types.HandTrajectory(STAMP, "camera", "left", angles, np.ones((3, 4), np.float32), np.ones(3, np.bool_), "box"),
        types.HandTrajectory(STAMP, "base", "right", angles, np.ones((3, 7), np.float32), np.ones(3, np.bool_), "pose"),
        types.StateTokens(STAMP, "camera", random.random((2, 8), np.float32)),
    ]


def predictions() -> list[types.Prediction]:
    grid = types.OccupancyForecast(STAMP, "lidar", (0.5,), random.random((1, 8, 6), np.float32), 0.4, (-1.2, -1.6))
    tokens = types.BevTokens(STAMP, "lidar", random.random((4, 8), np.float32))
    chunk = types.ActionChunk(STAMP, "torso", ("a", "b"), np.array([0.1, 0.2]), np.ones((2, 2), np.float32))
    return [
        types.LidarPrediction(STAMP, "lidar", tokens, random.random((5, 8, 6), np.float32), 0.8, grid),
        types.PolicyPrediction(STAMP, "torso", chunk),
    ]


def jpeg_and_png() -> list[tuple[str, str, bytes]]:
    import cv2

    rgb = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    found = []
    for suffix in ("jpg", "png"):
        data = cv2.imencode(f".{suffix}", rgb)[1]
        message = messages.cdr.make(
            "sensor_msgs/CompressedImage", header=messages.cdr.header(STAMP, "camera"), format=suffix, data=data
        )
        found.append(("image/compressed", "sensor_msgs/msg/CompressedImage", messages.cdr.serialise(message)))
    return found


ALL = [
    *((topic.name, topic.type, cdr) for sample in samples() for topic, cdr in encode_sample(sample)),
    *(part for prediction in predictions() for part in encode_prediction(prediction)),
    *jpeg_and_png(),
]


def mutated(cdr: bytes, count: int, seed: int):
    """Copies of `cdr` with some bytes changed to bad numbers, cut short, or made longer."""
    numbers = np.random.default_rng(seed)
    bad = np.array([0, 1, 2, 7, 127, 128, 254, 255], np.uint8)
    for index in range(count):
        copy = np.frombuffer(cdr, np.uint8).copy()
        reach = len(copy) if index % 2 else min(len(copy), 220)  # half of them in the header, where the sizes are
        width = int(numbers.choice([1, 1, 2, 4, 8]))
        for _ in range(int(numbers.integers(1, 4))):
            at = int(numbers.integers(0, reach))
            copy[at : at + width] = numbers.choice(bad)
        if index % 7 == 0:
            copy = copy[: int(numbers.integers(0, len(copy) + 1))]
        elif index % 11 == 0:
            copy = np.concatenate([copy, numbers.integers(0, 255, 64, dtype=np.uint8)])
        yield copy.tobytes()


def survives(name: str, kind: str, cdr: bytes, count: int) -> tuple[int, int]:
    """(decoded, refused) of so many hostile variants; another exception fails the test."""
    meanings = [None] if kind != "sensor_msgs/msg/Image" else [types.Frame, types.StateTokens, types.BevTokens]
    decoded = refused = 0
    for number, bad in enumerate(mutated(cdr, count, seed=len(cdr))):
        try:
            decode(kind, bad, STAMP, meanings[number % len(meanings)], name)
            decoded += 1
        except MessageError as error:
            assert "\n" not in str(error)
            refused += 1
    return decoded, refused


def test_ten_thousand_hostile_point_clouds():
    name, kind, cdr = next(part for part in ALL if part[0] == "points")
    began = time.perf_counter()
    with np.errstate(all="ignore"):
        decoded, refused = survives(name, kind, cdr, 10_000)
    assert decoded + refused == 10_000
    assert refused > 2_000, "the variants are not hostile"
    assert decoded > 500, "the variants are refused for one and the same reason"
    assert time.perf_counter() - began < 60


@pytest.mark.parametrize("part", ALL, ids=[f"{name}-{number}" for number, (name, _, _) in enumerate(ALL)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_hostile_variants_of_every_message(part):
    decoded, refused = survives(*part, 400)
    assert decoded + refused == 400
    assert refused > 0


@pytest.mark.parametrize("part", ALL, ids=[f"{name}-{number}" for number, (name, _, _) in enumerate(ALL)])
def test_a_message_cut_short_anywhere_is_refused(part):
    name, kind, cdr = part
    # The last bytes may be padding, which a decoder need not miss.
    for length in range(0, len(cdr) - 4, max(1, len(cdr) // 60)):
        with pytest.raises(MessageError):
            decode(kind, cdr[:length], STAMP, None, name)


def test_an_announced_length_of_gigabytes_is_refused_at_once():
    for name, kind, cdr in ALL:
        began = time.perf_counter()
        # every aligned word in turn says four billion
        for at in range(4, min(len(cdr) - 4, 160), 4):
            hostile = cdr[:at] + b"\xff\xff\xff\xff" + cdr[at + 4 :]
            with contextlib.suppress(MessageError):
                decode(kind, hostile, STAMP, None, name)
        assert time.perf_counter() - began < 5


def test_an_unknown_type_is_refused_by_name():
    with pytest.raises(MessageError, match="velodyne_msgs/msg/VelodyneScan"):
        decode("velodyne_msgs/msg/VelodyneScan", b"\x00\x01\x00\x00")
    with pytest.raises(MessageError, match="LaserScan"):
        decode("sensor_msgs/msg/LaserScan", b"\x00\x01\x00\x00")


def test_a_meaning_that_a_type_does_not_have_is_refused():
    name, kind, cdr = next(part for part in ALL if part[0] == "odom")
    with pytest.raises(MessageError, match="Odometry is no Frame"):
        decode(kind, cdr, sample=types.Frame, topic=name)
