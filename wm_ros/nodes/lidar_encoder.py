"""`points`, `odom` → `bev/…`: a bird's-eye-view embedding of each sweep, road users and the occupancy to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from wm_ros.capability import Capability
from wm_ros.lidar import sparse
from wm_ros.nodes.base import CapabilityNode
from wm_ros.nodes.runner import run
from wm_ros.types import EgoPose


class LidarEncoder(CapabilityNode):
    """Without odometry there are tokens but no occupancy: ego-motion is not guessed."""

    name = "lidar_encoder"
    capability_name = "lidar"
    optional_inputs = (EgoPose,)
    lazy_outputs: ClassVar[dict[str, tuple[str, ...]]] = {
        "embedding": ("bev/embedding", "bev/view"),
        "detections": ("bev/detections",),
    }

    def load(self) -> Capability:
        """The capability, after the sparse convolution that the parameters name was chosen. Raises UserError."""
        backend, arithmetic = str(self._parameter("sparse_backend")), str(self._parameter("sparse_arithmetic"))
        sparse.choose(backend, arithmetic)
        self.get_logger().info(f"sparse convolution: backend {backend}, arithmetic {arithmetic}")
        return super().load()


def main(args: Sequence[str] | None = None) -> None:
    run(LidarEncoder, args)


if __name__ == "__main__":
    main()
