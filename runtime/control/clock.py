"""The absolute grid of control ticks: sleep until the next slot, count the missed ones, never catch up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .deadlines import LATE_NS

EARLY_NS = 100_000
"""It wakes up so long before the slot and sleeps again. After most of a period the caches hold somebody
else's work; what the interpreter needs to wake up is fetched then, not in the slot."""


@dataclass(frozen=True, slots=True)
class Wake:
    """One wake-up, and the slots since the one before."""

    slot_ns: int
    wake_ns: int
    run: int
    """1 if this slot is on time."""
    missed_late: int
    """Slots missed because the sleep ended too late."""
    missed_overrun: int
    """Slots missed because the tick before ended after them."""

    @property
    def missed(self) -> int:
        return self.missed_late + self.missed_overrun

    @property
    def late_ns(self) -> int:
        return self.wake_ns - self.slot_ns


class Grid:
    """Slots at `start + i * period`.

    A slot is missed when the tick wakes more than 0.5 ms after it, or when the tick before ended after it.
    A tick that wakes late still runs while most of its slot lies ahead (the arm is better served by a
    setpoint 1 ms late than by none); slots that have passed are skipped, so setpoints never come in bursts.
    """

    def __init__(
        self,
        period_ns: int,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._period_ns = period_ns
        self._clock = clock
        self._sleep = sleep
        self._next_ns = clock() + period_ns

    def restart(self) -> None:
        """A new grid from now on, after work that does not belong to a tick (arming)."""
        self._next_ns = self._clock() + self._period_ns

    def wait(self) -> Wake:
        skipped = 0
        overran = self._clock() > self._next_ns
        while True:
            now = self._clock()
            if now < self._next_ns:
                left = self._next_ns - now
                self._sleep((left - EARLY_NS if left > EARLY_NS else left) * 1e-9)
                continue
            late = now - self._next_ns
            if late > self._period_ns // 2:
                # The next slot is nearer than this one: skip to it.
                passed = (late + self._period_ns // 2) // self._period_ns
                skipped += passed
                self._next_ns += passed * self._period_ns
                continue
            slot = self._next_ns
            self._next_ns += self._period_ns
            on_time = late <= LATE_NS
            missed = skipped + int(not on_time)
            by_late, by_overrun = (0, missed) if overran else (missed, 0)
            return Wake(slot, now, int(on_time), by_late, by_overrun)
