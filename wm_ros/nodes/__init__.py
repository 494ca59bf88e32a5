"""The ROS skin: one thin lifecycle node per capability, the monitor, the player and the recorder."""
