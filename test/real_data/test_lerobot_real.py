"""Public recordings of a Unitree G1 (v2.1, H.264 and AV1) and an SO-101 (v3.0): layout, joints, pictures, hands."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wm_ros.data.lerobot import lerobot_episodes
from wm_ros.kinematics import G1_JOINTS
from wm_ros.types import Frame, HandTrajectory, Instruction, JointCommand, Joints

DATA = Path(os.environ.get("WM_DATA", "../shared/data")) / "robot"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recordings in {DATA}; set WM_DATA")


def right_wrist(number: int) -> np.ndarray:
    (episode,) = lerobot_episodes(DATA / "g1_bottle_15hz", [number], {})
    hands = (s for s in episode.samples() if isinstance(s, HandTrajectory) and s.side == "right")
    return np.stack([s.position_m[0] for s in hands]).astype(np.float64)


def test_h264_episodes_have_every_row_with_its_picture():
    (episode,) = lerobot_episodes(DATA / "g1_bottle_15hz", [36], {"licence": "MIT"})
    samples = list(episode.samples())
    count = Counter(type(s) for s in samples)
    assert count == {Joints: 199, JointCommand: 199, Frame: 199, HandTrajectory: 398, Instruction: 1}
    assert next(s for s in samples if isinstance(s, Joints)).names == G1_JOINTS
    assert next(s for s in samples if isinstance(s, Frame)).rgb.shape == (192, 256, 3)
    assert [s.text for s in samples if isinstance(s, Instruction)] == ["Pick up the yellow bottle on the table."]
    assert episode.licence == "MIT"


def test_av1_episodes_have_every_row_with_its_picture():
    (original,) = lerobot_episodes(DATA / "g1_bottle", [29], {})
    assert original.licence == "MIT"
    samples = list(original.samples())
    frames = [s for s in samples if isinstance(s, Frame)]
    joints = [s for s in samples if type(s) is Joints]
    assert len(frames) == len(joints) == 221 and frames[0].rgb.shape == (480, 640, 3)
    assert np.diff([s.stamp_ns for s in frames]) == pytest.approx(1e9 / 30, rel=1e-3)
    assert frames[0].rgb.std() > 20 and (frames[0].rgb != frames[120].rgb).mean() > 0.2


def test_all_original_episodes_are_listed_and_those_without_video_give_joints():
    found = lerobot_episodes(DATA / "g1_bottle", [], {})
    assert [e.name for e in found] == [f"g1_bottle-{n:06d}" for n in (0, 29, 59, 82)]
    assert {type(s) for s in found[0].samples()} == {Joints, JointCommand, Instruction, HandTrajectory}


def test_v3_episodes_are_cut_from_their_shared_file():
    found = lerobot_episodes(DATA / "so101_record_test", [], {})
    lengths = []
    for episode in found:
        samples = list(episode.samples())
        joints = [s for s in samples if type(s) is Joints]
        lengths.append(len(joints))
        assert samples[0].stamp_ns == 1_000_000_000_000 and joints[0].names[0] == "shoulder_pan.pos"
        assert [s.text for s in samples if isinstance(s, Instruction)] == [
            "Pick the orange cube and place it in the box"
        ]
        assert not any(isinstance(s, Frame | HandTrajectory) for s in samples)
    assert lengths == [373, 374, 372, 373]
    assert found[0].licence == "unknown"


def test_wrist_errors_of_two_baselines_are_those_of_the_protocol():
    """Right wrist, moving frames of episodes 36–43: hold 6.7/14.3/23.2/35.8 mm, constant velocity 2.4/6.6/12.8/24.3."""
    steps = {3: (6.7, 2.4), 8: (14.3, 6.6), 15: (23.2, 12.8), 30: (35.8, 24.3)}
    for horizon, (hold_mm, velocity_mm) in steps.items():
        errors = []
        for number in range(36, 44):
            wrist = right_wrist(number)
            for now in range(3, len(wrist) - horizon):
                if np.linalg.norm(np.diff(wrist[now - 3 : now + 1], axis=0), axis=1).mean() * 15 <= 0.03:
                    continue
                future = wrist[now + 1 : now + horizon + 1] - wrist[now]
                straight = np.cumsum(0.9 ** np.arange(1, horizon + 1))[:, None] * (wrist[now] - wrist[now - 2]) / 2
                errors.append([np.linalg.norm(e, axis=1).mean() * 1000 for e in (future, future - straight)])
        assert np.mean(errors, axis=0) == pytest.approx([hold_mm, velocity_mm], rel=0.08)
