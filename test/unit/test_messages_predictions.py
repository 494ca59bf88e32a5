"""A prediction becomes messages on the topics of the table, lazy ones only where somebody wants them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wm_ros import topics
from wm_ros.errors import MessageError
from wm_ros.messages import TYPESTORE, decode, encode_prediction
from wm_ros.types import (
    ActionChunk,
    BevTokens,
    Detections,
    Frame,
    FutureFrames,
    FuturePrediction,
    HandTrajectory,
    JointForecast,
    LidarPrediction,
    OccupancyForecast,
    PolicyPrediction,
    StatePrediction,
    StateTokens,
)

STAMP = 1_000_000_000_123
random = np.random.default_rng(0)
OFFSETS = np.arange(1, 11) / 10


def normal(*shape):
    return random.normal(size=shape).astype(np.float32)


TOKENS = StateTokens(STAMP, "camera", normal(2, 16))
LIDAR = LidarPrediction(
    STAMP,
    "lidar",
    BevTokens(STAMP, "lidar", normal(4, 8)),
    normal(6, 8, 10),
    0.8,
    OccupancyForecast(STAMP, "lidar", topics.HORIZONS_S, random.random((4, 8, 10), np.float32), 0.4, (-2.0, -1.6)),
    detections=Detections(
        STAMP, "lidar", normal(3, 7), ("car", "car", "cyclist"), (0, 1, 2), np.array([0.9, 0.5, 0.25], np.float32)
    ),
)
STATE = StatePrediction(STAMP, "camera", TOKENS, TOKENS, np.zeros((4, 6, 3), np.uint8))
FUTURE = FuturePrediction(
    STAMP,
    "torso",
    tuple(HandTrajectory(STAMP, "torso", s, OFFSETS, normal(10, 3), np.ones(10, np.bool_)) for s in topics.SIDES),
    normal(5, 2, 10, 3),
    np.array([0.4, 0.3, 0.2, 0.1, 0.0], np.float32),
    JointForecast(STAMP, "torso", ("a", "b"), OFFSETS, normal(10, 2)),
    FutureFrames(STAMP, "camera", topics.FRAME_HORIZONS_S, random.integers(0, 255, (3, 4, 6, 3), dtype=np.uint8)),
    "lift the object",
)
POLICY = PolicyPrediction(STAMP, "torso", ActionChunk(STAMP, "torso", ("a", "b"), OFFSETS, normal(10, 2)))
NODES = {"lidar_encoder": LIDAR, "state_tokenizer": STATE, "future_predictor": FUTURE, "policy": POLICY}


APART = {"future/answer", "action_step"}  # the answer to a question, the step to be executed: no part of a prediction


@pytest.mark.parametrize("node", NODES)
def test_the_messages_are_those_of_the_table(node):
    said = {(name, kind) for name, kind, _ in encode_prediction(NODES[node])}
    assert said == {(t.name, t.type) for t in topics.OUTPUTS[node] if t.name not in APART}


@pytest.mark.parametrize("node", NODES)
def test_lazy_topics_are_encoded_only_where_wanted(node):
    always = {t.name for t in topics.OUTPUTS[node] if not t.lazy and t.name not in APART}
    lazy = sorted(t.name for t in topics.OUTPUTS[node] if t.lazy)
    assert {name for name, _, _ in encode_prediction(NODES[node], set())} == always
    for one in lazy:
        assert {name for name, _, _ in encode_prediction(NODES[node], {one})} == always | {one}


@pytest.mark.parametrize("node", NODES)
def test_every_stamp_is_that_of_the_input(node):
    for name, kind, cdr in encode_prediction(NODES[node]):
        message = TYPESTORE.deserialize_cdr(cdr, kind)
        if kind.endswith("String"):
            continue  # it has none
        header = message.markers[0].header if kind.endswith("MarkerArray") else message.header
        assert header.stamp.sec * 10**9 + header.stamp.nanosec == STAMP, name
        assert header.frame_id, name


def test_what_is_said_decodes_to_what_was_predicted():
    said = {name: (kind, cdr) for node in NODES for name, kind, cdr in encode_prediction(NODES[node])}

    def heard(name, sample=None):
        return decode(*said[name], sample=sample, topic=name)

    assert np.array_equal(heard("bev/tokens", BevTokens).tokens, LIDAR.tokens.tokens)
    for index, horizon in enumerate(topics.HORIZONS_S):
        grid = heard(f"bev/occupancy/t_{topics.millis(horizon)}")
        assert grid.horizons_s == (horizon,)
        assert np.abs(grid.probability[0] - LIDAR.occupancy.probability[index]).max() < 0.00501
    assert np.array_equal(heard("state/tokens", StateTokens).tokens, TOKENS.tokens)
    assert np.array_equal(heard("state/reconstruction", Frame).rgb, STATE.reconstruction)
    for hand in FUTURE.hands:
        back = heard(f"future/hand_{hand.side}")
        assert back.side == hand.side
        assert np.allclose(back.offsets_s, OFFSETS)
        assert np.array_equal(back.position_m, hand.position_m)
    assert np.array_equal(heard("future/joints").position_rad, FUTURE.joints.position_rad)
    for index, horizon in enumerate(topics.FRAME_HORIZONS_S):
        frames = heard(f"future/image/t_{topics.millis(horizon)}", FutureFrames)
        assert frames.horizons_s == (horizon,)
        assert np.array_equal(frames.rgb[0], FUTURE.frames.rgb[index])
    assert heard("future/subtask").text == FUTURE.subtask
    assert np.array_equal(heard("action_chunk", ActionChunk).position_rad, POLICY.chunk.position_rad)


def test_what_is_withheld_is_not_said():
    blind = dataclasses.replace(LIDAR, occupancy=None, withheld="no odometry")
    assert not any(name.startswith("bev/occupancy") for name, _, _ in encode_prediction(blind))
    first = dataclasses.replace(STATE, motion=None, reconstruction=None)
    assert [name for name, _, _ in encode_prediction(first)] == ["state/tokens"]
    no_frames = {name for name, _, _ in encode_prediction(dataclasses.replace(FUTURE, frames=None))}
    assert no_frames == {"future/hand_left", "future/hand_right", "future/joints", "future/samples", "future/subtask"}
    silent = {name for name, _, _ in encode_prediction(dataclasses.replace(FUTURE, subtask=""))}
    assert "future/subtask" not in silent and "future/strip" in silent


def test_the_fan_has_stable_ids_one_namespace_per_hand_and_width_by_probability():
    cdr = next(cdr for name, _, cdr in encode_prediction(FUTURE) if name == "future/samples")
    clear, *lines = TYPESTORE.deserialize_cdr(cdr, "visualization_msgs/msg/MarkerArray").markers
    assert clear.action == 3
    assert [(m.ns, m.id) for m in lines] == [(f"hand_{s}", i) for s in topics.SIDES for i in range(5)]
    assert all(m.type == 4 and m.lifetime.nanosec > 0 and not m.frame_locked for m in lines)
    widths = [m.scale.x for m in lines[:5]]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0
    third = np.array([[p.x, p.y, p.z] for p in lines[5 + 2].points])
    assert np.allclose(third, FUTURE.samples[2, 1])


def spoilt(prediction, path):
    """The prediction with one number of `path` not finite."""
    first, _, rest = path.partition(".")
    value = getattr(prediction, first)
    if isinstance(value, tuple):
        return dataclasses.replace(prediction, **{first: (spoilt(value[0], rest), *value[1:])})
    if rest:
        return dataclasses.replace(prediction, **{first: spoilt(value, rest)})
    bad = value.copy()
    bad.flat[0] = np.nan
    return dataclasses.replace(prediction, **{first: bad})


@pytest.mark.parametrize(
    ("prediction", "path"),
    [
        (LIDAR, "tokens.tokens"),
        (LIDAR, "embedding"),
        (LIDAR, "occupancy.probability"),
        (STATE, "tokens.tokens"),
        (STATE, "motion.tokens"),
        (FUTURE, "hands.values"),
        (FUTURE, "joints.position_rad"),
        (FUTURE, "samples"),
        (FUTURE, "probability"),
        (POLICY, "chunk.position_rad"),
    ],
)
def test_nothing_of_a_prediction_that_is_not_finite_is_said(prediction, path):
    with pytest.raises(MessageError, match="not finite"):
        encode_prediction(spoilt(prediction, path))
