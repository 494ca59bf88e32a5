"""Real nodes over real DDS, on a domain of this process alone."""

from __future__ import annotations

import os
import tempfile

# Before anything imports rclpy: other test processes and robots on this network stay out.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="wm_ros_log_")

import pytest
from workbench import Workbench

from wm_ros.up import ros_environment

os.environ |= ros_environment()


@pytest.fixture
def bench():
    """One executor for a node under test and a driver that plays the world and listens."""
    workbench = Workbench()
    yield workbench
    workbench.close()
