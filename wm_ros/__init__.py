"""wm_ros: embodied prediction for ROS 2 (LiDAR, camera state, future and policy)."""

__version__ = "0.1.0"
