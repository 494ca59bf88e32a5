"""The robot that the camera sees: links of its arms, and hands whose fingers move with the six hand joints."""

from __future__ import annotations

import numpy as np

from wm_ros.data.simulator.tabletop_shapes import Double, Part, box, capsule, merged, moved
from wm_ros.kinematics import Arm, rotation

_KNUCKLES_M = ((0.112, 0.028), (0.118, 0.0095), (0.116, -0.0095), (0.109, -0.028))  # x, z; index to little finger
_PHALANGES_M = (0.042, 0.036)
_THUMB_M = (0.045, 0.036)


def arm_parts(arm: Arm, shell: Double, metal: Double, dark: Double) -> list[tuple[int, Part]]:
    """The links of an arm as (number of the joint frame that carries it, part)."""
    reach = [arm.offsets_m[i] for i in range(7)]
    return [
        (1, capsule((0, 0, 0), reach[2], 0.045, dark)),
        (2, capsule((0, 0, 0), reach[3], 0.042, metal)),
        (
            3,
            merged(capsule((0, 0, 0), 0.55 * reach[4], 0.036, metal), capsule((0, -0.03, 0), (0, 0.03, 0), 0.03, dark)),
        ),
        (
            4,
            merged(
                capsule(-0.35 * reach[4], (0.02, 0, 0), 0.03, metal), capsule((0.0, 0, 0), (0.012, 0, 0), 0.033, shell)
            ),
        ),
        (5, capsule((0, 0, 0), reach[6], 0.027, dark)),
        (6, capsule((0, 0, 0), (0.03, 0, 0), 0.026, metal)),
    ]


def hand_parts(shell: Double, dark: Double) -> list[Part]:
    """Palm, four fingers of two phalanges, thumb of two: eleven parts, in the order of `hand_frames`."""
    palm = merged(
        moved(box((0.082, 0.026, 0.072), dark), (0.07, 0, 0)),
        capsule((0.04, 0, 0.02), (0.1, 0, 0.024), 0.017, shell),
        capsule((0.04, 0, -0.016), (0.1, 0, -0.024), 0.017, dark),
    )
    fingers = [
        part
        for _ in _KNUCKLES_M
        for part in (
            capsule((0, 0, 0), (_PHALANGES_M[0], 0, 0), 0.009, shell),
            capsule((0, 0, 0), (_PHALANGES_M[1], 0, 0), 0.0085, dark, 0.8),
        )
    ]
    thumb = [
        capsule((0, 0, 0), (_THUMB_M[0], 0, 0), 0.0115, shell),
        capsule((0, 0, 0), (_THUMB_M[1], 0, 0), 0.01, dark, 0.8),
    ]
    return [palm, *fingers, *thumb]


def hand_frames(fingers: Double, side: str) -> Double:
    """Poses (…, 11, 4, 4) of a hand's parts in the wrist frame.

    Args:
        fingers: (…, 6) hand joints in the order of `kinematics.HAND_JOINTS`, 1 = open, 0 = closed.
    """
    inward = 1.0 if side == "right" else -1.0  # the palm looks along +y on the right hand
    curl = 1.0 - np.clip(fingers, 0.0, 1.0)
    frames = np.zeros((*fingers.shape[:-1], 11, 4, 4))
    frames[..., :, :, :] = np.eye(4)
    for i, (x, z) in enumerate(_KNUCKLES_M):
        bend = curl[..., 3 - i]
        _chain(
            frames, 1 + 2 * i, (x, 0.0, z), rotation("z", inward * 1.45 * bend), rotation("z", inward * 1.6 * bend), 0
        )
    aside = 1.0 - curl[..., 5]  # 1: beside the palm, 0: opposing the fingers
    base = rotation("x", inward * (0.35 + 1.0 * aside)) @ rotation("z", np.full(aside.shape, inward * 0.95))
    bend = curl[..., 4]
    _chain(
        frames,
        9,
        (0.045, inward * 0.01, 0.022),
        base @ rotation("z", -inward * 0.35 * bend),
        rotation("z", -inward * 0.9 * bend),
        1,
    )
    return frames


def _chain(
    frames: Double, first: int, base: tuple[float, float, float], turn: Double, bend: Double, thumb: int
) -> None:
    """Fill the frames of a finger's two phalanges."""
    length = (_PHALANGES_M, _THUMB_M)[thumb][0]
    frames[..., first, :3, :3] = turn
    frames[..., first, :3, 3] = base
    frames[..., first + 1, :3, :3] = turn @ bend
    frames[..., first + 1, :3, 3] = np.asarray(base) + turn[..., :, 0] * length
