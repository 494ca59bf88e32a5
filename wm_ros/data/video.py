"""Pictures of a video file, decoded one at a time (H.264, AV1 and whatever else FFmpeg knows)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from wm_ros.errors import UserError

Picture = NDArray[np.uint8]


def pictures_at(path: Path, times_s: Iterable[float]) -> Iterator[Picture | None]:
    """The picture (H, W, 3) uint8 RGB shown at each of the ascending `times_s`, seconds since the video's start.

    A picture counts as shown from half a period before its time stamp, so rounded times still find it. None once
    the video has ended. Only the newest decoded picture is kept.

    Raises:
        UserError: the file is missing, damaged, holds no video, or its codec is unknown.
    """
    with _opened(path) as (container, stream):
        yield from _shown(container, stream, times_s)


def every_picture(path: Path) -> Iterator[tuple[float, Picture]]:
    """Each picture (H, W, 3) uint8 RGB with its time, seconds since the video's start. Raises as `pictures_at`."""
    with _opened(path) as (container, stream):
        start_s = _start_of(stream)
        for frame in container.decode(stream):
            yield _time_of(frame) - start_s, frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, VideoStream]]:
    if not path.is_file():
        raise UserError(f"video '{path}' is missing; copy the dataset again or choose other episodes")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"'{path}' holds no video stream; give a video file")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UserError(f"video '{path}': its codec is unknown to this FFmpeg; convert it to H.264 or AV1")
            yield container, stream
    except av.error.FFmpegError as error:
        raise UserError(f"video '{path}' cannot be decoded ({error.strerror}); copy it again or convert it") from None


def _shown(
    container: av.container.InputContainer, stream: VideoStream, times_s: Iterable[float]
) -> Iterator[Picture | None]:
    half_period = 0.5 / float(stream.average_rate or 30)
    start = _start_of(stream)
    frames: Iterator[av.VideoFrame] | None = None
    now: av.VideoFrame | None = None
    coming: av.VideoFrame | None = None
    for time in times_s:
        if frames is None:
            if time > 1.0 and stream.time_base:  # an episode inside a long file: begin at the key frame before it
                container.seek(int((start + time) / stream.time_base), stream=stream)
            frames = container.decode(stream)
            coming = next(frames, None)
        while coming is not None and _time_of(coming) - start <= time + half_period:
            now, coming = coming, next(frames, None)
        ended = coming is None and (now is None or time - (_time_of(now) - start) > 2 * half_period)
        yield None if ended or now is None else now.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def _start_of(stream: VideoStream) -> float:
    return float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0


def _time_of(frame: av.VideoFrame) -> float:
    return float(frame.time or 0.0)
