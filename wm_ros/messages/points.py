"""PointCloud2 ↔ Sweep: any order of fields, datatype, padding and endianness, organised or not."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.errors import MessageError
from wm_ros.messages.cdr import bytes_array, deserialise, header, make, serialise, stamp_of
from wm_ros.types import Sweep

TYPE = "sensor_msgs/msg/PointCloud2"
MAX_POINTS = 300_000
"""More points than any spinning LiDAR gives in a turn; of a larger cloud every k-th point is kept."""

INTENSITY_NAMES = ("intensity", "intensities", "i", "reflectivity", "reflectance")
FULL_SCALE = 255.0
"""Drivers count intensity or reflectivity in 0..255 (Velodyne, Ouster, Hesai, Livox) or give 0..1 (KITTI)."""

# sensor_msgs/PointField: INT8 = 1 … FLOAT64 = 8
DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}


def decode_points(cdr: bytes | memoryview, stamp_ns: int = 0) -> Sweep:
    """A sweep. Points with a coordinate that is not finite are left out.

    Intensity is 0..1: integers are divided by 255, floats too if any exceeds 1, and the result is clipped; a missing
    or non-finite one is 0. `points` is a read-only view of `cdr` where the cloud is dense float32 x, y, z, intensity.

    Raises:
        MessageError: the layout does not fit the data; the message names the field.
    """
    message = deserialise(TYPE, cdr)
    points = _cleaned(_table(message))
    return Sweep(stamp_of(message.header, stamp_ns), message.header.frame_id, points)


def encode_points(sweep: Sweep) -> bytes:
    """A sweep as a dense, unorganised cloud of float32 x, y, z, intensity."""
    points = np.ascontiguousarray(sweep.points, dtype="<f4")
    fields = [
        make("sensor_msgs/PointField", name=name, offset=4 * i, datatype=7, count=1)
        for i, name in enumerate(("x", "y", "z", "intensity"))
    ]
    return serialise(
        make(
            "sensor_msgs/PointCloud2",
            header=header(sweep.stamp_ns, sweep.frame_id),
            height=1,
            width=len(points),
            fields=fields,
            is_bigendian=False,
            point_step=16,
            row_step=16 * len(points),
            data=bytes_array(points),
            is_dense=True,
        )
    )


def _table(message: Any) -> NDArray[Any]:
    """(N,) structured view of the points with x, y, z and, where there is one, intensity; checked, at most the cap."""
    step, width, height, row_step = message.point_step, message.width, message.height, message.row_step
    if step == 0:
        raise MessageError("PointCloud2.point_step: 0")
    if row_step < width * step:
        raise MessageError(f"PointCloud2.row_step: {row_step} is less than width {width} × point_step {step}")
    if height * row_step > len(message.data):
        raise MessageError(f"PointCloud2.data: {len(message.data)} bytes, {height} rows of {row_step} are announced")
    dtype = _dtype(message.fields, step, bool(message.is_bigendian))
    if width == 0 or height == 0:
        return np.empty(0, dtype)
    # Rows may be padded, so the table is strided in two directions; one row, or none padded, is flat and stays a view.
    table: NDArray[Any] = np.ndarray((height, width), dtype, message.data, strides=(row_step, step))
    if height == 1 or row_step == width * step:
        table = np.ndarray((height * width,), dtype, message.data, strides=(step,))
    every = -(-table.size // MAX_POINTS)
    if every > 1 and table.ndim == 1:
        return table[::every]
    return table.reshape(-1)[::every]


def _dtype(fields: list[Any], step: int, big_endian: bool) -> np.dtype[Any]:
    """Structured dtype of one point from the message's fields."""
    found: dict[str, tuple[str, int]] = {}
    for field in fields:
        name = "intensity" if field.name in INTENSITY_NAMES else field.name
        if name not in ("x", "y", "z", "intensity") or (name == "intensity" and name in found):
            continue
        if name in found:
            raise MessageError(f"PointCloud2.fields: '{name}' is given twice")
        code = DATATYPES.get(field.datatype)
        if code is None:
            raise MessageError(f"PointCloud2.fields: '{field.name}' has the unknown datatype {field.datatype}")
        if field.offset + int(code[1]) > step:
            raise MessageError(
                f"PointCloud2.fields: '{field.name}' at offset {field.offset} ends beyond point_step {step}"
            )
        found[name] = ((">" if big_endian else "<") + code, field.offset)
    for name in "xyz":
        if name not in found:
            raise MessageError(f"PointCloud2.fields: '{name}' is missing")
    return np.dtype(
        {
            "names": list(found),
            "formats": [code for code, _ in found.values()],
            "offsets": [offset for _, offset in found.values()],
            "itemsize": step,
        }
    )


_FLAT = {name: ("<f4", 4 * i) for i, name in enumerate(("x", "y", "z", "intensity"))}


def _cleaned(table: NDArray[Any]) -> NDArray[np.float32]:
    """(N, 4) float32 of the finite points, intensity 0..1."""
    layout = {name: (kind.str, offset) for name, (kind, offset, *_) in (table.dtype.fields or {}).items()}
    flat = layout == _FLAT and table.itemsize == 16 and table.flags.c_contiguous and sys.byteorder == "little"
    if flat:
        points = table.view("<f4").reshape(-1, 4)
    else:
        points = np.zeros((table.size, 4), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # a float64 beyond float32 becomes inf and is left out
            for column, name in enumerate(("x", "y", "z", "intensity")):
                if name in layout:
                    points[:, column] = table[name]
    if not np.isfinite(points).all():
        good = np.isfinite(points[:, 0]) & np.isfinite(points[:, 1]) & np.isfinite(points[:, 2])
        points = points.take(np.flatnonzero(good), axis=0)  # a copy, so it may be written to
        points[:, 3] = np.where(np.isfinite(points[:, 3]), points[:, 3], 0)
    if "intensity" in layout and len(points):
        lowest, highest = points[:, 3].min(), points[:, 3].max()
        counted = layout["intensity"][0][1] in "iu"
        if counted or lowest < 0 or highest > 1:
            scale = FULL_SCALE if counted or highest > 1 else 1.0
            points = np.column_stack([points[:, :3], np.clip(points[:, 3] / np.float32(scale), 0, 1)])
    return points
