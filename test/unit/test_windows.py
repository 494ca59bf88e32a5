"""Episodes on a grid: latest sample held on header stamps, joints by name, caches, windows and their pad masks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wm_ros.data.sources import Episode
from wm_ros.errors import UserError
from wm_ros.training import aligned as aligned_module
from wm_ros.training.grid import on_grid
from wm_ros.training.windows import Aligned, Windows, align, split_episodes, with_tokens
from wm_ros.types import BevTokens, Frame, HandTrajectory, Instruction, JointCommand, Joints, Sample

SECOND = 1_000_000_000
START = 1000 * SECOND


def stamp(step: float, rate_hz: float = 15.0) -> int:
    return START + round(step * SECOND / rate_hz)


def frame(step: float, value: int = 0) -> Frame:
    return Frame(stamp(step), "camera", np.full((12, 16, 3), value, np.uint8))


def joints(step: float, a: float, b: float = 0.0, names: tuple[str, ...] = ("a", "b")) -> Joints:
    return Joints(stamp(step), "", names, np.asarray([a, b]))


def recording(steps: int, names: tuple[str, ...] = ("a", "b"), text: str = "go") -> list[Sample]:
    """Joints whose first value is the step; from step 2 on commands; a left hand at x = step."""
    samples: list[Sample] = [Instruction(START, "", text)]
    for step in range(steps):
        values = {"a": float(step), "b": -float(step)}
        position = np.asarray([values[name] for name in names])
        samples.append(Joints(stamp(step), "", names, position))
        if step >= 2:
            samples.append(JointCommand(stamp(step), "", names, position + 100))
        hand = np.asarray([[step, 0, 0], [99, 0, 0]], np.float32)
        samples.append(HandTrajectory(stamp(step), "torso", "left", np.asarray([0.0, 0.1]), hand, np.ones(2, bool)))
        samples.append(frame(step, step))
    return samples


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Sample]]:
    """Episodes by name, which `align` finds under any source."""
    recordings: dict[str, list[Sample]] = {}

    def listed(source: str) -> list[Episode]:
        return [
            Episode(name, "Apache-2.0", lambda samples=samples: iter(samples)) for name, samples in recordings.items()
        ]

    monkeypatch.setattr(aligned_module, "episodes", listed)
    return recordings


def aligned(cache: Path, names: tuple[str, ...] = ("a", "b")) -> Aligned:
    return align("somewhere", names, cache, width=16, height=12)


def test_grid_holds_the_newest_sample_by_stamp_and_never_a_later_one() -> None:
    fast: list[Sample] = [joints(k / 4, k / 4) for k in range(60)]  # 60 Hz joints, 5 Hz images
    slow: list[Sample] = [frame(3 * k, k) for k in range(5)]
    samples = sorted(fast + slow, key=lambda s: (s.stamp_ns, isinstance(s, Frame)))
    steps = list(on_grid(samples, 15.0))
    assert [s.joints.position_rad[0] for s in steps if s.joints] == list(range(13))
    assert [int(s.frame.rgb[0, 0, 0]) for s in steps if s.frame] == [k // 3 for k in range(13)]


def test_grid_tolerates_rounded_stamps_but_not_late_ones() -> None:
    def late(ns: int) -> list[float]:
        samples: list[Sample] = []
        for k in range(4):
            shift = ns if k else 0
            samples += [
                Joints(stamp(k) + shift, "", ("a",), np.asarray([float(k)])),
                Frame(stamp(k) + shift, "", frame(0).rgb),
            ]
        return [float(s.joints.position_rad[0]) for s in on_grid(samples, 15.0) if s.joints]

    assert late(1_000_000) == [0, 1, 2, 3]
    assert late(20_000_000) == [0, 0, 1, 2]


def test_grid_ends_with_the_last_image() -> None:
    samples: list[Sample] = [joints(0, 0), frame(0), joints(1, 1), frame(1)]
    samples += [joints(k, k) for k in range(2, 30)]
    assert len(list(on_grid(samples, 15.0))) == 2


def test_nothing_is_given_before_image_and_joints_are_known() -> None:
    assert list(on_grid([frame(k) for k in range(5)], 15.0)) == []
    assert list(on_grid([joints(k, k) for k in range(5)], 15.0)) == []
    late: list[Sample] = [frame(0, 7), joints(2, 2), frame(3, 8)]
    assert [int(s.frame.rgb[0, 0, 0]) for s in on_grid(late, 15.0) if s.frame] == [7, 8]


def test_arrays_hold_what_was_recorded(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    source["one"] = recording(5)
    source["two"] = recording(3, text="stop")
    got = aligned(tmp_path)
    assert got.starts.tolist() == [0, 5, 8] and got.episodes == ("one", "two") and got.licences == ("Apache-2.0",)
    assert got["joints"][:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert np.isnan(got["commands"][:2]).all() and got["commands"][2].tolist() == [102, 98]
    assert got["hands"][:5, 0, 0].tolist() == [0, 1, 2, 3, 4] and np.isnan(got["hands"][:, 1]).all()
    assert [got.texts[i] for i in got["text"]] == ["go"] * 5 + ["stop"] * 3
    assert got["phase"][:5].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert got["frames"][4].tolist() == np.full((12, 16, 3), 4).tolist()
    assert "bev" not in got.arrays


def test_joints_are_taken_by_name(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    source["straight"] = recording(4, ("a", "b"))
    source["shuffled"] = recording(4, ("b", "a"))
    got = aligned(tmp_path)
    assert np.array_equal(got["joints"][:4], got["joints"][4:])
    assert aligned(tmp_path, ("b",))["joints"].tolist() == [[-float(k)] for k in range(4)] * 2


def test_a_missing_joint_is_named(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    source["one"] = recording(4)
    with pytest.raises(UserError, match=r"'one'.*'elbow'"):
        aligned(tmp_path, ("a", "elbow"))


def test_bev_tokens_are_nan_until_the_first(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    bev = BevTokens(stamp(2), "lidar", np.ones((4, 3), np.float32))
    source["one"] = sorted([*recording(4), bev], key=lambda s: (s.stamp_ns, isinstance(s, Frame)))
    got = aligned(tmp_path)["bev"]
    assert got.shape == (4, 4, 3) and np.isnan(got[:2]).all() and (got[2:] == 1).all()


def test_cache_is_read_and_not_used_for_other_data(
    source: dict[str, list[Sample]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source["one"] = recording(4)
    first = aligned(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(aligned_module, "_write", lambda *_: pytest.fail("made again"))
        assert aligned(tmp_path).folder == first.folder
    source["one"] = recording(6)
    assert len(aligned(tmp_path)) == 6


def test_an_interrupted_cache_is_made_again(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    source["one"] = recording(4)
    good = source["one"]
    source["two"] = [joints(0, 0, names=("x", "y")), frame(0), frame(1)]
    with pytest.raises(UserError):
        aligned(tmp_path)
    assert not list(tmp_path.glob("*/meta.json"))
    source["two"] = good
    assert len(aligned(tmp_path)) == 8


def test_tokens_are_computed_once_per_state_model(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    calls = []

    def mean_colour(frames: np.ndarray) -> np.ndarray:
        calls.append(len(frames))
        return np.repeat(frames.mean((1, 2, 3))[:, None, None], 2, axis=1).astype(np.float32)

    source["one"] = recording(5)
    got = aligned(tmp_path)
    assert with_tokens(got, mean_colour, "state-1", batch=2)["tokens"][:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert calls == [2, 2, 1]
    with_tokens(got, mean_colour, "state-1")
    assert len(calls) == 3
    with_tokens(got, mean_colour, "state-2")
    assert len(calls) == 4


def test_windows_mask_exactly_what_is_outside_the_episode(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    source["one"] = recording(5)
    source["two"] = recording(4)
    data = Windows([(aligned(tmp_path), [0, 1])], history=3, future=2, past=("joints",), ahead=("joints", "commands"))
    assert len(data) == 4 + 3  # the last step of each has nothing ahead
    first, last = data[0], data[3]
    assert first["joints"][:, 0].tolist() == [0, 0, 0] and first["pad"].tolist() == [True, True, False]
    assert first["joints_future"][:, 0].tolist() == [1, 2] and first["pad_future"].tolist() == [False, False]
    assert last["joints_future"][:, 0].tolist() == [4, 4] and last["pad_future"].tolist() == [False, True]
    second = data[4]
    assert second["joints"][:, 0].tolist() == [0, 0, 0]  # nothing of episode one
    assert (int(second["episode"]), int(second["step"])) == (1, 0)


def test_windows_of_several_sources_share_one_list_of_texts(source: dict[str, list[Sample]], tmp_path: Path) -> None:
    source["one"] = recording(3, text="red")
    red = aligned(tmp_path)
    source["one"] = recording(3, text="blue")
    blue = aligned(tmp_path)
    data = Windows([(red, [0]), (blue, [0])], 1, 1, past=("joints",), ahead=("joints",))
    assert [data.texts[int(data[i]["text"])] for i in range(len(data))] == ["red", "red", "blue", "blue"]
    batch = next(iter(torch.utils.data.DataLoader(data, batch_size=4)))
    assert batch["joints"].shape == (4, 1, 2) and batch["pad_future"].dtype == torch.bool


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
def test_whole_episodes_go_to_one_side(count: int) -> None:
    train, validation = split_episodes(count, 0.1, seed=3)
    assert train and validation
    assert set(train) | set(validation) == set(range(count))
    assert count == 1 or not set(train) & set(validation)
    assert (train, validation) == split_episodes(count, 0.1, seed=3)
