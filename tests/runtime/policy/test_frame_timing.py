"""What is measured of the cameras at start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from holdfast.drivers.errors import CameraLost
from holdfast.drivers.types import Frame, StampSource
from holdfast.runtime.policy.frame_timing import MOST_SECONDS, FrameTiming, measure_camera, slowest

MS = 1_000_000


class Clocked:
    """A camera whose pictures come at given times (ms), each stamped `latency_ms` before; and its clock."""

    name = "front"

    def __init__(self, times_ms: Sequence[int], latency_ms: int = 12, skip: int = 1) -> None:
        self.now_ns = 0
        self.lost_at_ms = 10**9
        self._frames = [
            Frame(
                np.zeros((2, 2, 3), np.uint8),
                (at - latency_ms) * MS,
                StampSource.HEADER,
                at * MS,
                skip * i,
                i,
            )
            for i, at in enumerate(times_ms)
        ]

    def start(self) -> None: ...

    def close(self) -> None: ...

    def clock(self) -> int:
        return self.now_ns

    def latest(self) -> Frame | None:
        there = [frame for frame in self._frames if frame.arrival_ns <= self.now_ns]
        return there[-1] if there else None

    def wait_newer(self, sequence: int, timeout_s: float) -> Frame | None:
        end_ns = self.now_ns + round(timeout_s * 1e9)
        while self.now_ns <= end_ns:
            if self.now_ns >= self.lost_at_ms * MS:
                raise CameraLost("gone")
            newest = self.latest()
            if newest is not None and newest.sequence > sequence:
                return newest
            self.now_ns += MS
        return None


def measure(camera: Clocked) -> FrameTiming | None:
    return measure_camera(camera, 1.0, camera.clock)


def test_period_and_latency_are_measured_and_one_hiccup_does_not_count():
    times = [*range(0, 500, 33), *range(600, 1200, 33)]
    assert measure(Clocked(times)) == FrameTiming(33 * MS, 12 * MS)


def test_pictures_that_were_skipped_do_not_make_the_camera_slow():
    assert measure(Clocked(range(0, 2000, 66), skip=2)) == FrameTiming(33 * MS, 12 * MS)


@pytest.mark.parametrize("period_ms", [200, 250, 400, 800])
def test_a_slow_camera_is_measured_for_longer(period_ms: int):
    camera = Clocked(range(50, 20000, period_ms))
    assert measure(camera) == FrameTiming(period_ms * MS, 12 * MS)
    assert camera.now_ns < (MOST_SECONDS + 0.2) * 1e9


@pytest.mark.parametrize(
    ("times", "latency_ms"), [([], 0), ([0], 0), ([0, 4000], 12), (range(0, 20000, 1500), 12)]
)
def test_of_a_camera_that_is_slower_still_a_period_is_known_that_it_does_not_reach(
    times: Sequence[int], latency_ms: int
):
    found = measure(Clocked(times))
    assert found is not None
    assert found.at_least
    seen = sum(at <= MOST_SECONDS * 1000 for at in times)
    assert found.period_ns == pytest.approx(MOST_SECONDS * 1e9 / (seen + 1), rel=0.05)
    assert found.latency_ns == latency_ms * MS


def test_a_camera_that_is_lost_meanwhile_tells_nothing():
    camera = Clocked(range(0, 2000, 33))
    camera.lost_at_ms = 700
    assert measure(camera) is None


def test_the_slowest_camera_counts_and_one_unknown_makes_all_unknown():
    fast, slow = FrameTiming(16 * MS, 40 * MS), FrameTiming(66 * MS, 10 * MS)
    assert slowest([fast, slow]) == FrameTiming(66 * MS, 40 * MS)
    bound = FrameTiming(1250 * MS, 0, at_least=True)
    assert slowest([fast, bound]) == FrameTiming(1250 * MS, 40 * MS, at_least=True)
    assert slowest([fast, None]) is None
    assert slowest([]) is None
