"""Latency histograms with a fixed relative error, cheap enough for a control tick.

Buckets grow by 4 % from 1 us to 10 s (the idea of HdrHistogram): a percentile read from them is at most 4 %
above the true one, whatever the number of samples, and memory never grows.
"""

from __future__ import annotations

import math
from collections import deque

from .messages import Histogram

GROWTH = 1.04
FIRST_NS = 1_000
BUCKETS = 2 + math.ceil(math.log(10_000_000) / math.log(GROWTH))
WINDOW_S = 10
"""Seconds in which overruns of a budget are counted."""
_SCALE = 1.0 / math.log(GROWTH)


class Recorder:
    """Collects durations of one stage (ns) and turns them into a `Histogram` message."""

    __slots__ = ("_marks", "buckets", "budget_ns", "count", "max_ns", "min_ns", "over", "stage", "sum_ns")

    def __init__(self, stage: str, budget_ns: int = 0) -> None:
        """`budget_ns`: longer durations are counted as overruns; 0 for none."""
        self.stage = stage
        self.budget_ns = budget_ns
        self.over = 0
        self._marks: deque[tuple[int, int]] = deque([(0, 0)], maxlen=WINDOW_S + 1)
        self.buckets = [0] * BUCKETS
        self.count = 0
        self.sum_ns = 0
        self.min_ns = 0
        self.max_ns = 0

    def add(self, duration_ns: int) -> None:
        if duration_ns > FIRST_NS:
            index = 1 + int(math.log(duration_ns / FIRST_NS) * _SCALE)
            self.buckets[index if index < BUCKETS else BUCKETS - 1] += 1
        else:
            duration_ns = max(0, duration_ns)
            self.buckets[0] += 1
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns
        if duration_ns < self.min_ns or self.count == 0:
            self.min_ns = duration_ns
        self.count += 1
        self.sum_ns += duration_ns
        if duration_ns > self.budget_ns > 0:
            self.over += 1

    def second(self) -> Histogram:
        """To be called once a second: the message, and the window moves on."""
        self._marks.append((self.count, self.over))
        return self.message()

    def restart_window(self) -> None:
        """Forgets the overruns in the window; the totals stay."""
        self._marks.clear()
        self._marks.append((self.count, self.over))

    def message(self) -> Histogram:
        count, over = self._marks[0]
        return Histogram(
            self.stage,
            self.count,
            self.sum_ns,
            self.min_ns,
            self.max_ns,
            tuple(self.buckets),
            self.budget_ns,
            self.over,
            self.count - count,
            self.over - over,
        )


def percentile_ns(histogram: Histogram, fraction: float) -> int:
    """Upper edge of the bucket that holds the given fraction (0..1) of the samples; 0 without samples."""
    if histogram.count == 0:
        return 0
    wanted = max(1, math.ceil(fraction * histogram.count))
    seen = 0
    for index, count in enumerate(histogram.buckets):
        seen += count
        if seen >= wanted:
            return min(round(FIRST_NS * GROWTH**index), histogram.max_ns)
    return histogram.max_ns
