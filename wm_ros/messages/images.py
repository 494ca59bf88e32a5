"""Image and CompressedImage ↔ frames, token tensors and BEV maps."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_ros.errors import MessageError
from wm_ros.messages.cdr import bytes_array, deserialise, header, make, serialise, stamp_of
from wm_ros.types import BevTokens, Frame, FutureFrames, StateTokens, WristFrame

TYPE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
MAX_PIXELS = 7680 * 4320
"""An 8K picture; a larger one is refused before anything is allocated for it."""
MAX_TOKEN_FLOATS = 1 << 20
DEPTH_WHITE_M = 10.0
"""A depth image (REP 118: 16UC1 millimetres, 32FC1 metres) becomes a grey frame that is white from here on."""

# encoding → (numpy code, channels)
LAYOUTS = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "8UC3": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "8UC4": ("u1", 4),
    "mono8": ("u1", 1),
    "8UC1": ("u1", 1),
    "mono16": ("u2", 1),
    "16UC1": ("u2", 1),
    "yuv422": ("u1", 2),
    "uyvy": ("u1", 2),
    "yuv422_yuy2": ("u1", 2),
    "yuyv": ("u1", 2),
}
# ROS names a Bayer pattern by its first row from the left, OpenCV by the second row from the second column.
BAYER = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}


@dataclass(frozen=True)
class Pixels:
    """An image as it came. `array`: (H, W, C) in native byte order, a read-only view where the layout allows."""

    stamp_ns: int
    frame_id: str
    encoding: str
    array: NDArray[Any]


def decode_pixels(cdr: bytes | memoryview, stamp_ns: int = 0) -> Pixels:
    """An image of any known encoding. Raises MessageError naming the field that does not fit."""
    message = deserialise(TYPE, cdr)
    code, channels = _layout(message.encoding)
    height, width, step = message.height, message.width, message.step
    size = int(code[1])
    if height == 0 or width == 0:
        raise MessageError(f"Image.{'height' if height == 0 else 'width'}: 0")
    if step < width * channels * size:
        raise MessageError(f"Image.step: {step} is less than a row of {width} pixels of {message.encoding}")
    if height * step > len(message.data):
        raise MessageError(f"Image.data: {len(message.data)} bytes, {height} rows of {step} are announced")
    if height * width > MAX_PIXELS:
        raise MessageError(f"Image.width: {width} × {height} pixels are more than {MAX_PIXELS}")
    order = (">" if message.is_bigendian else "<") + code
    array: NDArray[Any] = np.ndarray(
        (height, width, channels), order, message.data, strides=(step, channels * size, size)
    )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return Pixels(stamp_of(message.header, stamp_ns), message.header.frame_id, message.encoding, array)


def decode_frame(cdr: bytes | memoryview, stamp_ns: int = 0) -> Frame:
    """A camera frame; rgb8 without padding is a view. Raises MessageError where the encoding is no picture."""
    pixels = decode_pixels(cdr, stamp_ns)
    return Frame(pixels.stamp_ns, pixels.frame_id, _rgb(pixels.array, pixels.encoding))


def decode_wrist_frame(cdr: bytes | memoryview, stamp_ns: int = 0) -> WristFrame:
    """The same of a camera on the hand, which its topic says (`wrist_image`)."""
    frame = decode_frame(cdr, stamp_ns)
    return WristFrame(frame.stamp_ns, frame.frame_id, frame.rgb)


def decode_future_frame(cdr: bytes | memoryview, horizon_s: float, stamp_ns: int = 0) -> FutureFrames:
    """A predicted frame of one horizon, which the topic says (`future/image/t_<ms>`)."""
    frame = decode_frame(cdr, stamp_ns)
    return FutureFrames(frame.stamp_ns, frame.frame_id, (horizon_s,), frame.rgb[None])


def decode_compressed(cdr: bytes | memoryview, stamp_ns: int = 0) -> Frame:
    """A frame from jpeg or png, told by its first bytes (`format` is written in many ways)."""
    message = deserialise(COMPRESSED, cdr)
    data: NDArray[np.uint8] = message.data
    head = data[:8].tobytes()
    if head == b"\x89PNG\r\n\x1a\n":
        width, height = _png_size(data)
    elif head[:3] == b"\xff\xd8\xff":
        width, height = _jpeg_size(data)
    else:
        raise MessageError(f"CompressedImage.data: neither jpeg nor png (format '{message.format[:40]}')")
    if not 0 < width * height <= MAX_PIXELS:
        raise MessageError(f"CompressedImage.data: {width} × {height} pixels are none or more than {MAX_PIXELS}")
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise MessageError(f"CompressedImage.data: does not decode ({error.err})") from None
    if bgr is None:
        raise MessageError("CompressedImage.data: does not decode")
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    return Frame(stamp_of(message.header, stamp_ns), message.header.frame_id, rgb)


def decode_state_tokens(cdr: bytes | memoryview, stamp_ns: int = 0) -> StateTokens:
    """Tokens of `state/tokens`, rows = tokens."""
    return StateTokens(*_tokens(cdr, stamp_ns))


def decode_bev_tokens(cdr: bytes | memoryview, stamp_ns: int = 0) -> BevTokens:
    """Tokens of `bev/tokens`, rows = tokens."""
    return BevTokens(*_tokens(cdr, stamp_ns))


def decode_embedding(cdr: bytes | memoryview, stamp_ns: int = 0) -> Pixels:
    """The map of `bev/embedding`; `array` is (C, H, W) float32."""
    pixels = decode_pixels(cdr, stamp_ns)
    if not pixels.encoding.startswith("32FC"):
        raise MessageError(f"Image.encoding: '{pixels.encoding}' is no BEV embedding (32FC<channels>)")
    return Pixels(pixels.stamp_ns, pixels.frame_id, pixels.encoding, pixels.array.transpose(2, 0, 1))


def encode_rgb(stamp_ns: int, frame_id: str, rgb: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 as an Image rgb8."""
    return _encode(stamp_ns, frame_id, "rgb8", np.asarray(rgb, np.uint8))


def encode_tokens(stamp_ns: int, frame_id: str, tokens: NDArray[np.float32]) -> bytes:
    """(T, D) as an Image 32FC1, one token in each row."""
    return _encode(stamp_ns, frame_id, "32FC1", np.asarray(tokens, "<f4")[:, :, None])


def encode_embedding(stamp_ns: int, frame_id: str, embedding: NDArray[np.float32]) -> bytes:
    """(C, H, W) as an Image 32FC<C>; row 0 of the image is the lowest y, column 0 the lowest x."""
    return _encode(stamp_ns, frame_id, f"32FC{len(embedding)}", np.asarray(embedding, "<f4").transpose(1, 2, 0))


def _encode(stamp_ns: int, frame_id: str, encoding: str, array: NDArray[Any]) -> bytes:
    height, width, channels = array.shape
    return serialise(
        make(
            "sensor_msgs/Image",
            header=header(stamp_ns, frame_id),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=width * channels * array.itemsize,
            data=bytes_array(array),
        )
    )


def _layout(encoding: str) -> tuple[str, int]:
    """Numpy code and channels of an encoding."""
    if encoding in LAYOUTS:
        return LAYOUTS[encoding]
    if match := re.fullmatch(r"32FC([1-9]\d{0,4})", encoding):
        return "f4", int(match[1])
    if (match := re.fullmatch(r"(bayer_[a-z]{4})(8|16)", encoding)) and match[1] in BAYER:
        return ("u1" if match[2] == "8" else "u2"), 1
    raise MessageError(f"Image.encoding: '{encoding[:40]}' is unknown")


def _rgb(array: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 from the pixels of a picture."""
    if encoding.startswith("bayer_"):
        mosaic = _eight_bits(np.ascontiguousarray(array[:, :, 0]))
        if min(mosaic.shape) < 2:
            raise MessageError(f"Image.height: a Bayer mosaic of {mosaic.shape[1]} × {mosaic.shape[0]} has no colour")
        return np.asarray(cv2.cvtColor(mosaic, BAYER[encoding.rstrip("0123456789")]), np.uint8)
    if array.shape[2] == 2:
        if array.shape[1] % 2:
            raise MessageError(f"Image.width: {array.shape[1]} is odd, {encoding} holds pixels in pairs")
        order = cv2.COLOR_YUV2RGB_UYVY if encoding in ("yuv422", "uyvy") else cv2.COLOR_YUV2RGB_YUY2
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(array), order), np.uint8)
    make_rgb: dict[str, Callable[[], NDArray[Any]]] = {
        "rgb8": lambda: array,
        "rgba8": lambda: array[:, :, :3],
        "bgr8": lambda: array[:, :, ::-1],
        "8UC3": lambda: array[:, :, ::-1],  # OpenCV's own order, which is what the 8UC encodings come from
        "bgra8": lambda: array[:, :, 2::-1],
        "8UC4": lambda: array[:, :, 2::-1],
        "mono8": lambda: _grey(array),
        "8UC1": lambda: _grey(array),
        "mono16": lambda: _grey(_eight_bits(array)),
        "16UC1": lambda: _grey(_depth(array, 0.001)),
        "32FC1": lambda: _grey(_depth(array, 1.0)),
    }
    if encoding not in make_rgb:
        raise MessageError(f"Image.encoding: '{encoding}' is not a picture")
    return np.ascontiguousarray(make_rgb[encoding]())


def _grey(array: NDArray[Any]) -> NDArray[Any]:
    return np.broadcast_to(array, (*array.shape[:2], 3))


def _eight_bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    return array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8)


def _depth(array: NDArray[Any], metres: float) -> NDArray[np.uint8]:
    """Depth as grey; what is not valid (0, NaN, negative) is black."""
    share = np.nan_to_num(array.astype(np.float32) * np.float32(metres / DEPTH_WHITE_M), nan=0.0, posinf=1.0)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _tokens(cdr: bytes | memoryview, stamp_ns: int) -> tuple[int, str, NDArray[np.float32]]:
    pixels = decode_pixels(cdr, stamp_ns)
    if pixels.encoding != "32FC1":
        raise MessageError(f"Image.encoding: '{pixels.encoding}' holds no tokens (32FC1)")
    tokens = pixels.array[:, :, 0]
    if tokens.size > MAX_TOKEN_FLOATS:
        raise MessageError(f"Image.width: {tokens.shape[0]} tokens of {tokens.shape[1]} are too many")
    if not np.isfinite(tokens).all():
        raise MessageError("Image.data: tokens are not finite")
    return pixels.stamp_ns, pixels.frame_id, tokens


def _png_size(data: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height; every chunk is checked, because OpenCV allocates what a chunk says before it looks further."""
    at, size = 8, (0, 0)
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8].tobytes())
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4].data) != struct.unpack(">I", data[end - 4 : end].tobytes())[0]:
            raise MessageError("CompressedImage.data: png with a wrong checksum")
        if kind == b"IHDR" and length == 13 and at == 8:
            size = struct.unpack(">II", data[16:24].tobytes())
        if kind == b"IEND":
            return size
        at = end
    raise MessageError("CompressedImage.data: png without its end")


def _jpeg_size(data: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height from the frame header; refuses a jpeg without its end, which would decode to grey."""
    if b"\xff\xd9" not in data[-1024:].tobytes():
        raise MessageError("CompressedImage.data: jpeg without its end")
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = int(data[at + 1])
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9].tobytes())
            return width, height
        else:
            at += 2 + int(data[at + 2]) * 256 + int(data[at + 3])
    raise MessageError("CompressedImage.data: jpeg without a frame header")
