"""Two simulated worlds, ray-cast without GL: a car that drives, and a robot at a table. Same seed, same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wm_ros.types import Sample

# Options that a source string or the command line may set, and how their text is read.
OPTIONS: dict[str, dict[str, Callable[[float], float | int]]] = {
    "drive": {
        "seconds": float,
        "beams": int,
        "azimuths": int,
        "rate_hz": float,
        "speed_mps": float,
        "odometry_noise": float,
    },
    "tabletop": {"seconds": float, "width": int, "height": int, "rate_hz": float, "objects": int, "choice": int},
}


def drive_samples(
    seed: int,
    seconds: float = 6.0,
    beams: int = 64,
    azimuths: int = 1800,
    rate_hz: float = 10.0,
    speed_mps: float = -1.0,
    odometry_noise: float = 0.0,
) -> Iterator[Sample]:
    """A drive; see `wm_ros.data.simulator.drive.drive_samples`."""
    from wm_ros.data.simulator.drive import drive_samples as samples

    return samples(seed, seconds, beams, azimuths, rate_hz, speed_mps, odometry_noise)


def tabletop_samples(
    seed: int,
    seconds: float = 6.0,
    width: int = 128,
    height: int = 96,
    rate_hz: float = 15.0,
    objects: int = -1,
    choice: int = 1,
) -> Iterator[Sample]:
    """A grasp; see `wm_ros.data.simulator.tabletop.tabletop_samples`."""
    from wm_ros.data.simulator.tabletop import tabletop_samples as samples

    return samples(seed, seconds, width, height, rate_hz, objects, choice)
