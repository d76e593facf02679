"""What a motor may be told, from the robot file and the calibration alone, and what is wrong with a goal.

Part of the observer: it shares no code with the smoother, the checks or the gate of control.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Any

TICKS_PER_RAD = 4096 / (2 * math.pi)
ROUNDING_TICKS = 1.0
"""Two goals are rounded to ticks, each by half of one at most."""
CHANGE_ROUNDING_TICKS = 2.0
"""A difference of two differences of goals: three goals, the middle one twice."""
SLACK = 1e-3
"""Relative: rounding in the trajectory, the calibration and here."""
REST_TICKS = 6
"""A goal so near to where a resting joint is moves nothing (half a degree): arming writes such goals."""
ARMING_TICKS = 23
"""A joint may be so far from its goal (two degrees) when its torque is switched on: it sinks a little between
being read and being written to."""
STILL_TICKS = 2
STILL_STEPS = 10
"""A joint rests when it has stayed within `STILL_TICKS` for so many steps of the physics (50 ms)."""


@dataclass(frozen=True, slots=True)
class Escape:
    """Something that must never be on the wire."""

    stamp_ns: int
    joint: str
    """Empty where it concerns no single joint."""
    kind: str
    """`limits`: a goal outside the position limits of the robot file or the calibrated range.
    `step`: a goal further from the last one than the velocity limit allows in one control period. Waiting
    gives no credit: a servo runs to its goal at full speed, however long ago the last one was.
    `rate`: goals that together go faster than the velocity limit over their real time difference, the jitter
    of stamps granted: commands sent too often.
    `acceleration`: the step from goal to goal changes by more than the acceleration limit allows.
    `torque`: something other than 0 or 1 for the torque register.
    `arming`: torque switched on with a goal that is not where the joint truly is, or without any.
    `memory`: a write to the EEPROM or its lock.
    `frame`: a damaged frame, or an instruction other than reading and writing."""
    text: str


@dataclass(slots=True)
class Joint:
    """The limits of one motor, and what its last goals were."""

    name: str
    motor_id: int
    gripper: bool
    low: int
    high: int
    """Goals allowed by the files, ticks, both inclusive."""
    speed: float
    """Ticks/s."""
    step: float
    """Ticks from one goal to the next."""
    change: float
    """Ticks by which that may differ from the step before."""
    park: float = 0.0
    """The pose in which the arm may be let go, ticks."""
    lead: float = 0.0
    """How far a goal may be ahead of the shaft, ticks."""
    low_end: int = 0
    high_end: int = 0
    """The calibrated range, ticks."""
    goal_ns: array[int] = field(default_factory=lambda: array("q"))
    goal_ticks: array[int] = field(default_factory=lambda: array("i"))
    """Every change of the goal."""
    told_on: bool = False
    """The host has switched torque on, and nothing has taken it away since."""
    is_on: bool = False
    """The torque register, as the last truth record has it."""
    basis: int | None = None
    """The goal from which the next one is a step; None: it begins anew."""
    step_before: int | None = 0
    """None: after an escape, when it says nothing of what may follow."""
    rise: float = math.inf
    fall: float = math.inf
    """Least goal - speed x time, and least -goal - speed x time, since it began anew."""
    low_now: int = 0
    high_now: int = 0
    """The allowed goals, widened to where the joint rested when it was told to hold there."""
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=STILL_STEPS))
    """True positions."""

    def rests_at(self, goal: int) -> bool:
        """Whether the joint truly rests, and there: such a goal moves nothing."""
        recent = self.recent
        return (
            len(recent) == STILL_STEPS
            and max(recent) - min(recent) <= STILL_TICKS
            and abs(goal - recent[-1]) <= REST_TICKS
        )

    def switched_on(self) -> str:
        """What is wrong with switching torque on now; empty for nothing. Only where it was off."""
        if self.told_on or self.is_on or not self.recent:
            return ""
        if not self.goal_ticks:
            return "torque on without a goal"
        goal, true = self.goal_ticks[-1], self.recent[-1]
        far = abs(goal - true)
        return f"torque on at {true} with a goal of {goal}" if far > ARMING_TICKS else ""

    def begin(self, goal: int, *, resting: bool) -> None:
        """Starts anew from a goal that is no step: torque is off, or the joint rests there."""
        outside = resting and not self.low <= goal <= self.high
        self.low_now = min(self.low, goal - REST_TICKS) if outside else self.low
        self.high_now = max(self.high, goal + REST_TICKS) if outside else self.high
        self.basis, self.step_before = goal, 0
        self.rise = self.fall = math.inf

    def judge(self, goal: int, t_s: float, grace_s: float) -> tuple[str, str] | None:
        """The kind and text of what is wrong with the next goal."""
        assert self.basis is not None
        step = goal - self.basis
        said = f"{self.basis} -> {goal}"
        if not self.low_now <= goal <= self.high_now:
            return "limits", f"{said}, allowed are {self.low_now} .. {self.high_now}"
        if abs(step) > self.step:
            return "step", f"{said} in one command, allowed are {self.step:.1f} ticks"
        before = self.step_before
        if before is not None and abs(step - before) > self.change:
            return "acceleration", f"{said} after a step of {before}, which may change by {self.change:.1f}"
        ahead = max(goal - self.speed * t_s - self.rise, -goal - self.speed * t_s - self.fall)
        if ahead > self.speed * grace_s + ROUNDING_TICKS:
            return "rate", f"{said} is {ahead:.0f} ticks ahead of {self.speed:.0f} ticks/s"
        return None

    def took(self, goal: int, t_s: float, *, escaped: bool) -> None:
        """The next goal goes on from this one, even from an escape: one jump shall count once."""
        assert self.basis is not None
        self.step_before, self.basis = None if escaped else goal - self.basis, goal
        if escaped:
            self.rise = self.fall = math.inf
        self.rise = min(self.rise, goal - self.speed * t_s)
        self.fall = min(self.fall, -goal - self.speed * t_s)


def joint_of(joint: dict[str, Any], row: dict[str, int], period_s: float) -> Joint:
    """The limits of a joint in ticks, from its entry in the robot file and its row in the calibration."""
    limits = joint["limits"]
    low, high = row["range_min"], row["range_max"]
    if joint.get("gripper"):
        # Percent of the calibrated range; a drive mode of 1 turns it round.
        zero, scale = (high, (low - high) / 100) if row["drive_mode"] else (low, (high - low) / 100)
    else:
        zero, scale = (low + high) / 2, TICKS_PER_RAD
    ends = sorted(zero + scale * end for end in limits["position"])
    size = abs(scale) * (1 + SLACK)
    half = 0.5 + SLACK
    lowest, highest = max(low, math.ceil(ends[0] - half)), min(high, math.floor(ends[1] + half))
    return Joint(
        name=joint["name"],
        motor_id=row["id"],
        gripper=bool(joint.get("gripper")),
        low=lowest,
        high=highest,
        speed=limits["velocity"] * size,
        step=limits["velocity"] * size * period_s + ROUNDING_TICKS,
        change=limits["acceleration"] * size * period_s**2 + CHANGE_ROUNDING_TICKS,
        park=zero + scale * joint["park"],
        lead=limits["lead"] * abs(scale),
        low_end=low,
        high_end=high,
        low_now=lowest,
        high_now=highest,
    )
