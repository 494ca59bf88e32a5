"""LeRobot's ACT beside ours: messages to another process, and the row of `wm bench`."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest

from wm_ros.errors import UserError
from wm_ros.evaluation import lerobot_peer
from wm_ros.evaluation.bench import measure
from wm_ros.evaluation.bench_policy import policy_rows
from wm_ros.evaluation.lerobot_peer import LerobotPeer, receive, send

NEEDS_LEROBOT = "set WM_LEROBOT to the Python of a virtual environment with lerobot (see tools/lerobot_act.py)"


def test_messages_arrive_as_they_were_sent() -> None:
    stream = io.BytesIO()
    rgb = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    state = np.array([0.1, -2.5], np.float32)
    send(stream, {"do": "act", "task": "öffne\ndie Lade"}, {"camera": rgb[:, ::-1], "state": state})
    send(stream, {"seconds": 0.25})
    stream.seek(0)
    first, second, end = receive(stream), receive(stream), receive(stream)
    assert first is not None and first[0] == {"do": "act", "task": "öffne\ndie Lade"}
    assert first[1].keys() == {"camera", "state"}
    np.testing.assert_array_equal(first[1]["camera"], rgb[:, ::-1])
    np.testing.assert_array_equal(first[1]["state"], state)
    assert second == ({"seconds": 0.25}, {}) and end is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"Loading weights from local directory\n", "Expecting value"),
        (b"[1]\n", "JSON object"),
        (json.dumps({"arrays": [["state", "float32", [4]]]}).encode() + b"\n12345", "'state': 5 of 16 bytes"),
        (json.dumps({"arrays": [["state", "object", [4]]]}).encode() + b"\n", "uint8 or float32"),
        (json.dumps({"arrays": [["state", "uint8", [-1, -4]]]}).encode() + b"\n1234", "uint8 or float32"),
        (json.dumps({"arrays": [["state", "uint8", [2**40]]]}).encode() + b"\n", "bytes at most"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        receive(io.BytesIO(data))


def test_without_lerobot_the_row_has_no_peer_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lerobot_peer.VARIABLE, raising=False)
    (row,) = policy_rows()
    assert row.name == "action_chunk" and row.peers == {}
    one, two = measure([row], 2)
    assert (one["threads"], two["threads"]) == (1, 2) and 0 < one["ours"]["p50_ms"] < 10_000
    assert "WM_LEROBOT" in one["no_peer"] and one["parameters"] > 100_000


def test_a_python_without_lerobot_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lerobot_peer.VARIABLE, "/bin/false")
    with pytest.raises(UserError, match="ended with exit code 1"):
        LerobotPeer("--untrained")
    monkeypatch.setenv(lerobot_peer.VARIABLE, "/no/python")
    with pytest.raises(UserError, match="'/no/python' does not run"):
        LerobotPeer("--untrained")


@pytest.mark.skipif(not os.environ.get(lerobot_peer.VARIABLE), reason=NEEDS_LEROBOT)
def test_lerobots_act_answers_and_is_timed() -> None:
    parameters = 300_000
    with LerobotPeer("--untrained", "--parameters", str(parameters), "--chunk", "12") as peer:
        about = peer.about
        assert abs(about["runtime_parameters"] / parameters - 1) < 0.01 < about["parameters"] / parameters - 1
        with pytest.raises(UserError, match="before its time"):
            peer.time_s(1)
        size = (about["height"], about["width"], 3)
        black = {camera: np.zeros(size, np.uint8) for camera in about["cameras"]}
        state, task = [0.0, 0.6, 0.2, 1.0], about["tasks"][0]
        chunk = peer.act(black, np.array(state), task)
        assert chunk.shape == (12, 4) and chunk.dtype == np.float32 and np.isfinite(chunk).all()
        np.testing.assert_array_equal(chunk, peer.act(black, np.array(state), task))
        one_white = black | {about["cameras"][1]: np.full(size, 255, np.uint8)}
        others = [
            peer.act(one_white, np.array(state), task),
            peer.act(black, np.array([0.1, *state[1:]]), task),
            peer.act(black, np.array(state), about["tasks"][1]),
        ]
        assert all(np.abs(other - chunk).max() > 1e-5 for other in others)
        assert 0 < peer.time_s(1) < 60 and 0 < peer.time_s(2) < 60
        with pytest.raises(UserError, match="'wrist_camera' is missing"):
            peer.act({"camera": black["camera"]}, np.array(state), task)
        with pytest.raises(UserError, match=r"'state' is float32 \(3,\); it takes float32 \(4,\)"):
            peer.act(black, np.array(state[:3]), task)
        with pytest.raises(UserError, match="no task 'dance' was trained; these were: task 0"):
            peer.act(black, np.array(state), "dance")
        np.testing.assert_array_equal(chunk, peer.act(black, np.array(state), task))  # a refusal does no harm


@pytest.mark.skipif(not os.environ.get(lerobot_peer.VARIABLE), reason=NEEDS_LEROBOT)
def test_ours_is_timed_beside_an_act_of_equal_size() -> None:
    (row,) = policy_rows()
    one, two = measure([row], 1)
    assert list(one["peers"]) == ["lerobot_act_1_thread", "lerobot_act_2_thread"] and one["peers"] == two["peers"]
    assert all(peer["p50_ms"] > 0 for peer in one["peers"].values())
    assert abs(one["peer_parameters"] / one["parameters"] - 1) < 0.01
