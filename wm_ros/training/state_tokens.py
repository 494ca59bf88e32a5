"""State tokens of aligned frames, by the same `step` that runs on the robot."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from wm_ros.capability import load
from wm_ros.errors import BundleError
from wm_ros.paths import bundle_path
from wm_ros.training.aligned import Aligned, with_tokens
from wm_ros.types import Frame, StatePrediction


def state_tokens(aligned: list[Aligned], bundle: str, device: str = "cpu") -> tuple[list[Aligned], str]:
    """Add `tokens` to each source.

    Args:
        bundle: folder of a state bundle, or the name of a shipped one.

    Returns:
        the sources with tokens, and `weights_sha256` of the bundle.
    """
    path = bundle_path(bundle)
    capability = load("state", path, device)
    capability.wanted = set()  # no picture is drawn back
    sha256 = str(json.loads((path / "config.json").read_text())["weights_sha256"])

    def tokens_of(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = []
        for rgb in frames:
            prediction = capability.step(Frame(0, "camera", rgb))
            if not isinstance(prediction, StatePrediction):
                raise BundleError(f"bundle '{path}' gives no state: {capability.withheld}; choose another state bundle")
            found.append(prediction.tokens.tokens)
        return np.stack(found)

    return [with_tokens(source, tokens_of, sha256) for source in aligned], sha256
