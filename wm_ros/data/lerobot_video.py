"""Videos of a LeRobot v3.0 dataset: the episodes of a camera one after another in H.264 files of limited size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

CODEC, PIXELS = "h264", "yuv420p"
GOP = 2
"""Training asks for single frames anywhere: none is further than one frame from a key frame."""
CRF = 20
MAX_FILE_S = 600.0
"""LeRobot finds a frame by its float32 time within 0.1 ms, which is too coarse from 1024 s on."""


@dataclass(frozen=True)
class VideoPlace:
    """Where an episode lies: number of the file, and the seconds in it of its first frame and after its last."""

    file: int
    start_s: float
    end_s: float


class VideoFiles:
    """The files of one camera; a context manager. The same pictures give the same bytes.

    A new file begins before an episode when the old one would outgrow `max_bytes` with another episode as large as
    the largest yet, or has run for `MAX_FILE_S`; an episode is never split.

    Args:
        path_of: number of a file → where it is to be.
    """

    def __init__(self, path_of: Callable[[int], Path], rate_hz: int, max_bytes: float) -> None:
        self._path_of, self._rate_hz, self._max_bytes = path_of, rate_hz, max_bytes
        self._container: Any = None
        self._stream: Any = None
        self._file, self._frames, self._bytes = -1, 0, 0
        self._first_frame, self._first_byte, self._largest = 0, 0, 0

    def __enter__(self) -> VideoFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def begin(self) -> None:
        """An episode begins."""
        full = self._bytes + self._largest > self._max_bytes or self._frames >= MAX_FILE_S * self._rate_hz
        if self._container is not None and full:
            self._close()
        self._first_frame, self._first_byte = self._frames, self._bytes

    def write(self, rgb: NDArray[np.uint8]) -> None:
        """Its next picture, (H, W, 3) with even H and W, the same ones for all of a camera."""
        if self._container is None:
            self._open(rgb.shape[1], rgb.shape[0])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(
            format=PIXELS,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.AREA,
        )
        frame.pts = self._frames
        if self._frames == self._first_frame:
            frame.pict_type = PictureType.I
        self._mux(self._stream.encode(frame))
        self._frames += 1

    def end(self) -> VideoPlace:
        """The episode ends; where it lies."""
        self._largest = max(self._largest, self._bytes - self._first_byte)
        return VideoPlace(self._file, self._first_frame / self._rate_hz, self._frames / self._rate_hz)

    def _open(self, width: int, height: int) -> None:
        self._file, self._frames, self._bytes = self._file + 1, 0, 0
        self._first_frame, self._first_byte = 0, 0
        path = self._path_of(self._file)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w")
        options = {"g": str(GOP), "crf": str(CRF), "bf": "0", "forced-idr": "1"}
        self._stream = self._container.add_stream("libx264", rate=self._rate_hz, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXELS
        context = self._stream.codec_context
        context.thread_count = 1  # with more, the bytes depend on their number
        context.colorspace, context.color_range = int(Colorspace.ITU601), int(ColorRange.MPEG)

    def _mux(self, packets: list[Any]) -> None:
        self._bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)

    def _close(self) -> None:
        if self._container is not None:
            self._mux(self._stream.encode())
            self._container.close()
            self._container = None
