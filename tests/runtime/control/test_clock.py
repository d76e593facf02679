"""The grid of control slots against an injected clock."""

from __future__ import annotations

from holdfast.runtime.control.clock import EARLY_NS, Grid

MS = 1_000_000


class FakeTime:
    """A clock that only sleeping and explicit work advance; every sleep may overshoot."""

    def __init__(self) -> None:
        self.now = 1_000 * MS
        self.overshoot = 0
        self.sleeps: list[float] = []

    def clock(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += round(seconds * 1e9) + self.overshoot
        self.overshoot = 0


def grid(time: FakeTime) -> Grid:
    return Grid(10 * MS, time.clock, time.sleep)


def test_slots_lie_on_an_absolute_grid() -> None:
    time = FakeTime()
    slots = grid(time)
    wakes = []
    for _ in range(5):
        wakes.append(slots.wait())
        time.now += 3 * MS
    assert [w.slot_ns for w in wakes] == [1_010 * MS + i * 10 * MS for i in range(5)]
    assert all(w.run == 1 and w.missed == 0 for w in wakes)


def test_it_wakes_up_a_little_early_and_sleeps_again() -> None:
    time = FakeTime()
    slots = grid(time)
    assert slots.wait().late_ns == 0
    assert [round(seconds * 1e9) for seconds in time.sleeps] == [10 * MS - EARLY_NS, EARLY_NS]


def test_a_wake_up_half_a_millisecond_late_is_missed_but_runs() -> None:
    time = FakeTime()
    slots = grid(time)
    time.overshoot = EARLY_NS + 600_000
    wake = slots.wait()
    assert (wake.run, wake.missed_late, wake.missed_overrun, wake.late_ns) == (0, 1, 0, 600_000)
    assert slots.wait().slot_ns == wake.slot_ns + 10 * MS


def test_a_wake_up_just_in_time_is_not_missed() -> None:
    time = FakeTime()
    slots = grid(time)
    time.overshoot = EARLY_NS + 400_000
    assert slots.wait().missed == 0


def test_slots_that_have_passed_are_skipped_never_caught_up() -> None:
    time = FakeTime()
    slots = grid(time)
    first = slots.wait()
    time.now += 57 * MS
    wake = slots.wait()
    assert wake.slot_ns == first.slot_ns + 60 * MS
    assert (wake.run, wake.missed_late, wake.missed_overrun) == (1, 0, 5)
    assert slots.wait().slot_ns == wake.slot_ns + 10 * MS


def test_a_tick_that_ends_after_the_next_slot_misses_it() -> None:
    time = FakeTime()
    slots = grid(time)
    slots.wait()
    time.now += 12 * MS
    wake = slots.wait()
    assert (wake.run, wake.missed_overrun, wake.late_ns) == (0, 1, 2 * MS)
