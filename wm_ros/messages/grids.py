"""OccupancyGrid ↔ occupancy at one horizon."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wm_ros.errors import MessageError
from wm_ros.messages.cdr import deserialise, header, make, pose, require_finite, serialise, stamp_of, time_message
from wm_ros.types import OccupancyForecast

TYPE = "nav_msgs/msg/OccupancyGrid"
MAX_CELLS = 16_000_000
UNKNOWN = 0.5
"""Probability of a cell that a grid calls unknown (-1): even odds, so that no NaN ever enters."""


def decode_grid(cdr: bytes | memoryview, horizon_s: float, stamp_ns: int = 0) -> OccupancyForecast:
    """A grid as a forecast of one horizon, which the caller knows from the topic (`…/t_<ms>`)."""
    message = deserialise(TYPE, cdr)
    info = message.info
    width, height = info.width, info.height
    if not (math.isfinite(info.resolution) and info.resolution > 0):
        raise MessageError(f"OccupancyGrid.info.resolution: {info.resolution}")
    if len(message.data) != width * height:
        raise MessageError(f"OccupancyGrid.data: {len(message.data)} cells, {width} × {height} are announced")
    if not 0 < width * height <= MAX_CELLS:
        raise MessageError(f"OccupancyGrid.info: {width} × {height} cells are none or more than {MAX_CELLS}")
    turn = info.origin.orientation
    if not (max(abs(turn.x), abs(turn.y), abs(turn.z)) < 1e-6 and abs(abs(turn.w) - 1) < 1e-6):
        raise MessageError("OccupancyGrid.info.origin: a turned grid is not supported")
    corner = (float(info.origin.position.x), float(info.origin.position.y))
    if not all(map(math.isfinite, corner)):
        raise MessageError(f"OccupancyGrid.info.origin: {corner} is not finite")
    cells = np.asarray(message.data, np.int8)
    if ((cells < -1) | (cells > 100)).any():
        raise MessageError("OccupancyGrid.data: a cell is outside of -1 … 100")
    probability = np.where(cells < 0, np.float32(UNKNOWN), cells.astype(np.float32) / np.float32(100))
    return OccupancyForecast(
        stamp_of(message.header, stamp_ns),
        message.header.frame_id,
        (float(horizon_s),),
        probability.reshape(1, height, width).astype(np.float32),
        round(float(info.resolution), 6),  # the message holds a float32
        corner,
    )


def encode_grid(forecast: OccupancyForecast, index: int) -> bytes:
    """Horizon number `index` of a forecast as per cent, row = y, column = x, both ascending."""
    probability: NDArray[np.float32] = forecast.probability[index]
    require_finite(probability, f"OccupancyGrid.data at {forecast.horizons_s[index]} s")
    cells = np.rint(np.clip(probability, 0, 1) * 100).astype(np.int8)
    height, width = cells.shape
    info = make(
        "nav_msgs/MapMetaData",
        map_load_time=time_message(forecast.stamp_ns),
        resolution=float(forecast.cell_m),
        width=width,
        height=height,
        origin=pose(np.array([*forecast.origin_m, 0.0])),
    )
    return serialise(
        make(
            "nav_msgs/OccupancyGrid",
            header=header(forecast.stamp_ns, forecast.frame_id),
            info=info,
            data=np.ascontiguousarray(cells).reshape(-1),
        )
    )
