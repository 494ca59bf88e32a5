"""`image` → `state/…`: two tokens of each image, their change, and the image drawn back from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from wm_ros.nodes.base import CapabilityNode
from wm_ros.nodes.runner import run


class StateTokenizer(CapabilityNode):
    name = "state_tokenizer"
    capability_name = "state"
    lazy_outputs: ClassVar[dict[str, tuple[str, ...]]] = {"reconstruction": ("state/reconstruction",)}


def main(args: Sequence[str] | None = None) -> None:
    run(StateTokenizer, args)


if __name__ == "__main__":
    main()
