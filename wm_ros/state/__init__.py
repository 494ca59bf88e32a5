"""State: a camera image becomes two compact tokens (StaMo); the difference of two states is a motion.

`features` (patches) → `compressor` (two tokens) → `decoder` (rectified flow on latents); `linear` is the shortcut by
principal components from which training starts; `model` joins them and `capability` runs them.
"""

from wm_ros.state.capability import StateCapability

CAPABILITY = StateCapability

__all__ = ["CAPABILITY", "StateCapability"]
