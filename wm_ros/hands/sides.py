"""Which hand is which over time: the detector's word for one image, held steady by where the hands were."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from wm_ros.hands.detector import Found
from wm_ros.topics import SIDES
from wm_ros.types import Float

MEMORY_S = 0.5  # a hand that was last seen longer ago may be anywhere
SAME = 0.5  # boxes of one image that overlap more are the same hand, found twice
WORD = 0.5  # weight of the detector's word beside an overlap of 0..1 with the box before
ORDER = 0.1  # of two hands that nothing else tells apart, the left one is on the left


class SideTracker:
    """Gives each hand in an image its side; at most one hand to a side. It remembers boxes and never makes one up."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, Found]] = {}

    def step(self, stamp_ns: int, found: list[Found]) -> dict[str, Found | None]:
        """Side → the hand that was found of it in this image, or None. Stamps ascend; one that does not starts anew."""
        if any(stamp_ns < last_ns for last_ns, _ in self._last.values()):
            self._last.clear()
        chosen = max(permutations([*_distinct(found), None, None], len(SIDES)), key=lambda c: self._score(stamp_ns, c))
        sides = dict(zip(SIDES, chosen, strict=True))
        self._last |= {side: (stamp_ns, hand) for side, hand in sides.items() if hand is not None}
        return sides

    def _score(self, stamp_ns: int, chosen: tuple[Found | None, ...]) -> tuple[int, float]:
        """How good a choice is: as many hands as there are, then overlap with before, the detector's word, order."""
        points = 0.0
        for side, hand in zip(SIDES, chosen, strict=True):
            if hand is None:
                continue
            last_ns, before = self._last.get(side, (0, None))
            if before is not None and stamp_ns - last_ns <= MEMORY_S * 1e9:
                points += overlap(hand.box, before.box)
            points += WORD * (hand.score if hand.side == side else 1 - hand.score)
        left, right = chosen
        if left is not None and right is not None:
            points += ORDER * float(left.box[0] < right.box[0])
        return sum(hand is not None for hand in chosen), points


def overlap(one: Float, other: Float) -> float:
    """Intersection over union of two boxes (4,): centre u, v, width, height."""
    low = np.maximum(one[:2] - one[2:] / 2, other[:2] - other[2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, other[:2] + other[2:] / 2)
    shared = float(np.prod(np.clip(high - low, 0, None)))
    return shared / max(float(np.prod(one[2:]) + np.prod(other[2:])) - shared, 1e-12)


def _distinct(found: list[Found]) -> list[Found]:
    """Hands by falling score, without those that were found twice."""
    kept: list[Found] = []
    for hand in sorted(found, key=lambda hand: -hand.score):
        if all(overlap(hand.box, other.box) < SAME for other in kept):
            kept.append(hand)
    return kept
