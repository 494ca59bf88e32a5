"""Predictions → (topic, type, CDR). The topics are those of `wm_ros.topics.OUTPUTS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from wm_ros.messages import grids, images, markers, motion
from wm_ros.messages.cdr import require_finite
from wm_ros.messages.pictures import components_rgb, side_by_side
from wm_ros.topics import OUTPUTS, Topic, millis
from wm_ros.types import (
    FutureFrames,
    FuturePrediction,
    Instruction,
    LidarPrediction,
    PolicyPrediction,
    Prediction,
    StatePrediction,
)

_TOPICS = {topic.name: topic for outputs in OUTPUTS.values() for topic in outputs}

# (topic name, type, encoder); encoders run only for what is wanted
Part = tuple[str, str, Callable[[], bytes]]


def encode_prediction(prediction: Prediction, wanted: set[str] | None = None) -> list[tuple[str, str, bytes]]:
    """The messages of a prediction, in the order of publication.

    Args:
        wanted: names of the lazy topics that somebody subscribes to; None for all. Others are always encoded.

    Raises:
        MessageError: a value is not finite; nothing of such a prediction is to be published.
    """
    parts = _PARTS[type(prediction)](prediction)
    return [(name, kind, encode()) for name, kind, encode in parts if wanted is None or not _lazy(name, wanted)]


def _lazy(name: str, wanted: set[str]) -> bool:
    topic: Topic | None = _TOPICS.get(name)
    return topic is not None and topic.lazy and name not in wanted


def _lidar(prediction: LidarPrediction) -> Iterator[Part]:
    stamp, frame = prediction.stamp_ns, prediction.frame_id
    tokens = prediction.tokens
    require_finite(tokens.tokens, "bev/tokens")
    yield "bev/tokens", images.TYPE, lambda: images.encode_tokens(tokens.stamp_ns, tokens.frame_id, tokens.tokens)
    if prediction.occupancy is not None:
        occupancy = prediction.occupancy
        for index, horizon in enumerate(occupancy.horizons_s):
            # `index` is bound now: the encoder may run after the loop has moved on
            yield (
                f"bev/occupancy/t_{millis(horizon)}",
                grids.TYPE,
                lambda index=index: grids.encode_grid(occupancy, index),  # type: ignore[misc]
            )
    embedding = prediction.embedding
    if embedding is not None and np.size(embedding):
        require_finite(embedding, "bev/embedding")
        yield "bev/embedding", images.TYPE, lambda: images.encode_embedding(stamp, frame, embedding)
        yield "bev/view", images.TYPE, lambda: images.encode_rgb(stamp, frame, components_rgb(embedding))
    if prediction.detections is not None:
        detections = prediction.detections
        require_finite(detections.boxes, "bev/detections")
        yield "bev/detections", markers.TYPE, lambda: markers.encode_detections(detections)


def _state(prediction: StatePrediction) -> Iterator[Part]:
    stamp, frame = prediction.stamp_ns, prediction.frame_id
    for name, tokens in (("state/tokens", prediction.tokens), ("state/motion", prediction.motion)):
        if tokens is not None:
            require_finite(tokens.tokens, name)
            values = tokens.tokens
            yield name, images.TYPE, lambda values=values: images.encode_tokens(stamp, frame, values)  # type: ignore[misc]
    if prediction.reconstruction is not None:
        picture = prediction.reconstruction
        yield "state/reconstruction", images.TYPE, lambda: images.encode_rgb(stamp, frame, picture)


def _future(prediction: FuturePrediction) -> Iterator[Part]:
    for hand in prediction.hands:
        yield f"future/hand_{hand.side}", motion.PATH, lambda hand=hand: motion.encode_path(hand)  # type: ignore[misc]
    joints = prediction.joints
    yield "future/joints", motion.JOINT_TRAJECTORY, lambda: motion.encode_joint_trajectory(joints)
    if prediction.frames is not None:
        frames = prediction.frames
        for horizon, rgb in zip(frames.horizons_s, frames.rgb, strict=True):
            yield (
                f"future/image/t_{millis(horizon)}",
                images.TYPE,
                lambda rgb=rgb: images.encode_rgb(frames.stamp_ns, frames.frame_id, rgb),  # type: ignore[misc]
            )
        yield (
            "future/strip",
            images.TYPE,
            lambda: encode_strip(frames),
        )
    if np.size(prediction.samples):
        yield "future/samples", markers.TYPE, lambda: markers.encode_fan(prediction)
    if prediction.subtask:
        said = Instruction(prediction.stamp_ns, "", prediction.subtask)
        yield "future/subtask", motion.STRING, lambda: motion.encode_instruction(said)


def encode_strip(frames: FutureFrames) -> bytes:
    """Frames to come side by side, as one image."""
    return images.encode_rgb(frames.stamp_ns, frames.frame_id, side_by_side(frames.rgb))


def _policy(prediction: PolicyPrediction) -> Iterator[Part]:
    yield "action_chunk", motion.JOINT_TRAJECTORY, lambda: motion.encode_joint_trajectory(prediction.chunk)


_PARTS: dict[type, Callable[..., Iterator[Part]]] = {
    LidarPrediction: _lidar,
    StatePrediction: _state,
    FuturePrediction: _future,
    PolicyPrediction: _policy,
}
