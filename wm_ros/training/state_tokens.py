"""State tokens of aligned frames, by the same preprocessing and model that run on the robot."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from wm_ros.paths import bundle_path
from wm_ros.state import CAPABILITY
from wm_ros.training.aligned import Aligned, with_tokens


def state_tokens(aligned: list[Aligned], bundle: str, device: str = "cpu") -> tuple[list[Aligned], str]:
    """Add `tokens` to each source.

    Args:
        bundle: folder of a state bundle, or the name of a shipped one.

    Returns:
        the sources with tokens, and `weights_sha256` of the bundle.

    Raises:
        UserError: there is no such bundle, or it is damaged.
    """
    path = bundle_path(bundle)
    capability = CAPABILITY.from_bundle(path, device)
    sha256 = str(json.loads((path / "config.json").read_text())["weights_sha256"])

    def tokens_of(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return capability.tokenize(np.stack([capability.preprocess(rgb) for rgb in frames]))

    return [with_tokens(source, tokens_of, sha256) for source in aligned], sha256
