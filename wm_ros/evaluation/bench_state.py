"""Rows of `wm bench`: an image to tokens, alone and from message to messages, beside a ResNet-18 on the same image."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import torch

from wm_ros import messages, topics
from wm_ros.capability import load
from wm_ros.data.simulator import tabletop_samples
from wm_ros.evaluation.bench import Row
from wm_ros.nn.preprocessing import to_tensor
from wm_ros.paths import bundle_path
from wm_ros.types import Frame

WIDTH, HEIGHT = 256, 192
PEER = "resnet18_2_threads"


def state_rows() -> list[Row]:
    """Images are simulated, 256 × 192. The peer has the published sizes and random weights: only its time counts."""
    frames = [s for s in tabletop_samples(seed=1, seconds=4.0, width=WIDTH, height=HEIGHT) if isinstance(s, Frame)]
    peers = {PEER: _peer(frames[0])}
    return [
        Row("image_to_tokens", _stepper(frames), peers=peers),
        Row("image_to_tokens_node", _from_messages(frames), peers=peers),
    ]


def _stepper(frames: list[Frame]) -> Callable[[int], float]:
    state = load("state", bundle_path("state-lite"))
    state.wanted = set()
    ring = itertools.cycle(frames)

    def run(threads: int) -> float:
        frame = next(ring)
        begin = time.perf_counter()
        state.step(frame)
        return time.perf_counter() - begin

    return run


def _from_messages(frames: list[Frame]) -> Callable[[int], float]:
    """What the node does with an image: decode the message, step, encode what it publishes while nobody looks."""
    state = load("state", bundle_path("state-lite"))
    state.wanted = set()
    ring = itertools.cycle([messages.encode_sample(frame)[0][1] for frame in frames])

    def run(threads: int) -> float:
        cdr = next(ring)
        begin = time.perf_counter()
        prediction = state.step(messages.decode(topics.IMAGE.type, cdr))
        assert prediction is not None
        messages.encode_prediction(prediction, set())
        return time.perf_counter() - begin

    return run


def resnet18() -> torch.nn.Module:
    """The published sizes without the classifier, random weights."""
    from transformers import ResNetConfig, ResNetModel

    sizes = ResNetConfig(layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], embedding_size=64)
    model: torch.nn.Module = ResNetModel(sizes)
    return model.eval()


def _peer(frame: Frame) -> Callable[[], float]:
    model = resnet18()
    image = to_tensor(np.asarray(frame.rgb))[None]

    def run() -> float:
        torch.set_num_threads(2)
        begin = time.perf_counter()
        with torch.inference_mode():
            model(image)
        return time.perf_counter() - begin

    return run
