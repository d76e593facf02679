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
LEAST_FRAMES = 5
"""Fewer within that time tell nothing."""
_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class FrameTiming:
    """Nanoseconds; medians."""

    period_ns: int
    """Between two pictures."""
    latency_ns: int
    """From a picture's stamp until it can be used, decoding included."""


def measure_camera(
    camera: Camera, seconds: float = SECONDS, clock: Callable[[], int] = time.monotonic_ns
) -> FrameTiming | None:
    """Looks at a camera that is running; None where it delivers too little to tell. Whether something is
    wrong with it is for the loop to judge."""
    end_ns = clock() + round(seconds * 1e9)
    seen: list[tuple[Frame, int]] = []
    newest = -1
    try:
        while clock() < end_ns:
            frame = camera.wait_newer(newest, _WAIT_S)
            if frame is not None:
                seen.append((frame, clock()))
                newest = frame.sequence
    except CameraLost:
        return None
    # The first may have waited for somebody to look.
    rows = seen[1:]
    if len(rows) < LEAST_FRAMES:
        return None
    periods = [
        (after.stamp_ns - before.stamp_ns) / (after.sequence - before.sequence)
        for (before, _), (after, _) in pairwise(rows)
    ]
    latencies = [got_ns - frame.stamp_ns for frame, got_ns in rows]
    return FrameTiming(round(statistics.median(periods)), max(0, round(statistics.median(latencies))))


def slowest(timings: Iterable[FrameTiming | None]) -> FrameTiming | None:
    """Period and latency of the slowest camera; None where one of them could not be measured."""
    known = []
    for timing in timings:
        if timing is None:
            return None
        known.append(timing)
    if not known:
        return None
    return FrameTiming(max(t.period_ns for t in known), max(t.latency_ns for t in known))
