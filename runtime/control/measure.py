"""Rates, histograms and budgets of the control loop."""

from __future__ import annotations

from ..budgets import Budgets, overrun
from ..histogram import Recorder
from ..messages import Histogram

STAGES = (
    "wake_late",
    "bus_read",
    "step",
    "bus_write",
    "tick",
    "joint_age",
    "chunk_age",
    "action_age",
    "camera_to_wire",
    "camera_to_wire_own",
)
_SECOND = 1_000_000_000


class Rates:
    """Ticks per second: over the last whole second, over all, and over the worst whole second."""

    def __init__(self) -> None:
        self.now_hz = 0.0
        self.worst_hz = 0.0
        self.worst_second_ns = 0
        """When the worst second began; 0 before one was over."""
        self._start_ns = 0
        self._second_ns = 0
        self._in_second = 0
        self._ticks = 0
        self._last_ns = 0

    def tick(self, now_ns: int) -> None:
        if self._start_ns == 0:
            self._start_ns = self._second_ns = now_ns
        while now_ns - self._second_ns >= _SECOND:
            self.now_hz = float(self._in_second)
            if self.worst_second_ns == 0 or self.now_hz < self.worst_hz:
                self.worst_hz, self.worst_second_ns = self.now_hz, self._second_ns
            self._in_second = 0
            self._second_ns += _SECOND
        self._in_second += 1
        self._ticks += 1
        self._last_ns = now_ns

    def restart(self, now_ns: int) -> None:
        """After arming, whose pause is no tick of the loop."""
        self.__init__()
        self._start_ns = self._second_ns = now_ns

    @property
    def average_hz(self) -> float:
        elapsed = self._last_ns - self._start_ns
        return (self._ticks - 1) * _SECOND / elapsed if elapsed > 0 else 0.0


class Recorders:
    """One recorder per stage of `STAGES`."""

    def __init__(self, budgets: Budgets) -> None:
        self._max_fraction = budgets.max_fraction
        self.all = {stage: Recorder(stage, budgets.limits_ns.get(stage, 0)) for stage in STAGES}

    def add(self, stage: str, duration_ns: int) -> None:
        self.all[stage].add(duration_ns)

    def second(self) -> tuple[list[Histogram], list[str]]:
        """Once a second: the histograms that hold something, and which stages are over budget too often."""
        histograms = [recorder.second() for recorder in self.all.values() if recorder.count]
        found = [overrun(histogram, self._max_fraction) for histogram in histograms]
        return histograms, [text for text in found if text]

    def restart_windows(self) -> None:
        """What was before does not count against what comes."""
        for recorder in self.all.values():
            recorder.restart_window()
