"""Training windows are what the capability would cut from the same episode."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wm_ros.future import FutureCapability
from wm_ros.future.config import FramesConfig, FutureConfig, TrajectoryConfig
from wm_ros.future.model import FutureModel
from wm_ros.kinematics import G1_JOINTS, hands_of
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.training.aligned import Aligned
from wm_ros.training.future_windows import FutureWindows, encoded, gather
from wm_ros.types import Instruction, JointCommand, Joints, StateTokens

CONFIG = FutureConfig(
    state_width=16,
    image_height=32,
    image_width=64,
    trajectory=TrajectoryConfig(width=32, layers=1, heads=2),
    frames=FramesConfig(width=32, layers=1, heads=2),
    autoencoder=AutoencoderConfig(channels=4, width=16, blocks=1),
)
LENGTHS = (40, 25)


@pytest.fixture(scope="module")
def aligned() -> Aligned:
    rng = np.random.default_rng(0)
    count = sum(LENGTHS)
    joints = np.cumsum(rng.normal(0, 0.02, (count, 26)), 0).astype(np.float32)
    found = [hands_of(Joints(0, "", G1_JOINTS, row.astype(np.float64))) for row in joints]
    return Aligned(
        names=G1_JOINTS,
        rate_hz=15.0,
        starts=np.array([0, 40, 65]),
        episodes=("a", "b"),
        licences=("MIT",),
        texts=("", "lift it"),
        folder=Path(),
        arrays={
            "joints": joints,
            "commands": joints + rng.normal(0, 0.01, joints.shape).astype(np.float32),
            "hands": np.stack([np.stack([h["left"], h["right"]]) for h in found]).astype(np.float32),
            "frames": rng.integers(0, 255, (count, 32, 64, 3), dtype=np.uint8),
            "text": np.repeat([1, 0], LENGTHS),
        },
    )


@pytest.fixture(scope="module")
def windows(aligned) -> FutureWindows:
    rng = np.random.default_rng(1)
    states = rng.normal(size=(65, 2, 16)).astype(np.float32)
    latents = rng.normal(size=(65, 4, 4, 8)).astype(np.float32)
    data = gather([aligned], [[states]], [[latents]], [([0, 1], [])])
    return FutureWindows(CONFIG, data, data.training)


@pytest.mark.parametrize("step", [0, 1, 4, 7, 20])
def test_a_window_is_what_the_capability_cuts(aligned, windows, step):
    item = windows[int(np.flatnonzero(windows.index == step)[0])]
    capability = FutureCapability(FutureModel(CONFIG).eval(), with_commands=True)
    capability.wanted = set()
    capability.step(Instruction(0, "", "lift it"))
    for t in range(step + 1):
        stamp = 10**12 + round(t * 1e9 / 15)
        capability.step(Joints(stamp, "", G1_JOINTS, aligned["joints"][t].astype(np.float64)))
        capability.step(JointCommand(stamp, "", G1_JOINTS, aligned["commands"][t].astype(np.float64)))
        capability.step(StateTokens(stamp, "camera", windows.data.states[t].numpy()))
    live = capability.moment.batch
    assert torch.allclose(item["body"], live.body[0], atol=1e-5)
    assert torch.equal(item["known"], live.known[0])
    assert torch.allclose(item["asked"], live.asked[0], atol=1e-5)
    assert torch.equal(item["words"], live.words[0])
    assert torch.equal(item["states"][1], live.states[0, 1])
    if live.known[0, 3]:
        assert torch.equal(item["states"][0], live.states[0, 0])


def test_the_future_of_a_window_follows_it_and_ends_with_the_episode(aligned, windows):
    item = windows[int(np.flatnonzero(windows.index == 30)[0])]
    assert item["there"].tolist() == [True] * 9 + [False] * 21
    assert torch.equal(item["future"][8, 6:], torch.from_numpy(aligned["joints"][39]))
    assert torch.equal(item["latents"][0], windows.data.latents[35].float())


def test_no_window_reaches_into_the_next_episode(windows):
    first_of_second = windows[int(np.flatnonzero(windows.index == 40)[0])]
    assert torch.equal(first_of_second["body"], first_of_second["body"][-1:].expand(12, -1))
    assert first_of_second["elapsed_s"] == 0


def test_with_a_stride_only_the_images_of_windows_are_encoded(aligned, tmp_path):
    source = Aligned(**{**aligned.__dict__, "folder": tmp_path})
    seen = []

    def encode(frames: np.ndarray) -> np.ndarray:
        seen.append(len(frames))
        return np.full((len(frames), 2, 16), 7.0, np.float32)

    states = encoded(source, 5, encode, "key")
    assert sum(seen) == 13
    assert np.flatnonzero(states[:, 0, 0]).tolist() == list(range(0, 65, 5))
    encoded(source, 5, encode, "key")
    assert sum(seen) == 13  # the second time from the cache
    data = gather([source], [[states]], [[states]], [([0, 1], [])], stride=5)
    assert set(FutureWindows(CONFIG, data, data.training).index % 5) == {0}


def test_copies_are_of_training_episodes_and_look_otherwise_alike_within_an_episode(aligned, tmp_path):
    source = replace(aligned, folder=tmp_path)

    def encode(frames):
        return frames.reshape(len(frames), 4, 4, -1).mean(-1, dtype=np.float32)[:, None]

    states = [encoded(source, 1, encode, "key", copy) for copy in (0, 1)]
    assert not np.allclose(states[0], states[1])
    assert np.array_equal(states[1], encoded(source, 1, encode, "key", 1))
    data = gather([source], [states], [states], [([0], [1])])
    assert (data.training, data.validation) == ([0, 65], [40])
    windows = FutureWindows(CONFIG, data, data.training, images=True)
    plain, copy = windows[3], windows[int(np.flatnonzero(windows.index == 68)[0])]
    assert torch.equal(plain["body"], copy["body"])
    assert not torch.allclose(plain["image"], copy["image"])
    shown = (copy["image"].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.abs(encode(shown[None])[0] - states[1][3]).max() < 1.0  # what was encoded is what is shown


@pytest.mark.parametrize("pace", [3, -1])
def test_what_follows_may_be_seen_faster_or_backwards(windows, pace):
    data, step = windows.data, 20
    paced = FutureWindows(CONFIG, data, data.training, paces=(pace,))
    torch.manual_seed(0)
    found = [paced[step] for _ in range(40)]
    assert {int(item["pace"]) for item in found} == {1, pace}
    item, plain = (next(item for item in found if int(item["pace"]) == which) for which in (pace, 1))
    assert all(torch.equal(plain[name], windows[step][name]) for name in ("future", "there", "latents"))
    assert torch.equal(item["body"], plain["body"])  # the past is as it was
    for ahead in range(1, CONFIG.horizon_steps + 1):
        at = step + pace * ahead
        assert bool(item["there"][ahead - 1]) == (0 <= at < LENGTHS[0])
        assert torch.equal(item["future"][ahead - 1], data.body[min(max(at, 0), LENGTHS[0] - 1)])
    first = step + pace * CONFIG.frame_steps[0]
    assert torch.equal(item["latents"][0], data.latents[min(max(first, 0), LENGTHS[0] - 1)].float())
