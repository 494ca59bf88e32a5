"""Simulated worlds: a car that drives and a robot at a table, both ray-cast without GL, and the tasks of Meta-World.

Same seed, same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wm_ros.types import Sample

# Options that a source string or the command line may set, and how their text is read: as a number, or as it is.
OPTIONS: dict[str, dict[str, Callable[[float], float | int] | type[str]]] = {
    "drive": {
        "seconds": float,
        "beams": int,
        "azimuths": int,
        "rate_hz": float,
        "speed_mps": float,
        "odometry_noise": float,
    },
    "tabletop": {"seconds": float, "width": int, "height": int, "rate_hz": float, "objects": int, "choice": int},
    "metaworld": {
        "task": str,
        "noise": float,
        "push_ticks": int,
        "image_every": int,
        "cameras": int,
        "size": int,
        "true_state": int,
    },
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


def metaworld_samples(
    seed: int,
    task: str = "reach",
    noise: float = 0.15,
    push_ticks: int = 1,
    image_every: int = 1,
    cameras: int = 2,
    size: int = 96,
    true_state: int = 0,
) -> Iterator[Sample]:
    """A solved task of Meta-World; see `wm_ros.data.simulator.metaworld.metaworld_samples`."""
    from wm_ros.data.simulator.metaworld import metaworld_samples as samples

    return samples(seed, task, noise, push_ticks, image_every, cameras, size, true_state)
