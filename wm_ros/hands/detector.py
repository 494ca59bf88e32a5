"""Who finds hands in an image. One small interface, and MediaPipe's hand model behind it.

MediaPipe Hands (Zhang et al. 2020, arXiv:2006.10214; Apache-2.0) finds palms, then 21 landmarks in each, and from then
on looks where the hand was until the landmark model no longer says that there is one. Its weights lie in the wheel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wm_ros.errors import UserError
from wm_ros.types import Float

MAX_HANDS = 4  # a wearer has two; others may reach in, and the tracker of sides chooses
REMEDY = "pip install 'wm_ros[hands]' && pip install --no-deps mediapipe==0.10.21 (Python 3.9 to 3.12)"


@dataclass(frozen=True)
class Found:
    """One hand in one image.

    Attributes:
        box: (4,) float32 as in `HandTrajectory` of kind "box": centre u, v, width, height, shares of the image.
        side: "left" or "right" as the detector thinks, for a camera whose image is not mirrored.
        score: how sure it is of that side, 0..1.
    """

    box: Float
    side: str
    score: float


class Detector(Protocol):
    """Finds hands in images that follow each other."""

    def find(self, rgb: NDArray[np.uint8]) -> list[Found]:
        """Hands in an image (H, W, 3), in no particular order."""

    def reset(self) -> None:
        """Forget the images before: another recording begins."""


class MediapipeDetector:
    """MediaPipe's hands; a box is the smallest around the 21 landmarks, cut at the edge of the image."""

    def __init__(self, confidence: float = 0.5, video: bool = True) -> None:
        """Args: confidence: below it a palm, or a hand that was followed, is none. video: images follow each other.

        Raises:
            UserError: MediaPipe, or what it needs, is not installed.
        """
        try:
            from mediapipe.python.solutions import hands
        except ImportError as error:
            raise UserError(f"finding hands needs the module '{error.name}': {REMEDY}") from None
        self._open = lambda: hands.Hands(
            static_image_mode=not video,
            max_num_hands=MAX_HANDS,
            min_detection_confidence=confidence,
            min_tracking_confidence=confidence,
        )
        self._hands: Any = self._open()

    def find(self, rgb: NDArray[np.uint8]) -> list[Found]:
        answer = self._hands.process(np.ascontiguousarray(rgb))
        found = []
        for landmarks, sides in zip(answer.multi_hand_landmarks or [], answer.multi_handedness or [], strict=True):
            points = np.array([[p.x, p.y] for p in landmarks.landmark], np.float32).clip(0, 1)
            low, high = points.min(axis=0), points.max(axis=0)
            # The model was taught with mirrored images of a front camera: its left is our right.
            side = "left" if sides.classification[0].label == "Right" else "right"
            if (high > low).all():
                found.append(Found(np.concatenate([(low + high) / 2, high - low]), side, sides.classification[0].score))
        return found

    def reset(self) -> None:
        self._hands.close()
        self._hands = self._open()
