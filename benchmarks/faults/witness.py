"""The observer with what the verdict asks beyond it: gaps between goals, ways, torque, limits, contacts.

Contacts are those of the simulator's own scene at the true positions: neither control's model of the arm nor
any of its code.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .contacts import Contacts
from .goals import TICKS_PER_RAD
from .observer import DRIVEN, PHYSICS_S, TORQUE_ON, Observer

DROOP = 0.25
"""Share of `lead` by which a joint may be elsewhere than it was told, at rest (docs/safety.md)."""
WINDOW_STEPS = 20
"""True speed is measured over so many steps of the physics (100 ms)."""
SPEED_GRACE_S = 0.05
"""A servo that lags may catch up by what it is told in so long."""
EVERY = 3
"""Contacts are looked for in every third step."""
MOST_SAID = 3


@dataclass(frozen=True, slots=True)
class Way:
    """What a joint was told, beginning with what held at the start, and where it truly was then. rad."""

    goals: tuple[float, ...]
    true: tuple[float, ...]

    @property
    def length(self) -> float:
        return sum(abs(b - a) for a, b in itertools.pairwise(self.goals))


@dataclass(frozen=True, slots=True)
class LetGo:
    """Per joint, whether at any time in a stretch."""

    off: tuple[bool, ...]
    """Its torque register was off."""
    limp: tuple[bool, ...]
    """It did not drive."""
    first_ns: int | None
    """When a register was off for the first time."""


class Witness(Observer):
    """See the module."""

    _contacts: Contacts | None = None

    def goal_gap_ns(self, t0_ns: int, t1_ns: int) -> int:
        """The longest time without goals for all motors in a stretch; its whole length if none came."""
        frames = self._frame_ns[bisect_right(self._frame_ns, t0_ns) : bisect_right(self._frame_ns, t1_ns)]
        stamps = [t0_ns, *frames, max(t0_ns, t1_ns)]
        return max(after - before for before, after in itertools.pairwise(stamps))

    def next_goals_ns(self, after_ns: int) -> int | None:
        """When goals for all motors came next; None if they did not."""
        return self.goals_ns(after_ns, 1)

    def goals_ns(self, after_ns: int, count: int) -> int | None:
        """When goals for all motors came for the `count`-th time, or the last time, if that was before; None
        if they did not."""
        at = bisect_right(self._frame_ns, after_ns)
        return next(reversed(self._frame_ns[at : at + count]), None)

    def ways(self, t0_ns: int, t1_ns: int) -> list[Way]:
        """What each joint was told in a stretch. Raises `NotObserved`."""
        first, last = self._stretch(t0_ns, t1_ns)
        n = len(self._joints)
        ways = []
        for index, joint in enumerate(self._joints):
            at, end = max(0, bisect_right(joint.goal_ns, t0_ns) - 1), bisect_right(joint.goal_ns, t1_ns)
            rows = [
                min(max(first, bisect_right(self._true_ns, stamp_ns) - 1), last - 1)
                for stamp_ns in joint.goal_ns[at:end]
            ]
            ways.append(
                Way(
                    tuple(goal / TICKS_PER_RAD for goal in joint.goal_ticks[at:end]),
                    tuple(self._ticks[row * n + index] / TICKS_PER_RAD for row in rows),
                )
            )
        return ways

    def off_park_rad(self, t_ns: int) -> tuple[float, ...]:
        """How far each joint truly was from its park pose. Raises `NotObserved`."""
        pairs = zip(self.ticks(t_ns), self._joints, strict=True)
        return tuple(abs(ticks - joint.park) / TICKS_PER_RAD for ticks, joint in pairs)

    def let_go(self, t0_ns: int, t1_ns: int) -> LetGo:
        """Which motors were switched off, or did not drive. Raises `NotObserved`."""
        bits = self._bits(t0_ns, t1_ns)
        off, limp = (bits & TORQUE_ON) == 0, (bits & DRIVEN) == 0
        first_ns = None
        if off.any():
            first_ns = self._true_ns[self._stretch(t0_ns, t1_ns)[0] + int(np.argmax(off.any(axis=1)))]
        return LetGo(tuple(off.any(axis=0).tolist()), tuple(limp.any(axis=0).tolist()), first_ns)

    def excesses(self, t0_ns: int, t1_ns: int) -> list[str]:
        """Where the arm truly was that must not be, while all its motors drove: outside its limits, faster
        than its commands may be, touching itself or the table. Raises `NotObserved`."""
        rows = self._rows(t0_ns, t1_ns)
        driven = ((self._bits(t0_ns, t1_ns) & DRIVEN) != 0).all(axis=1)
        if not driven.any():
            return []
        # Whole windows in which all motors drove.
        undriven = np.concatenate([[0], np.cumsum(~driven)])
        whole = undriven[WINDOW_STEPS + 1 :] == undriven[: -WINDOW_STEPS - 1]
        late_s, found = self.lag(t0_ns, t1_ns).worst_s, []
        for index, joint in enumerate(self._joints):
            if joint.gripper:
                continue
            ticks, droop = rows[driven, index], DROOP * joint.lead
            if ticks.min() < joint.low - droop or ticks.max() > joint.high + droop:
                found.append(f"{joint.name} was truly at {ticks.min()} .. {ticks.max()}, {joint.low} .. "
                             f"{joint.high} and {droop:.0f} are allowed")  # fmt: skip
            column = rows[:, index].astype(float)
            way = np.abs(column[WINDOW_STEPS:] - column[:-WINDOW_STEPS])[whole].max(initial=0)
            most = joint.speed * (WINDOW_STEPS * PHYSICS_S + SPEED_GRACE_S + late_s)
            if way > most:
                found.append(f"{joint.name} truly went {way:.0f} ticks in "
                             f"{WINDOW_STEPS * PHYSICS_S:g} s, {most:.0f} are allowed")  # fmt: skip
        return found + self._touches(rows[driven][::EVERY])

    def _touches(self, rows: NDArray[np.int32]) -> list[str]:
        self._contacts = self._contacts or Contacts(
            [(joint.low_end, joint.high_end) for joint in self._joints]
        )
        return self._contacts.among(rows)[:MOST_SAID]

    def _bits(self, t0_ns: int, t1_ns: int) -> NDArray[np.uint8]:
        first, last = self._stretch(t0_ns, t1_ns)
        n = len(self._joints)
        return np.array(self._torque[first * n : last * n], np.uint8).reshape(-1, n)
