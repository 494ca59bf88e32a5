"""What is around: a LiDAR sweep becomes a bird's-eye-view embedding, and that the occupancy of the next seconds."""

from wm_ros.lidar.capability import Lidar

CAPABILITY = Lidar

__all__ = ["CAPABILITY", "Lidar"]
