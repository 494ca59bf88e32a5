"""Clock and diagnostics: what a running system says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wm_ros.messages.cdr import deserialise, header, make, nanoseconds, serialise, time_message

CLOCK = "rosgraph_msgs/msg/Clock"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
NUMBERS = "std_msgs/msg/Float64MultiArray"
OK, WARN, ERROR, STALE = 0, 1, 2, 3


@dataclass(frozen=True)
class Status:
    """One line of diagnostics (REP 107): `name` is "<node>: <check>", `level` one of OK, WARN, ERROR, STALE."""

    name: str
    level: int
    message: str
    values: dict[str, str] = field(default_factory=dict)
    hardware_id: str = ""


def encode_clock(stamp_ns: int) -> bytes:
    """`/clock` at `stamp_ns`."""
    return serialise(make("rosgraph_msgs/Clock", clock=time_message(stamp_ns)))


def decode_clock(cdr: bytes | memoryview) -> int:
    """Nanoseconds of `/clock`."""
    return nanoseconds(deserialise(CLOCK, cdr).clock)


def encode_diagnostics(stamp_ns: int, statuses: Sequence[Status]) -> bytes:
    """`/diagnostics` with one status for each check."""
    return serialise(
        make(
            "diagnostic_msgs/DiagnosticArray",
            header=header(stamp_ns, ""),
            status=[
                make(
                    "diagnostic_msgs/DiagnosticStatus",
                    level=s.level,
                    name=s.name,
                    message=s.message,
                    hardware_id=s.hardware_id,
                    values=[make("diagnostic_msgs/KeyValue", key=k, value=v) for k, v in s.values.items()],
                )
                for s in statuses
            ],
        )
    )


def decode_diagnostics(cdr: bytes | memoryview) -> list[Status]:
    """The statuses of a `/diagnostics` message."""
    return [
        Status(s.name, int(s.level), s.message, {v.key: v.value for v in s.values}, s.hardware_id)
        for s in deserialise(DIAGNOSTICS, cdr).status
    ]


def encode_numbers(rows: Sequence[tuple[str, Sequence[float]]]) -> bytes:
    """Named rows of numbers as a Float64MultiArray: one dimension for each name, its size the length of the row."""
    values = [float(v) for _, row in rows for v in row]
    dimensions = [
        make("std_msgs/MultiArrayDimension", label=name, size=len(row), stride=len(row)) for name, row in rows
    ]
    layout = make("std_msgs/MultiArrayLayout", dim=dimensions, data_offset=0)
    return serialise(make("std_msgs/Float64MultiArray", layout=layout, data=np.array(values, np.float64)))


def decode_numbers(cdr: bytes | memoryview) -> list[tuple[str, list[float]]]:
    """The rows written by `encode_numbers`."""
    message = deserialise(NUMBERS, cdr)
    rows, at = [], 0
    for dimension in message.layout.dim:
        rows.append((dimension.label, message.data[at : at + dimension.size].tolist()))
        at += dimension.size
    return rows
