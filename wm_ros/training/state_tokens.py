"""State tokens of aligned frames, by the same preprocessing and model that run on the robot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wm_ros.bundle import tokens_checksum
from wm_ros.paths import bundle_path
from wm_ros.state import CAPABILITY
from wm_ros.training.aligned import Aligned
from wm_ros.training.future_windows import encoded


def state_tokens(aligned: list[Aligned], bundle: str, every: int = 1, device: str = "cpu") -> tuple[list[Aligned], str]:
    """Add `tokens` to each source.

    Args:
        bundle: folder of a state bundle, or the name of a shipped one.
        every: only every so manyth image of an episode is encoded, which is the slow part; tokens are NaN in between.

    Returns:
        the sources with tokens, and the `tokens_sha256` of the bundle.

    Raises:
        UserError: there is no such bundle, or it is damaged.
    """
    path = bundle_path(bundle)
    capability = CAPABILITY.from_bundle(path, device)
    sha256 = tokens_checksum(path)

    def tokens_of(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return capability.tokenize(np.stack([capability.preprocess(rgb) for rgb in frames]))

    sources = []
    for source in aligned:
        tokens = encoded(source, every, tokens_of, sha256)
        if every > 1:
            steps = np.concatenate([np.arange(count) for count in np.diff(source.starts)])
            tokens[steps % every != 0] = np.nan
        sources.append(replace(source, arrays={**source.arrays, "tokens": tokens}))
    return sources, sha256
