"""How fast the cameras are here: measured at start, once they deliver."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from ...drivers.errors import CameraLost
from ...drivers.types import Camera, Frame

SECONDS = 1.0
"""How long each camera is looked at."""
MOST_SECONDS = 5.0
"""The same for one that is so slow that it has not delivered `LEAST_FRAMES` by then."""
LEAST_FRAMES = 5
"""What a period is taken from, besides the first."""
_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class FrameTiming:
    """Nanoseconds; medians."""

    period_ns: int
    """Between two pictures."""
    latency_ns: int
    """From a picture's stamp until it can be used, decoding included."""
    at_least: bool = False
    """Too few pictures came to measure the period: it is at least this."""


def measure_camera(
    camera: Camera, seconds: float = SECONDS, clock: Callable[[], int] = time.monotonic_ns
) -> FrameTiming | None:
    """Looks at a camera that is running for `seconds`, or longer where it is slow; None where it is lost
    meanwhile, which is for the loop to judge."""
    start_ns = clock()
    end_ns, last_ns = start_ns + round(seconds * 1e9), start_ns + round(MOST_SECONDS * 1e9)
    seen: list[tuple[Frame, int]] = []
    newest = -1
    try:
        while clock() < end_ns or (len(seen) <= LEAST_FRAMES and clock() < last_ns):
            frame = camera.wait_newer(newest, _WAIT_S)
            if frame is not None:
                seen.append((frame, clock()))
                newest = frame.sequence
    except CameraLost:
        return None
    # The first may have waited for somebody to look.
    rows = seen[1:]
    latencies = [got_ns - frame.stamp_ns for frame, got_ns in rows]
    latency_ns = max(0, round(statistics.median(latencies))) if latencies else 0
    if len(rows) < LEAST_FRAMES:
        return FrameTiming((clock() - start_ns) // (len(seen) + 1), latency_ns, at_least=True)
    periods = [
        (after.stamp_ns - before.stamp_ns) / (after.sequence - before.sequence)
        for (before, _), (after, _) in pairwise(rows)
    ]
    return FrameTiming(round(statistics.median(periods)), latency_ns)


def slowest(timings: Iterable[FrameTiming | None]) -> FrameTiming | None:
    """Period and latency of the slowest camera; None where one of them could not be measured."""
    known = []
    for timing in timings:
        if timing is None:
            return None
        known.append(timing)
    if not known:
        return None
    at_least = any(t.at_least for t in known)
    return FrameTiming(max(t.period_ns for t in known), max(t.latency_ns for t in known), at_least)
