"""What the tick benchmark measures beside whole ticks: their parts, and fixed work that shows the weather."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import ruckig

JOINTS = 6
ROUNDS = 200
PARTS = {
    "decide": (("_inboxes", "collect"), ("core", "step")),
    "command": (("arm", "command"),),
    "telemetry": (("telemetry", "tick_done"),),
    "recorder": (("flight", "tick"), ("flight", "bus")),
}
"""What is timed by itself: attributes of the loop, and their methods. `decide`: inbox and core; `command`:
encoder and gate."""
REST = "the rest"
"""Of a tick: its bookkeeping, and the arm that stands in for motors."""


class Reference:
    """Fixed work, some of it Ruckig's and some the interpreter's: how fast the machine is just now."""

    def __init__(self) -> None:
        self.times_ns: list[int] = []
        self._ruckig, self._path = ruckig.Ruckig(JOINTS), ruckig.Trajectory(JOINTS)
        self._request = ruckig.InputParameter(JOINTS)
        self._request.max_velocity = [2.0] * JOINTS
        self._request.max_acceleration = [15.0] * JOINTS
        self._request.max_jerk = [300.0] * JOINTS
        self._request.current_velocity = [0.1] * JOINTS
        self._request.target_position = [0.02] * JOINTS

    def run(self) -> None:
        begun_ns, total = time.thread_time_ns(), 0.0
        self._ruckig.calculate(self._request, self._path)
        for i in range(ROUNDS):
            total += i * 0.5
        self.times_ns.append(time.thread_time_ns() - begun_ns)


class PartTimes:
    """A clock around parts of a tick. A part within another (the recorder's tap in a command) counts once."""

    def __init__(self) -> None:
        self.ticks: list[dict[str, int]] = []
        """Per tick: ns in each part."""
        self._spent = dict.fromkeys((*PARTS, REST), 0)
        self._under_way = [REST]
        self._since_ns = 0

    def begin(self) -> None:
        """A tick begins."""
        self._spent = dict.fromkeys((*PARTS, REST), 0)
        self._since_ns = time.perf_counter_ns()

    def end(self) -> None:
        """It has ended."""
        self._switch()
        self.ticks.append(self._spent)

    def around(self, owner: Any, method: str, part: str) -> None:
        """Times a method of an object from now on."""
        timed = getattr(owner, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._under_way.append(part)
            try:
                return timed(*args, **kwargs)
            finally:
                self._switch()
                self._under_way.pop()

        setattr(owner, method, call)

    def _switch(self) -> None:
        now_ns = time.perf_counter_ns()
        self._spent[self._under_way[-1]] += now_ns - self._since_ns
        self._since_ns = now_ns

    def p50_us(self) -> dict[str, float]:
        return {part: p50_us([tick[part] for tick in self.ticks]) for part in (*PARTS, REST)}


def p50_us(times_ns: Sequence[int]) -> float:
    return statistics.median_low(times_ns) / 1e3
