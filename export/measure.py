"""Latency of the same computation in several forms, measured fairly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one inference on this machine's CPU, one thread."""

    p50_ms: float
    p99_ms: float
    runs: int


def measure(
    candidates: Mapping[str, Callable[[], object]], *, budget_s: float, most: int = 300
) -> dict[str, Latency]:
    """Runs the candidates in turn (so that a disturbance of the machine meets all of them alike)."""
    for run in candidates.values():
        for _ in range(WARM_UP):
            run()
    times: dict[str, list[int]] = {name: [] for name in candidates}
    end = time.monotonic() + budget_s
    for count in range(most):
        if count and time.monotonic() > end:
            break
        for name, run in candidates.items():
            start = time.perf_counter_ns()
            run()
            times[name].append(time.perf_counter_ns() - start)
    return {
        name: Latency(_percentile_ms(values, 50), _percentile_ms(values, 99), len(values))
        for name, values in times.items()
    }


def _percentile_ms(times_ns: list[int], percent: float) -> float:
    return float(np.percentile(times_ns, percent)) / 1e6
