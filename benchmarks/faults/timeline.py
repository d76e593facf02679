"""What is known of a trial: the run's own words (`Timeline`), and who is asked about the wire (`Seen`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

STILL_RAD = 0.005
"""A joint that stands may seem to move by so much (three ticks)."""


class Moved(Protocol):
    @property
    def commanded(self) -> tuple[float, ...]: ...
    @property
    def true(self) -> tuple[float, ...]: ...


class Told(Protocol):
    @property
    def goals(self) -> tuple[float, ...]: ...
    @property
    def true(self) -> tuple[float, ...]: ...
    @property
    def length(self) -> float: ...


class Torque(Protocol):
    @property
    def off(self) -> tuple[bool, ...]: ...
    @property
    def limp(self) -> tuple[bool, ...]: ...
    @property
    def first_ns(self) -> int | None: ...


class Seen(Protocol):
    """What is asked of `witness.Witness`."""

    def escapes(self, since_ns: int, until_ns: int | None = None) -> Sequence[object]: ...
    def excesses(self, t0_ns: int, t1_ns: int) -> Sequence[str]: ...
    def moving(self, t0_ns: int, t1_ns: int) -> Moved: ...
    def ways(self, t0_ns: int, t1_ns: int) -> Sequence[Told]: ...
    def goal_gap_ns(self, t0_ns: int, t1_ns: int) -> int: ...
    def next_goals_ns(self, after_ns: int) -> int | None: ...
    def goals_ns(self, after_ns: int, count: int) -> int | None: ...
    def last_command_ns(self, after_ns: int, until_ns: int | None = None) -> int | None: ...
    def standstill_ns(
        self,
        after_ns: int,
        until_ns: int | None = None,
        still_rad: float = STILL_RAD,
        for_s: float = 0.1,
        grippers: bool = True,
    ) -> int | None: ...
    def travel_rad(self, t0_ns: int, t1_ns: int | None = None) -> tuple[float, ...]: ...
    def overshoot_rad(self, t_detect_ns: int, until_ns: int | None = None) -> float: ...
    def off_park_rad(self, t_ns: int) -> tuple[float, ...]: ...
    def let_go(self, t0_ns: int, t1_ns: int) -> Torque: ...
    def torque_register(self, t_ns: int) -> tuple[bool, ...]: ...


@dataclass(frozen=True, slots=True)
class Stop:
    """A protective stop, as the run tells it."""

    code: str
    at_ns: int
    """Its own stamp; where no event can be written, when the endpoint told of it, which is later. 0: nothing
    tells (only the latch file, which is written at rest)."""
    category: int | None = None
    """None where it is not told: what the wire shows (torque held to the end) stands for it."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """When what happened in a trial (CLOCK_MONOTONIC, ns; 0: it did not)."""

    begin_ns: int
    """From here on the wire is judged."""
    fault_ns: int
    watched_ns: int
    """Until here the arm was watched, with nothing done to it."""
    stop: Stop | None = None
    rest_ns: int = 0
    """When the run said that the arm is at rest."""
    reset_ns: int = 0
    next_ns: int = 0
    """When, after the reset, somebody let the arm go on."""
    end_ns: int = 0
    """Until here the arm had to stand: after the fault was mended, and whatever was asked in vain."""
    obeyed: tuple[str, ...] = field(default=())
    """What was asked of the latched arm, should have been refused, and was not."""
    noticed_ns: int = 0
    """When the run said that it ends, or that a process has died (park, coast)."""
    released_ns: int = 0
    """When the run said that torque is off."""
    exit_code: int | None = None
    exited_ns: int = 0
    motor: int = 0
    """The motor of the fault, counted from 1; 0: of no single one."""

    @property
    def judged_ns(self) -> int:
        return self.next_ns or max(self.end_ns, self.watched_ns)
