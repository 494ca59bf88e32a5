"""Every encoding of Image gives the same picture; tokens and BEV maps survive; what is no picture is refused."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from wm_ros.errors import MessageError
from wm_ros.messages import decode, encode_sample
from wm_ros.messages.cdr import header, make, serialise
from wm_ros.messages.images import (
    COMPRESSED,
    TYPE,
    decode_embedding,
    decode_pixels,
    encode_embedding,
    encode_rgb,
)
from wm_ros.messages.pictures import components_rgb, side_by_side
from wm_ros.types import BevTokens, Frame, FutureFrames, StateTokens

STAMP = 1_000_000_000_123
RGB = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def image(array, encoding, padding=0, big=False, **changes) -> bytes:
    """An Image of (H, W[, C]) with `padding` bytes of rubbish after each row."""
    array = np.ascontiguousarray(array, np.dtype(array.dtype).newbyteorder(">" if big else "<"))
    rows = array.reshape(len(array), -1).view(np.uint8)
    data = np.hstack([rows, np.full((len(rows), padding), 0xAB, np.uint8)])
    values = {
        "header": header(STAMP, "camera"),
        "height": len(array),
        "width": array.shape[1],
        "encoding": encoding,
        "is_bigendian": int(big),
        "step": data.shape[1],
        "data": data.reshape(-1),
    }
    return serialise(make("sensor_msgs/Image", **(values | changes)))


def compressed(data: bytes, words: str) -> bytes:
    array = np.frombuffer(data, np.uint8)
    return serialise(make("sensor_msgs/CompressedImage", header=header(STAMP, "camera"), format=words, data=array))


def alpha(rgb):
    return np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)])


@pytest.mark.parametrize("padding", [0, 3, 8])
@pytest.mark.parametrize(
    ("encoding", "array"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[:, :, ::-1]),
        ("8UC3", RGB[:, :, ::-1]),
        ("rgba8", alpha(RGB)),
        ("bgra8", alpha(RGB[:, :, ::-1])),
    ],
)
def test_every_colour_encoding_gives_the_same_frame(encoding, array, padding):
    frame = decode(TYPE, image(array, encoding, padding))
    assert isinstance(frame, Frame)
    assert (frame.stamp_ns, frame.frame_id) == (STAMP, "camera")
    assert np.array_equal(frame.rgb, RGB)


def test_rgb8_is_a_view_of_the_bytes():
    cdr = encode_rgb(STAMP, "camera", np.tile(RGB, (20, 20, 1)))
    rgb = decode(TYPE, cdr).rgb
    assert np.shares_memory(rgb, np.frombuffer(cdr, np.uint8))
    assert rgb.flags.c_contiguous


@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "mono16"])
def test_grey_images_have_three_equal_channels(encoding, big):
    array = GREY.astype(np.uint16) * 257 if encoding == "mono16" else GREY
    rgb = decode(TYPE, image(array, encoding, 2, big=big)).rgb
    assert np.array_equal(rgb, np.dstack([GREY] * 3))


@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize(("encoding", "kind", "unit"), [("16UC1", np.uint16, 1000), ("32FC1", np.float32, 1)])
def test_depth_is_grey_up_to_ten_metres_and_black_where_invalid(encoding, kind, unit, big):
    metres = np.array([[0, 2, 4.8, 10], [20, 4, 6, 8]], np.float32)
    rgb = decode(TYPE, image((metres * unit).astype(kind), encoding, 4, big=big)).rgb
    assert rgb[:, :, 1].tolist() == [[0, 51, 122, 255], [255, 102, 153, 204]]
    if encoding == "32FC1":
        metres[0, 1:] = np.nan, -1, np.inf
        assert decode(TYPE, image(metres, encoding)).rgb[0, :, 0].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_mosaics_give_back_their_colour(pattern, bits):
    colour = {"r": 200, "g": 120, "b": 40}
    mosaic = np.zeros((8, 8), np.uint8)
    for index, letter in enumerate(pattern):  # the pattern is written row by row from the upper left corner
        mosaic[index // 2 :: 2, index % 2 :: 2] = colour[letter]
    array = mosaic.astype(np.uint16) * 257 if bits == 16 else mosaic
    rgb = decode(TYPE, image(array, f"bayer_{pattern}{bits}", 2)).rgb
    assert (rgb[2:-2, 2:-2] == [200, 120, 40]).all()


@pytest.mark.parametrize(
    ("encoding", "pair"),
    [
        ("yuv422", (90, 81, 240, 81)),  # U Y V Y: red in BT.601
        ("uyvy", (90, 81, 240, 81)),
        ("yuv422_yuy2", (81, 90, 81, 240)),
        ("yuyv", (81, 90, 81, 240)),
    ],
)
def test_cameras_that_speak_yuv_are_understood(encoding, pair):
    array = np.tile(np.array(pair, np.uint8), (4, 3)).reshape(4, 6, 2)
    rgb = decode(TYPE, image(array, encoding, 2)).rgb
    assert np.abs(rgb.astype(int) - [255, 0, 0]).max() <= 3
    with pytest.raises(MessageError, match="odd"):
        decode(TYPE, image(array[:, :5], encoding))


@pytest.mark.parametrize("big", [True, False])
def test_native_pixels_of_any_number_of_channels(big):
    values = np.random.default_rng(1).random((3, 4, 7), np.float32)
    pixels = decode_pixels(image(values, "32FC7", 12, big=big))
    assert pixels.encoding == "32FC7"
    assert np.array_equal(pixels.array, values)
    assert pixels.array.dtype.isnative


@pytest.mark.parametrize(("suffix", "words"), [("jpg", "rgb8; jpeg compressed bgr8"), ("jpg", "jpeg"), ("png", "png")])
def test_compressed_images_are_told_by_their_bytes(suffix, words):
    smooth = np.dstack([np.full((32, 32), v, np.uint8) for v in (200, 120, 40)])
    data = cv2.imencode(f".{suffix}", smooth[:, :, ::-1])[1].tobytes()
    frame = decode(COMPRESSED, compressed(data, words))
    assert np.abs(frame.rgb.astype(int) - smooth).max() <= (4 if suffix == "jpg" else 0)
    assert (frame.stamp_ns, frame.frame_id) == (STAMP, "camera")


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    + png_chunk(b"IEND", b"")
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither jpeg nor png"),
        (b"GIF89a..", "neither jpeg nor png"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "without its end"),
        (b"\xff\xd8\xff\xe0" + bytes(2) + b"\xff\xd9", "without a frame header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(10), "without its end"),
        (BOMB, "60000 × 60000"),
        (cv2.imencode(".jpg", RGB)[1].tobytes()[:-40], "without its end"),
        (cv2.imencode(".png", RGB)[1].tobytes()[:-20], "without its end"),
    ],
)
def test_a_damaged_or_monstrous_compressed_image_is_refused(data, words):
    with pytest.raises(MessageError, match=words):
        decode(COMPRESSED, compressed(data, "x"))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"step": 14}, "step"),
        ({"height": 7}, "data"),
        ({"height": 2**32 - 1}, "data"),
        ({"width": 2**32 - 1}, "step"),
        ({"width": 0}, "width"),
        ({"height": 0}, "height"),
        ({"encoding": "nv12"}, "encoding"),
        ({"encoding": "32FC0"}, "encoding"),
        ({"encoding": "32FC99999"}, "step"),
        ({"encoding": "bayer_rrrr8"}, "encoding"),
        ({"data": np.zeros(89, np.uint8)}, "data"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_by_name(changes, field):
    with pytest.raises(MessageError, match=f"Image.{field}"):
        decode(TYPE, image(RGB, **({"encoding": "rgb8"} | changes)))


def test_an_image_of_many_channels_is_no_picture():
    with pytest.raises(MessageError, match="32FC3"):
        decode(TYPE, image(np.zeros((2, 2, 3), np.float32), "32FC3"))


def test_tokens_survive_the_round_trip_as_views():
    values = np.random.default_rng(2).normal(size=(2, 128)).astype(np.float32)
    for kind in (StateTokens, BevTokens):
        ((topic, cdr),) = encode_sample(kind(STAMP, "camera", values))
        back = decode(topic.type, cdr, sample=topic.sample)
        assert type(back) is kind
        assert np.array_equal(back.tokens, values)
        assert np.shares_memory(back.tokens, np.frombuffer(cdr, np.uint8))


def test_tokens_that_are_no_tokens_are_refused():
    with pytest.raises(MessageError, match="rgb8"):
        decode(TYPE, image(RGB, "rgb8"), sample=StateTokens)
    with pytest.raises(MessageError, match="not finite"):
        decode(TYPE, image(np.full((2, 4), np.nan, np.float32), "32FC1"), sample=StateTokens)


def test_an_embedding_survives_with_row_y_and_column_x():
    embedding = np.random.default_rng(3).normal(size=(16, 5, 7)).astype(np.float32)
    back = decode_embedding(encode_embedding(STAMP, "lidar", embedding))
    assert back.encoding == "32FC16"
    assert np.array_equal(back.array, embedding)


def test_a_predicted_frame_takes_its_horizon_from_the_topic():
    cdr = encode_rgb(STAMP, "camera", RGB)
    frames = decode(TYPE, cdr, sample=FutureFrames, topic="/robot/future/image/t_330")
    assert frames.horizons_s == (0.33,)
    assert np.array_equal(frames.rgb[0], RGB)
    with pytest.raises(MessageError, match="future/strip"):
        decode(TYPE, cdr, sample=FutureFrames, topic="future/strip")


def test_the_view_of_an_embedding_has_forward_up_and_left_on_the_left():
    embedding = np.zeros((4, 8, 10), np.float32)  # 8 cells in y, 10 in x
    embedding[0, 7, 9] = 5.0  # the farthest forward and left
    picture = components_rgb(embedding)
    assert picture.shape == (10, 8, 3)
    assert np.argwhere(picture[:, :, 0] == picture[:, :, 0].max()).tolist() == [[0, 0]]


def test_the_view_does_not_depend_on_the_sign_of_an_eigenvector(monkeypatch):
    embedding = np.random.default_rng(4).normal(size=(6, 8, 8)).astype(np.float32)
    once = components_rgb(embedding)
    solve = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (solve(a)[0], -solve(a)[1]))
    assert np.array_equal(components_rgb(embedding), once)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_flat_embedding_gives_a_flat_picture(channels):
    picture = components_rgb(np.ones((channels, 4, 4), np.float32))
    assert (picture == picture[0, 0]).all()


def test_frames_stand_side_by_side_in_order():
    frames = np.stack([RGB, RGB[::-1], RGB[:, ::-1]])
    strip = side_by_side(frames)
    assert strip.shape == (6, 15, 3)
    assert all(np.array_equal(strip[:, 5 * k : 5 * k + 5], frames[k]) for k in range(3))
