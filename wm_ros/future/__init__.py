"""What comes next: the hands' trajectories first, then the frames that the camera will see on that trajectory.

Ego-PM (arXiv 2508.19852): stage I models two consecutive states, the instruction and the past actions; stage II is a
latent diffusion of the frames, conditioned through causal cross-attention on the trajectory of stage I.
"""

from wm_ros.future.capability import FutureCapability

CAPABILITY = FutureCapability

__all__ = ["CAPABILITY", "FutureCapability"]
