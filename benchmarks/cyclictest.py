"""cyclictest (rt-tests) beside control: what this machine's kernel does to any real-time thread meanwhile.

It runs on control's core, by default at SCHED_FIFO 79, one below control. Its period is a prime number of
microseconds near control's 10 ms (at other rates: a little less than control's), so that the two do not stay
in step.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

PERIOD_US = 9973
PRIORITY = 79
"""Of FIFO; one below control, which it must not delay."""
HISTOGRAM_US = 100_000
LATE_US = 500
"""As late as a missed slot of control."""
END_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late a periodic thread woke up."""

    count: int
    missed_share: float
    """Share of its slots that it missed, counted as control's are: one for a wake-up more than 0.5 ms late,
    and one for each whole period that it slept through."""
    p50_us: float
    p99_us: float
    max_us: float


class Cyclictest:
    """One running cyclictest. It ends by itself after `most_s`, should nobody call `finish`."""

    def __init__(
        self, output: Path, cpu: int, most_s: float, priority: int = PRIORITY, period_us: int = PERIOD_US
    ) -> None:
        self._output = output
        self._period_us = period_us
        self._result: Lateness | str | None = None
        output.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                find() or "cyclictest", "--quiet", "--mlockall", f"--priority={priority}", "--threads=1",
                f"--affinity={cpu}", f"--interval={period_us}", f"--histogram={HISTOGRAM_US}",
                f"--duration={math.ceil(most_s)}", f"--json={output}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )  # fmt: skip

    def finish(self) -> Lateness | str:
        """Ends it; what it saw, or why it saw nothing (not permitted to run, say). May be called twice."""
        if self._result is None:
            self._result = self._finish()
        return self._result

    def _finish(self) -> Lateness | str:
        self._process.send_signal(signal.SIGINT)
        try:
            _, errors = self._process.communicate(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, errors = self._process.communicate()
        if not self._output.exists():
            return errors.strip().splitlines()[-1] if errors.strip() else "it wrote no result"
        try:
            return read(json.loads(self._output.read_text()), self._period_us)
        except (ValueError, KeyError) as error:
            return f"its result is not understood: {error!r}"


def find() -> str | None:
    """Path of cyclictest; Debian keeps it where an ordinary user's PATH may not look."""
    return shutil.which("cyclictest") or shutil.which("cyclictest", path="/usr/sbin:/usr/local/sbin")


def control_cpu() -> int:
    """The core that control takes for itself."""
    return max(os.sched_getaffinity(0))


def read(document: dict, period_us: int = PERIOD_US) -> Lateness:
    """The first thread of cyclictest's JSON. Raises `KeyError` when it has another form."""
    thread = document["thread"]["0"]
    histogram = {int(us): count for us, count in thread["histogram"].items()}
    overflows = max(0, int(thread["cycles"]) - sum(histogram.values()))
    return lateness(histogram, overflows, float(thread["max"]), period_us)


def lateness(
    histogram: dict[int, int], overflows: int, max_us: float, period_us: int = PERIOD_US
) -> Lateness:
    """From counts per whole microsecond; `overflows` lie beyond all of them."""
    count = sum(histogram.values()) + overflows
    if count == 0:
        return Lateness(0, 0.0, 0.0, 0.0, 0.0)
    late = {us: n for us, n in histogram.items() if us > LATE_US}
    late[HISTOGRAM_US] = late.get(HISTOGRAM_US, 0) + overflows
    skipped = sum(n * (us // period_us) for us, n in late.items())
    return Lateness(
        count,
        (sum(late.values()) + skipped) / (count + skipped),
        _quantile(histogram, count, 0.5, max_us),
        _quantile(histogram, count, 0.99, max_us),
        max_us,
    )


def _quantile(histogram: dict[int, int], count: int, share: float, beyond: float) -> float:
    seen = 0
    for us in sorted(histogram):
        seen += histogram[us]
        if seen >= share * count:
            return float(us)
    return beyond
