"""Streams of samples of any rates, put on a grid of one rate.

At each step every stream holds its newest sample by header stamp: what a robot would know then. Nothing is
interpolated, nothing looks ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from wm_ros.types import Sample

TOLERANCE_NS = 2_000_000
"""A sample this little after a step still counts as there: the stamps of a steady sensor are rounded."""


def at_rate(
    samples: Iterable[tuple[str, Sample]], rate_hz: float, needed: Sequence[str], until: Sequence[str]
) -> Iterator[tuple[int, dict[str, Sample]]]:
    """The stamp of each step and what was known then: stream → its newest sample.

    Steps wait until every stream of `until` has gone past them; what waits are references, so memory is bounded by
    the longest silence of one of these.

    Args:
        samples: pairs of a stream's name and its next sample. One that is older than the stream's newest is left out.
        needed: the first step is when the last of these streams begins.
        until: the last step is when the first of these streams ends.
    """
    known: dict[str, Sample] = {}
    waiting: deque[tuple[int, dict[str, Sample]]] = deque()
    start_ns, count = -1, 0
    for stream, sample in samples:
        while start_ns >= 0 and (now_ns := start_ns + round(count * 1e9 / rate_hz)) + TOLERANCE_NS < sample.stamp_ns:
            waiting.append((now_ns, dict(known)))
            count += 1
        if stream not in known or known[stream].stamp_ns <= sample.stamp_ns:
            known[stream] = sample
        if start_ns < 0 and all(name in known for name in needed):
            start_ns = max(known[name].stamp_ns for name in needed)
        while waiting and waiting[0][0] <= _reached(known, until):
            yield waiting.popleft()
    while start_ns >= 0 and (now_ns := start_ns + round(count * 1e9 / rate_hz)) <= _reached(known, until):
        yield now_ns, dict(known)
        count += 1


def _reached(known: dict[str, Sample], until: Sequence[str]) -> int:
    """Up to which stamp all streams of `until` are there."""
    return min((known[name].stamp_ns if name in known else -1) for name in until) + TOLERANCE_NS
