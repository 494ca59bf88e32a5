"""wm_ros: embodied prediction for ROS 2 (LiDAR, camera state, future and policy)."""

import os

# Before torch is loaded: its waiting threads sleep. By default they spin, and where two cores serve several nodes or a
# training beside them, one that spins keeps the one that works from its core (a training step: four times as slow).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
