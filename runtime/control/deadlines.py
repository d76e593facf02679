"""The table from condition to reaction, and the accounts of missed slots and starvation.

Every way in which a run can go wrong is one row. Control, the policy process (through `Fault` codes) and
the documentation all use these codes; a code without a row is a protective stop. A robot file may choose
another reaction where the row offers one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ...drivers.errors import ConfigError
from . import quick

LATE_NS = 500_000
"""A tick that wakes later than this after its slot has missed it."""
WINDOW_NS = 10_000_000_000
"""Window of the share of missed slots, of starvation and of overrun budgets."""
HOLD_NS = 1_500_000_000
"""A `hold` lasts until its condition has not been noticed for so long (budgets are judged once a second)."""
SUPERVISOR_SILENCE_NS = 1_000_000_000
"""Longest time without a message of the supervisor, which sends a heartbeat every 100 ms."""
SETTLED_NS = 100_000_000
"""How long the arm must stand at a pose before it counts as reached."""
ARRIVAL_NS = 3_000_000_000
"""How long the arm may take to arrive after a pose is fully commanded."""
EASE_WAIT_NS = 500_000_000
"""After a stop the command is eased back once the arm stands, or after this time if it does not."""
STOP_INPUT_NS = 200_000_000
"""A reset is refused until no stop input has been pressed or missing for so long."""
START_TOLERANCE = 0.05
"""How far outside the position limits a joint may rest when torque is switched on (rad)."""
START_PERCENT = 5.0
"""The same for a gripper (percent of its range)."""


Kind = Literal["count", "hold", "stop"]


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a condition leads to, unless the robot file chooses another of `choices`."""

    kind: Kind
    """count: it is reported. hold: while chunks are followed, the arm decelerates and holds, and goes on when
    the condition has gone; else counted. stop: a protective stop, latched until a person resets it."""
    meaning: str
    choices: tuple[Kind, ...] = ()
    """What a robot file may choose besides `kind`. Nothing else: a fault cannot be tuned away."""


REACTIONS: dict[str, Reaction] = {
    "starved": Reaction("hold", "the chunk ran out before a new one came", ("stop",)),
    "starving": Reaction("count", "chunks run out again and again", ("hold", "stop")),
    "over_budget": Reaction("count", "a stage takes longer than its budget too often", ("hold", "stop")),
    "clamped": Reaction("count", "a target lay outside the limits or too far ahead of the arm"),
    "bus_error": Reaction("count", "one bus cycle failed; the age of the joint state decides"),
    "chunk_bad": Reaction(
        "stop", "a chunk with the wrong shape, order, stamps or values that are not finite"
    ),
    "chunk_stale": Reaction("stop", "a chunk rests on an observation older than allowed"),
    "chunk_far": Reaction(
        "stop", "the first chunk of a task begins far from where the arm is commanded to be"
    ),
    "policy_silent": Reaction("stop", "no chunk and no heartbeat of the policy process"),
    "policy_lost": Reaction("stop", "the policy process ended"),
    "supervisor_silent": Reaction("stop", "no message of the supervisor"),
    "supervisor_lost": Reaction("stop", "the supervisor ended"),
    "protocol": Reaction("stop", "a malformed message on a channel"),
    "joint_state_stale": Reaction("stop", "no complete joint state from the motors"),
    "bus_lost": Reaction("stop", "the motor port is gone"),
    "bus_write_failed": Reaction("stop", "setpoints cannot be written"),
    "gate_denied": Reaction("stop", "an outgoing write is not on the list for this phase"),
    "motor_fault": Reaction("stop", "a motor reports a fault"),
    "position_limit": Reaction("stop", "the next setpoint would leave the position limits"),
    "velocity_limit": Reaction("stop", "the next setpoint would exceed the velocity limit"),
    "acceleration_limit": Reaction("stop", "the next setpoint would exceed the acceleration limit"),
    "jerk_limit": Reaction("stop", "the next setpoint would exceed the jerk limit"),
    "stopping_distance": Reaction("stop", "braking from the next setpoint would leave the position limits"),
    "workspace": Reaction("stop", "the tip would leave the workspace"),
    "self_collision": Reaction("stop", "two parts of the arm would come too close to each other"),
    "table_collision": Reaction("stop", "the arm would come too close to the table"),
    "tool_speed": Reaction("stop", "the tip would be faster than allowed"),
    "no_trajectory": Reaction("stop", "no trajectory within the limits continues the commanded state"),
    "following_error": Reaction("stop", "a joint does not follow its setpoints"),
    "voltage": Reaction("stop", "a motor's supply is outside its limits"),
    "temperature": Reaction("stop", "a motor is too hot"),
    "load": Reaction("stop", "a joint is loaded beyond its limit for too long"),
    "current": Reaction("stop", "a motor draws more current than allowed for too long"),
    "gripper_force": Reaction("stop", "a gripper presses harder than allowed for too long"),
    "stalled": Reaction("stop", "a joint stands still although its target leads it by all that is allowed"),
    "not_reached": Reaction("stop", "the arm does not arrive at a pose that is fully commanded"),
    "missed_in_a_row": Reaction("stop", "too many control slots in a row were missed"),
    "missed_fraction": Reaction("stop", "too large a share of the control slots was missed"),
    "frame_age": Reaction("stop", "the newest camera frame is too old"),
    "frozen_camera": Reaction("stop", "a camera repeats the same picture"),
    "black_camera": Reaction("stop", "a camera's picture shows nothing"),
    "camera_lost": Reaction("stop", "a camera is gone"),
    "non_finite": Reaction("stop", "the policy's output is not finite"),
    "policy_error": Reaction("stop", "the policy process cannot go on"),
    "requested": Reaction("stop", "a person or the supervisor asked for a protective stop"),
    "stop_input": Reaction("stop", "a stop input is pressed"),
    "stop_input_lost": Reaction("stop", "a stop input cannot be read"),
    "internal": Reaction("stop", "an error in control itself"),
}


POLICY_FAULTS = frozenset(
    {
        "policy_error",
        "frame_age",
        "frozen_camera",
        "black_camera",
        "camera_lost",
        "non_finite",
        "over_budget",
        "joint_state_stale",
    }
)
"""What the policy process may say that it has noticed."""


def reaction_to(code: str, tuned: Mapping[str, str]) -> str:
    """The reaction to a condition: `count`, `hold`, `stop`, or a stop of a category, `stop_1` or `stop_2`.

    `tuned` is the robot file's choice by code; a code without a row is a stop.
    """
    row = REACTIONS.get(code)
    return tuned.get(code, row.kind if row is not None else "stop")


def stops(code: str, tuned: Mapping[str, str]) -> bool:
    """Whether a condition is a protective stop; unknown codes are."""
    return reaction_to(code, tuned).startswith("stop")


def check_reactions(tuned: Mapping[str, str]) -> None:
    """Raises `ConfigError` for a choice that the table does not offer."""
    for code, chosen in tuned.items():
        row = REACTIONS.get(code)
        if row is None:
            raise ConfigError(
                f"the robot file's reactions: no condition is called {code!r}; known are "
                f"{', '.join(REACTIONS)}"
            )
        offered = (row.kind, *row.choices)
        if chosen.partition("_")[0] not in offered:
            raise ConfigError(
                f"the robot file's reactions: {code} ({row.meaning}) cannot be {chosen!r}; the table offers "
                f"{' or '.join(offered)}"
                + (", where a stop may name its category (stop_1, stop_2)" if "stop" in offered else "")
            )


@dataclass(frozen=True)
class SlotAccount:
    """Missed slots: by reason, in a row, and in a window of which the older part is forgotten whole.

    The window is two half windows of `WINDOW_NS / 2`: the share is taken over both, so it covers 5 to 10 s.
    """

    total: int = 0
    late: int = 0
    """Missed because control woke too late."""
    overrun: int = 0
    """Missed because the tick before ended after the slot."""
    in_a_row: int = 0
    row_ended: bool = False
    half_start_ns: int = 0
    half_total: int = 0
    half_missed: int = 0
    previous_total: int = 0
    previous_missed: int = 0

    @property
    def missed(self) -> int:
        return self.late + self.overrun

    def add(self, now_ns: int, run: int, late: int, overrun: int) -> SlotAccount:
        """`late` and `overrun` slots were missed since the last call, then `run` (0 or 1) was on time."""
        missed = late + overrun
        if not missed and self.half_start_ns and now_ns - self.half_start_ns < WINDOW_NS // 2:
            # Nearly every tick.
            return quick.replace(
                self,
                total=self.total + run,
                in_a_row=0 if self.row_ended else self.in_a_row,
                row_ended=run > 0,
                half_total=self.half_total + run,
            )
        start, total, lost = self.half_start_ns or now_ns, self.half_total, self.half_missed
        previous_total, previous_missed = self.previous_total, self.previous_missed
        if now_ns - start >= WINDOW_NS // 2:
            previous_total, previous_missed = total, lost
            start, total, lost = now_ns, 0, 0
        return SlotAccount(
            total=self.total + run + missed,
            late=self.late + late,
            overrun=self.overrun + overrun,
            in_a_row=(0 if self.row_ended else self.in_a_row) + missed,
            row_ended=run > 0,
            half_start_ns=start,
            half_total=total + run + missed,
            half_missed=lost + missed,
            previous_total=previous_total,
            previous_missed=previous_missed,
        )

    def restarted(self) -> SlotAccount:
        """Row and window begin anew; the totals stay."""
        return SlotAccount(total=self.total, late=self.late, overrun=self.overrun)

    @property
    def window_fraction(self) -> float:
        """Share of missed slots in the window; 0 until the window holds one second at 100 Hz."""
        total = self.half_total + self.previous_total
        return (self.half_missed + self.previous_missed) / total if total >= 100 else 0.0


@dataclass(frozen=True, slots=True)
class StarvationAccount:
    """Times without a chunk to follow, while there should be one: since the start, and in the window."""

    times: int = 0
    since_ns: int = 0
    """Since when the arm starves; 0 while it does not."""
    past_ns: int = 0
    """How long it starved altogether, less the time under way."""
    recent: tuple[tuple[int, int], ...] = ()
    """(began, ended) of those that ended within the window."""

    def at(self, now_ns: int, starved: bool) -> StarvationAccount:
        """The account at `now_ns`; `starved`: whether the arm starves now."""
        account = self
        if account.recent and now_ns - account.recent[0][1] > WINDOW_NS:
            kept = tuple(row for row in account.recent if now_ns - row[1] <= WINDOW_NS)
            account = replace(account, recent=kept)
        if starved == bool(account.since_ns):
            return account
        if starved:
            return replace(account, times=account.times + 1, since_ns=now_ns)
        return replace(
            account,
            since_ns=0,
            past_ns=account.past_ns + now_ns - account.since_ns,
            recent=(*account.recent, (account.since_ns, now_ns)),
        )

    def restarted(self) -> StarvationAccount:
        """The window begins anew; the totals stay."""
        return replace(self, recent=())

    def total_ns(self, now_ns: int) -> int:
        return self.past_ns + (now_ns - self.since_ns if self.since_ns else 0)

    def in_window(self, now_ns: int) -> tuple[int, int]:
        """How often it began, and for how long it lasted (ns), within the window."""
        first_ns = now_ns - WINDOW_NS
        rows = (*self.recent, (self.since_ns, now_ns)) if self.since_ns else self.recent
        lasted_ns = sum(ended - max(began, first_ns) for began, ended in rows)
        return sum(began >= first_ns for began, _ in rows), lasted_ns
