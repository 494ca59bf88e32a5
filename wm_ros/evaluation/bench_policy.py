"""Row of `wm bench`: a chunk of actions, from what the policy is triggered by, beside LeRobot's ACT of equal size.

Ours is one whole `Policy.step`. The peer is ACT as LeRobot builds it, shrunk in proportion until as many parameters run
as of ours (the encoder of its variational objective, which training alone uses, does not count), with two cameras of
96 × 96, untrained: its weights do not change its time. It is timed in its own process, from pictures in memory to
set points in their unit, between two runs of ours. Without the variable WM_LEROBOT the row has no peer, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from wm_ros.capability import Capability, load
from wm_ros.data.simulator import tabletop_samples
from wm_ros.errors import UserError
from wm_ros.evaluation.bench import Row
from wm_ros.evaluation.bench_steps import inputs, stepper
from wm_ros.evaluation.lerobot_peer import LerobotPeer
from wm_ros.paths import MODELS, bundle_path
from wm_ros.types import Frame, Instruction, Joints, Sample, WristFrame

SIZE_PX = 96
TICK_NS = 12_500_000
BUNDLES = ("policy-metaworld", "policy-lite")
"""The first one that is there: one that sees pictures itself is what ACT compares with."""


def policy_rows(bundle: str = "") -> list[Row]:
    """`action_chunk`. `bundle`: of the policy; the first of `BUNDLES` by default."""
    bundle = bundle or next(name for name in BUNDLES if (MODELS / name).is_dir())
    policy = load("policy", bundle_path(bundle))
    parameters = runtime_parameters(policy)
    facts: dict[str, Any] = {"bundle": bundle, "parameters": parameters}
    peers: dict[str, Callable[[], float]] = {}
    try:
        peer = LerobotPeer("--untrained", "--parameters", str(parameters))  # it ends with this process
    except UserError as error:
        facts["no_peer"] = str(error)
    else:
        about, rng = peer.about, np.random.default_rng(0)
        size = (about["height"], about["width"], 3)
        images = {camera: rng.integers(0, 256, size, np.uint8) for camera in about["cameras"]}
        peer.act(images, np.zeros(len(about["state_names"])), about["tasks"][0])
        peers = {f"lerobot_act_{threads}_thread": partial(peer.time_s, threads) for threads in (1, 2)}
        facts["peer_parameters"] = about["runtime_parameters"]
    return [Row("action_chunk", stepper(policy, policy_inputs(policy)), peers=peers, facts=lambda *_: facts)]


def policy_inputs(policy: Capability) -> list[Sample]:
    """What the policy takes, its trigger last: made-up pictures and joints, or the state tokens of a grasp."""
    if Frame not in policy.inputs:
        return inputs("policy", list(tabletop_samples(seed=1, seconds=4.0, width=256, height=192)))
    names: tuple[str, ...] = policy.config.joint_names  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    found: list[Sample] = [Instruction(0, "", "reach the red ball")]
    for tick in range(1, 81):
        stamp_ns = tick * TICK_NS
        wrist, camera = rng.integers(0, 256, (2, SIZE_PX, SIZE_PX, 3), np.uint8)
        found += [
            Joints(stamp_ns, "base", names, 0.1 * rng.standard_normal(len(names))),
            WristFrame(stamp_ns, "wrist_camera", wrist),
            Frame(stamp_ns, "camera", camera),
        ]
    return found


def runtime_parameters(policy: Capability) -> int:
    """Parameters of all modules that the capability holds."""
    modules = nn.ModuleList(value for value in vars(policy).values() if isinstance(value, nn.Module))
    return sum(p.numel() for p in modules.parameters())
