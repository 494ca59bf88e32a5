"""wm_ros: embodied prediction for ROS 2 (LiDAR, camera state, future and policy)."""

import os

# Before torch is loaded: its waiting threads spin for some ten microseconds, then sleep. By default they spin for
# milliseconds and keep other nodes from their core; sleeping at once makes small steps on two threads twice as slow.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
