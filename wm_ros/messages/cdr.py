"""CDR bytes and Python objects: the type store, and the few conversions that every message needs."""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from wm_ros.errors import MessageError

TYPESTORE = get_typestore(Stores.ROS2_JAZZY)

NANO = 1_000_000_000
MAX_STAMP_NS = (2**31 - 1) * NANO
"""`builtin_interfaces/Time.sec` is an int32."""


def deserialise(type_name: str, cdr: bytes | memoryview) -> Any:
    """CDR bytes (either endianness) as a message object; its arrays are views of `cdr` where the order is native.

    Raises:
        MessageError: unknown type, or bytes that are not a message of it.
    """
    if type_name not in TYPESTORE.types:
        raise MessageError(f"message type '{type_name}' is unknown")
    try:
        # A memoryview, because slicing bytes would copy the whole message.
        return TYPESTORE.deserialize_cdr(memoryview(cdr), type_name)
    except (SerdeError, ValueError, IndexError, OverflowError, TypeError) as error:
        raise MessageError(f"{short(type_name)}: bytes do not decode ({error})") from None


def serialise(message: Any) -> bytes:
    """A message object of the type store as CDR bytes, little-endian (`publish(bytes)` wants bytes)."""
    return bytes(TYPESTORE.serialize_cdr(message, message.__msgtype__, little_endian=True))


def make(type_name: str, **fields: Any) -> Any:
    """A message object by its short name, e.g. `make("sensor_msgs/Image", height=2, …)`."""
    package, _, name = type_name.partition("/")
    return TYPESTORE.types[f"{package}/msg/{name}"](**fields)


def short(type_name: str) -> str:
    """'sensor_msgs/msg/Image' → 'Image'."""
    return type_name.rpartition("/")[2]


def time_message(stamp_ns: int) -> Any:
    """`builtin_interfaces/Time` of a stamp. Raises MessageError for one that it cannot hold."""
    if not 0 <= stamp_ns <= MAX_STAMP_NS:
        raise MessageError(f"Time.sec: stamp {stamp_ns} ns is outside of 0 … {MAX_STAMP_NS}")
    return make("builtin_interfaces/Time", sec=stamp_ns // NANO, nanosec=stamp_ns % NANO)


def duration_message(seconds: float) -> Any:
    """`builtin_interfaces/Duration` of a length in seconds, rounded to whole nanoseconds."""
    nanoseconds = round(float(seconds) * NANO)
    return make("builtin_interfaces/Duration", sec=nanoseconds // NANO, nanosec=nanoseconds % NANO)


def nanoseconds(time: Any) -> int:
    """Nanoseconds of a Time or Duration. Raises MessageError for more than a second of `nanosec`."""
    if time.nanosec >= NANO:
        raise MessageError(f"Time.nanosec: {time.nanosec} is a second or more")
    return int(time.sec) * NANO + int(time.nanosec)


def header(stamp_ns: int, frame_id: str) -> Any:
    """`std_msgs/Header`."""
    return make("std_msgs/Header", stamp=time_message(stamp_ns), frame_id=frame_id)


def stamp_of(message_header: Any, receive_ns: int) -> int:
    """Stamp of a header; the time of receipt where the sender left the stamp zero."""
    stamp_ns = nanoseconds(message_header.stamp)
    if stamp_ns < 0:
        raise MessageError(f"Header.stamp: {stamp_ns} ns is negative")
    return stamp_ns or receive_ns


@lru_cache
def _has_header(type_name: str) -> bool:
    fields = TYPESTORE.fielddefs[type_name][1] if type_name in TYPESTORE.types else []
    return bool(fields) and fields[0][0] == "header" and fields[0][1][1] == "std_msgs/msg/Header"


def header_stamp(type_name: str, cdr: bytes | memoryview) -> int | None:
    """Stamp of a message that begins with a header, without decoding the rest; None where there is none."""
    if not _has_header(type_name) or len(cdr) < 12:
        return None
    sec, nanosec = struct.unpack_from("<iI" if cdr[1] else ">iI", cdr, 4)
    return int(sec) * NANO + int(nanosec)


def point(x: float, y: float, z: float) -> Any:
    """`geometry_msgs/Point`."""
    return make("geometry_msgs/Point", x=float(x), y=float(y), z=float(z))


def vector(x: float, y: float, z: float) -> Any:
    """`geometry_msgs/Vector3`."""
    return make("geometry_msgs/Vector3", x=float(x), y=float(y), z=float(z))


def pose(position: NDArray[Any], quaternion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)) -> Any:
    """`geometry_msgs/Pose` from (3,) metres and (x, y, z, w)."""
    x, y, z, w = map(float, quaternion)
    return make(
        "geometry_msgs/Pose",
        position=point(*position),
        orientation=make("geometry_msgs/Quaternion", x=x, y=y, z=z, w=w),
    )


def xyz(message: Any, field: str) -> NDArray[np.float64]:
    """(3,) of a Point or Vector3. Raises MessageError naming `field` if one is not finite."""
    values = np.array([message.x, message.y, message.z])
    if not np.isfinite(values).all():
        raise MessageError(f"{field}: {values.tolist()} is not finite")
    return values


def bytes_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of an array as a flat uint8 view (copied only where the array is not contiguous)."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def require_finite(array: NDArray[Any], field: str) -> None:
    """Raise MessageError naming `field` unless every value is finite: such an output is never published."""
    if not np.isfinite(array).all():
        raise MessageError(f"{field}: {int((~np.isfinite(array)).sum())} of {array.size} values are not finite")


def topic_horizon(topic: str) -> float:
    """Horizon in seconds of a topic named `…/t_<ms>`. Raises MessageError for another name."""
    match = re.search(r"(?:^|/)t_(\d{1,6})$", topic)
    if match is None:
        raise MessageError(f"topic '{topic}': a prediction of one horizon is named …/t_<milliseconds>")
    return int(match[1]) / 1000
