"""`image`, `state/tokens`, `joint_states`, `instruction` → `future/…`: hands and joints to come, and the frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from wm_ros.nodes.base import CapabilityNode
from wm_ros.nodes.runner import run
from wm_ros.topics import FRAME_HORIZONS_S, millis
from wm_ros.types import Frame, Instruction


class FuturePredictor(CapabilityNode):
    name = "future_predictor"
    capability_name = "future"
    optional_inputs = (Frame, Instruction)
    lazy_outputs: ClassVar[dict[str, tuple[str, ...]]] = {
        "frames": (*(f"future/image/t_{millis(h)}" for h in FRAME_HORIZONS_S), "future/strip"),
        "samples": ("future/samples",),
    }


def main(args: Sequence[str] | None = None) -> None:
    run(FuturePredictor, args)


if __name__ == "__main__":
    main()
