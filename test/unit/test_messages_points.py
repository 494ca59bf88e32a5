"""PointCloud2 of any layout becomes the same sweep; what does not fit is refused by the name of the field."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_ros.errors import MessageError
from wm_ros.messages import TYPESTORE, decode, encode_sample
from wm_ros.messages.cdr import header, make
from wm_ros.messages.points import DATATYPES, MAX_POINTS, TYPE
from wm_ros.types import Sweep

STAMP = 1_000_000_000_123
CODES = {code: number for number, code in DATATYPES.items()}


def cloud(points, layout, step=None, row_step=None, big=False, height=1, little_cdr=True, **changes) -> bytes:
    """A PointCloud2 as CDR.

    Args:
        points: (N, 4) x, y, z, intensity. layout: name → (numpy code, offset).
        changes: fields of the message that are to say something else.
    """
    step = step or max(offset + int(code[1:]) for code, offset in layout.values())
    width = len(points) // height
    row_step = row_step or width * step
    data = np.full(height * row_step, 0xAB, np.uint8)  # padding that must not matter
    for column, name in enumerate(("x", "y", "z", "intensity")):
        if name in layout:
            code, offset = layout[name]
            kind = np.dtype((">" if big else "<") + code)
            there = np.ndarray((height, width), kind, data, offset=offset, strides=(row_step, step))
            there[:] = points[:, column].reshape(height, width)
    values = {
        "header": header(STAMP, "lidar"),
        "height": height,
        "width": width,
        "fields": [
            make("sensor_msgs/PointField", name=name, offset=offset, datatype=CODES[code], count=1)
            for name, (code, offset) in layout.items()
        ],
        "is_bigendian": big,
        "point_step": step,
        "row_step": row_step,
        "data": data,
        "is_dense": True,
    }
    message = make("sensor_msgs/PointCloud2", **(values | changes))
    return bytes(TYPESTORE.serialize_cdr(message, TYPE, little_endian=little_cdr))


def restated(**changes) -> bytes:
    """A cloud of four points that says otherwise: every field of the message may be changed."""
    message = TYPESTORE.deserialize_cdr(cloud(POINTS, XYZI), TYPE)
    for name, value in changes.items():
        setattr(message, name, value)
    return bytes(TYPESTORE.serialize_cdr(message, TYPE))


XYZI = {"x": ("f4", 0), "y": ("f4", 4), "z": ("f4", 8), "intensity": ("f4", 12)}
POINTS = np.array([[1, 2, 3, 0.5], [-4, 5, -6, 0.25], [7, -8, 9, 1.0], [10, 11, -12, 0.0]], np.float32)


def test_a_sweep_survives_the_round_trip_bit_by_bit():
    sweep = Sweep(STAMP, "lidar", POINTS)
    ((topic, cdr),) = encode_sample(sweep)
    back = decode(topic.type, cdr)
    assert (topic.name, back.stamp_ns, back.frame_id) == ("points", STAMP, "lidar")
    assert np.array_equal(back.points, POINTS)


def test_dense_float_points_are_a_view_of_the_bytes():
    ((_, cdr),) = encode_sample(Sweep(STAMP, "lidar", np.tile(POINTS, (1000, 1))))
    points = decode(TYPE, cdr).points
    assert np.shares_memory(points, np.frombuffer(cdr, np.uint8))
    assert not points.flags.writeable


@pytest.mark.parametrize("little_cdr", [True, False])
@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize(
    ("fields", "step"),
    [
        (XYZI, 16),
        ({"intensity": ("f4", 0), "z": ("f4", 4), "y": ("f4", 8), "x": ("f4", 12)}, 16),  # another order
        ({"x": ("f8", 3), "y": ("f8", 11), "z": ("f8", 19), "intensity": ("f4", 27)}, 40),  # odd offsets, padding
        ({"x": ("f4", 0), "y": ("f8", 4), "z": ("i2", 12), "intensity": ("f4", 14)}, 18),  # mixed types
        ({"x": ("i4", 0), "y": ("i1", 4), "z": ("i2", 5), "intensity": ("f8", 8)}, 32),
    ],
)
def test_every_layout_gives_the_same_points(fields, step, big, little_cdr):
    cdr = cloud(POINTS, fields, step, big=big, little_cdr=little_cdr)
    assert np.array_equal(decode(TYPE, cdr).points, POINTS)


def test_an_organised_cloud_with_padded_rows_is_read_row_by_row():
    cdr = cloud(POINTS, XYZI, 20, row_step=64, height=2)
    assert np.array_equal(decode(TYPE, cdr).points, POINTS)


def test_points_that_are_not_finite_are_left_out_and_a_bad_intensity_is_zero():
    bad = POINTS.copy()
    bad[0, 1], bad[2, 0], bad[3, 3] = np.nan, np.inf, np.nan
    points = decode(TYPE, cloud(bad, XYZI)).points
    assert np.array_equal(points, [[-4, 5, -6, 0.25], [10, 11, -12, 0]])


def test_a_double_beyond_a_float_is_left_out():
    far = POINTS.astype(np.float64)
    far[1, 2] = 1e300
    fields = {"x": ("f8", 0), "y": ("f8", 8), "z": ("f8", 16)}
    assert np.array_equal(decode(TYPE, cloud(far, fields)).points[:, :3], POINTS[[0, 2, 3], :3])


@pytest.mark.parametrize(
    ("code", "given", "expected"),
    [
        ("u1", [0, 51, 255, 102], [0, 0.2, 1, 0.4]),  # counts of a driver
        ("u2", [0, 51, 255, 5000], [0, 0.2, 1, 1]),  # clipped
        ("f4", [0, 51, 255, 102], [0, 0.2, 1, 0.4]),  # counts as floats
        ("f4", [0, 0.2, 1, 0.4], [0, 0.2, 1, 0.4]),  # already 0..1
        ("f4", [0, -3, 1, 0.4], [0, 0, 1, 0.4]),
    ],
)
def test_intensity_is_always_zero_to_one(code, given, expected):
    points = POINTS.copy()
    points[:, 3] = given
    fields = {"x": ("f4", 0), "y": ("f4", 4), "z": ("f4", 8), "intensity": (code, 12)}
    assert decode(TYPE, cloud(points, fields)).points[:, 3] == pytest.approx(expected)


def test_a_cloud_without_intensity_has_zeros_and_reflectivity_counts_as_one():
    xyz = {name: XYZI[name] for name in "xyz"}
    assert not decode(TYPE, cloud(POINTS, xyz)).points[:, 3].any()
    with pytest.raises(MessageError, match="'x' is missing"):
        decode(TYPE, restated(fields=[]))
    named = [
        make("sensor_msgs/PointField", name=n, offset=o, datatype=7, count=1)
        for n, o in (("x", 0), ("y", 4), ("z", 8), ("reflectivity", 12))
    ]
    assert np.array_equal(decode(TYPE, restated(fields=named)).points, POINTS)


def test_more_points_than_the_cap_are_thinned_evenly():
    count = 2 * MAX_POINTS + 5
    points = np.zeros((count, 4), np.float32)
    points[:, 0] = np.arange(count)
    ((_, cdr),) = encode_sample(Sweep(STAMP, "lidar", points))
    kept = decode(TYPE, cdr).points
    assert len(kept) <= MAX_POINTS
    assert np.array_equal(kept[:, 0], np.arange(count)[::3])


def test_an_empty_cloud_is_an_empty_sweep():
    ((_, cdr),) = encode_sample(Sweep(STAMP, "lidar", np.zeros((0, 4), np.float32)))
    assert decode(TYPE, cdr).points.shape == (0, 4)


def test_a_stamp_of_zero_takes_the_time_of_receipt():
    cdr = restated(header=header(0, "lidar"))
    assert decode(TYPE, cdr, stamp_ns=77).stamp_ns == 77


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"point_step": 0}, "point_step"),
        ({"row_step": 3}, "row_step"),
        ({"row_step": 0}, "row_step"),
        ({"width": 2**32 - 1, "row_step": 2**32 - 1}, "row_step"),
        ({"width": 2**31, "height": 2**31, "point_step": 1, "row_step": 2**32 - 1}, "data"),
        ({"height": 2**32 - 1}, "data"),
        ({"data": np.zeros(63, np.uint8)}, "data"),
        ({"point_step": 15, "row_step": 64}, "fields"),
        ({"fields": []}, "fields"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_by_name(changes, field):
    with pytest.raises(MessageError, match=f"PointCloud2.{field}"):
        decode(TYPE, restated(**changes))


@pytest.mark.parametrize(
    ("name", "offset", "datatype", "words"),
    [
        ("x", 0, 7, "given twice"),
        ("z", 14, 7, "beyond point_step"),
        ("z", 2**32 - 1, 7, "beyond point_step"),
        ("z", 8, 0, "unknown datatype 0"),
        ("z", 8, 9, "unknown datatype 9"),
        ("z", 8, 255, "unknown datatype 255"),
    ],
)
def test_a_field_that_does_not_fit_is_refused_by_name(name, offset, datatype, words):
    fields = [
        make("sensor_msgs/PointField", name=n, offset=o, datatype=d, count=1)
        for n, o, d in (("x", 0, 7), ("y", 4, 7), (name, offset, datatype))
    ]
    with pytest.raises(MessageError, match=words):
        decode(TYPE, restated(fields=fields))


numbers = st.sampled_from([0, 1, 2, 3, 4, 15, 16, 17, 64, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_combination_of_numbers_decodes_or_is_refused(data):
    fields = [
        make(
            "sensor_msgs/PointField",
            name=data.draw(st.sampled_from(["x", "y", "z", "intensity", "ring", ""])),
            offset=data.draw(numbers),
            datatype=data.draw(st.integers(0, 255)),
            count=data.draw(numbers),
        )
        for _ in range(data.draw(st.integers(0, 6)))
    ]
    changes = {
        "fields": fields,
        "width": data.draw(numbers),
        "height": data.draw(numbers),
        "point_step": data.draw(numbers),
        "row_step": data.draw(numbers),
        "is_bigendian": data.draw(st.booleans()),
        "data": np.full(data.draw(st.integers(0, 200)), data.draw(st.integers(0, 255)), np.uint8),
    }
    try:
        points = decode(TYPE, restated(**changes)).points
    except MessageError:
        return
    assert np.isfinite(points).all()
    assert points.shape[1] == 4
    assert ((points[:, 3] >= 0) & (points[:, 3] <= 1)).all()
