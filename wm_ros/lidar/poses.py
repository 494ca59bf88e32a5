"""Where the sensor was: odometry by interpolation, or by a short extrapolation at constant velocity; never a guess."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.spatial.transform import Rotation

from wm_ros.lidar.grid import Double
from wm_ros.types import EgoPose

KEEP_S = 5.0
NANO = 1e9


class PoseTrack:
    """Odometry of the last seconds.

    Attributes:
        newest_ns: stamp of the newest pose, None before the first.
        body: the frame that the poses are of.
    """

    def __init__(self, extrapolate_s: float) -> None:
        self.extrapolate_s = extrapolate_s
        self.clear()

    def clear(self) -> None:
        self._poses: deque[EgoPose] = deque()
        self.newest_ns: int | None = None
        self.body = ""

    def add(self, pose: EgoPose) -> bool:
        """Take a pose. False, and everything before is forgotten, if the clock jumped back or the frames changed."""
        continues = True
        if self._poses:
            last = self._poses[-1]
            continues = pose.stamp_ns >= last.stamp_ns and pose.frame_id == last.frame_id
            continues = continues and pose.child_frame_id == last.child_frame_id
        if not continues:
            self.clear()
        if self.newest_ns == pose.stamp_ns:
            self._poses.pop()
        self._poses.append(pose)
        self.newest_ns, self.body = pose.stamp_ns, pose.child_frame_id
        while pose.stamp_ns - self._poses[0].stamp_ns > KEEP_S * NANO:
            self._poses.popleft()
        return continues

    def at(self, stamp_ns: int) -> tuple[Double | None, str]:
        """Pose (4, 4) of the body in odom at `stamp_ns`; None and why where it is not known."""
        if not self._poses:
            return None, "no odometry: ego-motion is unknown"
        first, last = self._poses[0], self._poses[-1]
        if stamp_ns > last.stamp_ns:
            ahead_s = (stamp_ns - last.stamp_ns) / NANO
            if ahead_s > self.extrapolate_s:
                return None, f"odometry is {ahead_s:.2f} s older than the sweep (at most {self.extrapolate_s:g} s)"
            return self._extrapolate(ahead_s), ""
        if stamp_ns < first.stamp_ns:
            return None, f"odometry begins {(first.stamp_ns - stamp_ns) / NANO:.2f} s after the sweep"
        stamps = [pose.stamp_ns for pose in self._poses]
        after = int(np.searchsorted(stamps, stamp_ns))
        later = self._poses[after]
        if later.stamp_ns == stamp_ns:
            return later.matrix, ""
        earlier = self._poses[after - 1]
        gap_s = (later.stamp_ns - earlier.stamp_ns) / NANO
        if gap_s > 1.0:
            return None, f"odometry has a gap of {gap_s:.2f} s around the sweep"
        share = (stamp_ns - earlier.stamp_ns) / (later.stamp_ns - earlier.stamp_ns)
        return _between(earlier.matrix, later.matrix, share), ""

    def _extrapolate(self, ahead_s: float) -> Double | None:
        last = self._poses[-1]
        if np.any(last.linear_mps) or np.any(last.angular_radps):
            change = np.eye(4)
            change[:3, :3] = Rotation.from_rotvec(last.angular_radps * ahead_s).as_matrix()
            change[:3, 3] = last.linear_mps * ahead_s
            return last.matrix @ change
        if len(self._poses) < 2:
            return last.matrix  # twist zero or not given, and nothing else known: it stands
        before = self._poses[-2]
        share = ahead_s * NANO / (last.stamp_ns - before.stamp_ns)
        return _between(before.matrix, last.matrix, 1.0 + share)


def _between(first: Double, second: Double, share: float) -> Double:
    """Pose at `share` of the way, beyond 1 on the same screw of translation and rotation apart."""
    pose = np.eye(4)
    turn = Rotation.from_matrix(first[:3, :3].T @ second[:3, :3]).as_rotvec()
    pose[:3, :3] = first[:3, :3] @ Rotation.from_rotvec(turn * share).as_matrix()
    pose[:3, 3] = (1 - share) * first[:3, 3] + share * second[:3, 3]
    return pose


def is_pose(matrix: Double) -> bool:
    """Finite, (4, 4), and a rotation."""
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        return False
    return bool(np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3))
