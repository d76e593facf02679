"""What a recording shows, as numbers: the stop, what was measured against which limit, what the arm did.

Everything here is read off the recording or computed by the core from it; nothing is guessed. What a
recording does not hold is None. All stamps are CLOCK_MONOTONIC nanoseconds, all durations seconds unless the
name says otherwise. Joint values are in rad, a gripper's in percent of its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from ...drivers.types import JointState
from ..control.deadlines import REACTIONS, SUPERVISOR_SILENCE_NS, reaction_to
from ..messages import Phase
from .motors import Motors
from .records import Recording, Tick
from .replay import ReplayResult, Step

STOOD = 0.005
"""The arm has stood from the first sample on from which no joint (grippers aside) moved more than this (rad)
for `STOOD_NS`."""
STOOD_NS = 100_000_000
_POLICY_FAULT_NS = 1_000_000_000
"""A fault of the policy process so long before a stop for the same condition is where that came from."""

_OUTSIDE = {
    "policy_lost": "control, at the end of the policy's channel",
    "supervisor_lost": "control, at the end of the supervisor's channel",
    "protocol": "control, reading its channels",
    "bus_lost": "control, at the motor port",
    "bus_write_failed": "control, at the motor port",
    "gate_denied": "control's gate, at a write to the motors",
    "requested": "control, as it was told to stop",
    "over_budget": "the process whose stage is named, from the time that it took",
    "internal": "control, after an error of its own",
}
"""Who finds the conditions that reach the core from outside; all others are faults of the policy process."""


@dataclass(frozen=True, slots=True)
class Stop:
    """One protective stop."""

    index: int
    """Into `Recording.ticks`."""
    at_ns: int
    code: str
    text: str
    phase: str
    """What control was doing until then."""
    meaning: str
    """The row of `deadlines.REACTIONS`."""
    reaction: str
    """What that row's condition leads to on this robot: `deadlines.reaction_to`."""
    tuned: bool
    """Whether the robot file chose that."""
    category: int
    """2: the arm holds with torque on; 1: it is released once at rest (IEC 60204-1)."""
    noticed_by: str
    """The process that noticed it, and where."""
    reset_ns: int | None
    """When a person reset it, if that is in the recording."""


@dataclass(frozen=True, slots=True)
class Margin:
    """Something that control watches, at one tick, against its limit."""

    name: str
    value: float
    limit: float
    unit: str
    where: str = ""
    """The joint, the motor or the chunk that it is of."""
    stops: Literal["above", "below", "from"] = "above"
    """Which side of the limit is a stop; `from`: reaching it."""

    @property
    def exceeded(self) -> bool:
        if self.stops == "below":
            return self.value < self.limit
        return self.value > self.limit or (self.stops == "from" and self.value == self.limit)


@dataclass(frozen=True, slots=True)
class JointRow:
    """One joint over a stop."""

    name: str
    unit: str
    low: float
    high: float
    measured: float | None
    """At the stop (the newest sample)."""
    commanded: float
    """The last setpoint before the stop that was sent; of those not sent, the last."""
    velocity: float
    """Of the last two setpoints before the stop, per second."""
    braked: float | None
    """How far the goals that were sent went on until the command was at rest; None where none was sent."""
    moved: float | None
    """Largest distance from where the arm was at the stop, until it stood or was last measured."""
    last: float | None
    """Measured when it stood, else last in the recording."""

    @property
    def to_limit(self) -> float | None:
        """From there to the nearer of its limits; negative: outside."""
        return None if self.last is None else min(self.last - self.low, self.high - self.last)


@dataclass(frozen=True, slots=True)
class Braking:
    """What command and arm did after a stop. Durations from the stop on; None: not in the recording."""

    command_rest_s: float | None
    last_sent_s: float | None
    """The last goal of the braking that was sent to the motors."""
    arm_stood_s: float | None
    """By `STOOD`; before the command was at rest it has not."""
    measured_for_s: float | None
    """The last joint state of the recording."""
    eased_s: float | None
    """When control reported the stop as complete, the arm eased off."""
    joints: tuple[JointRow, ...]


def unit(recording: Recording, joint: int) -> str:
    """Of a joint's values: a gripper counts in percent of its range."""
    return "%" if recording.config.gripper[joint] else "rad"


def stops_of(recording: Recording) -> tuple[Stop, ...]:
    """Every latched stop, oldest first."""
    found = []
    for index, tick in enumerate(recording.ticks):
        for note in tick.output.notes:
            if note.code == "stop":
                code, _, text = note.text.partition(": ")
                category = round(note.value) or recording.config.stop_category
                found.append(_stop(recording, index, tick, code, text, category))
    return tuple(found)


def _stop(recording: Recording, index: int, tick: Tick, code: str, text: str, category: int) -> Stop:
    row = REACTIONS.get(code)
    before = recording.ticks[index - 1].phase if index else None
    return Stop(
        index=index,
        at_ns=tick.now_ns,
        code=code,
        text=text,
        phase=before.name.lower() if before is not None else "unknown",
        meaning=row.meaning if row else "a condition without a row of its own",
        reaction=reaction_to(code, recording.config.reactions),
        tuned=code in recording.config.reactions,
        category=category,
        noticed_by=_noticed_by(recording, tick, code),
        reset_ns=_reset_after(recording, index),
    )


def _noticed_by(recording: Recording, tick: Tick, code: str) -> str:
    if any(condition.code == code for condition in tick.inbox.conditions):
        early = tick.now_ns - _POLICY_FAULT_NS
        fault = next(
            (f for f in recording.faults if f.code == code and early <= f.at_ns <= tick.now_ns), None
        )
        if fault is not None:
            return f"the policy process, {(tick.now_ns - fault.at_ns) / 1e6:.1f} ms before"
        return _OUTSIDE.get(code, "the policy process")
    return "control's core, in this tick"


def _reset_after(recording: Recording, index: int) -> int | None:
    for tick in recording.ticks[index + 1 :]:
        for note in tick.output.notes:
            if note.code == "reset" and not note.text.startswith("refused"):
                return tick.now_ns
    return None


def margins_at(recording: Recording, result: ReplayResult, index: int) -> tuple[Margin, ...]:
    """What control watched at a tick, against its limits, in the order of the table; empty where the replay
    does not reach that tick."""
    step = next((step for step in reversed(result.steps) if step.index == index), None)
    return tuple(_margins(recording, step)) if step is not None else ()


def _margins(recording: Recording, step: Step) -> list[Margin]:
    config, now, before, after = recording.config, step.tick.now_ns, step.before, step.after
    rows: list[Margin] = []

    def ages(name: str, since_ns: int, limit_ns: int, where: str = "") -> None:
        if since_ns:
            rows.append(Margin(name, (now - since_ns) / 1e6, limit_ns / 1e6, "ms", where))

    if after.joint is not None:
        ages("age of the joint state", after.joint.stamp_ns, config.joint_state_max_age_ns)
    chunk = step.tick.inbox.chunk
    if chunk is not None and before.chunk_age_limit_ns:
        ages(
            "age of the chunk that arrived",
            chunk.observation_ns,
            before.chunk_age_limit_ns,
            str(chunk.chunk_id),
        )
    if before.phase == Phase.RUN:
        ages("silence of the policy", after.policy_heard_ns, before.silence_limit_ns)
    ages("silence of the supervisor", after.supervisor_heard_ns, SUPERVISOR_SILENCE_NS)
    row, share = after.slots.in_a_row, after.slots.window_fraction
    rows.append(Margin("slots missed in a row", row, config.max_missed_in_a_row, "", stops="from"))
    rows.append(Margin("share of slots missed", 100 * share, 100 * config.max_missed_fraction, "%"))
    starved, _ = after.starvation.in_window(now)
    rows.append(Margin("chunks run out in 10 s", starved, config.max_starved, "", stops="from"))
    joint = step.tick.joint
    if joint is None or before.motion is None:
        return rows
    errors = [abs(m - c) for m, c in zip(joint.position, before.motion.position, strict=True)]
    rows.append(_worst(recording, "following error", errors, config.following_error))
    loads = [0.0 if config.gripper[i] else 100 * abs(load) for i, load in enumerate(joint.load)]
    rows.append(_worst(recording, "load, of full torque", loads, [100 * config.load] * len(loads), "%"))
    for name, since in (("overloaded for", after.overload_since_ns), ("stalled for", after.stalled_since_ns)):
        durations = [(now - s) / 1e6 if s else 0.0 for s in since]
        if any(durations):
            rows.append(_worst(recording, name, durations, [config.load_ns / 1e6] * len(durations), "ms"))
    low, high = min(joint.voltage_v), max(joint.voltage_v)
    names = config.joint_names
    rows.append(
        Margin("lowest supply", low, config.voltage_v[0], "V", names[joint.voltage_v.index(low)], "below")
    )
    rows.append(Margin("highest supply", high, config.voltage_v[1], "V", names[joint.voltage_v.index(high)]))
    hottest = max(joint.temperature_c)
    where = names[joint.temperature_c.index(hottest)]
    rows.append(Margin("hottest motor", hottest, config.temperature_c, "C", where))
    return rows


def _worst(
    recording: Recording, name: str, values: Sequence[float], limits: Sequence[float], in_unit: str = ""
) -> Margin:
    """The joint nearest to (or furthest beyond) its limit."""
    shares = [value / limit for value, limit in zip(values, limits, strict=True)]
    i = shares.index(max(shares))
    joint = recording.config.joint_names[i]
    return Margin(name, values[i], limits[i], in_unit or unit(recording, i), joint)


def braking_after(recording: Recording, stop: Stop, motors: Motors) -> Braking | None:
    """What happened to command and arm from the tick of a stop on; None without a setpoint before it."""
    ticks = recording.ticks
    setpoints = [t.output.setpoint for t in ticks[max(0, stop.index - 2) : stop.index]]
    before = [s for s in setpoints if s is not None]
    if not before:
        return None
    rest = next((i for i in range(stop.index, len(ticks)) if ticks[i].phase is not Phase.STOPPING), None)
    after = [t.joint for t in ticks[stop.index :] if t.joint is not None]
    stood = (
        None if rest is None else _stood(recording, [j for j in after if j.stamp_ns >= ticks[rest].now_ns])
    )
    known = [joint for joint in after if stood is None or joint.stamp_ns <= stood.stamp_ns]
    sample = next((t.joint for t in reversed(ticks[: stop.index + 1]) if t.joint is not None), None)
    dt_s = recording.config.dt_ns * 1e-9
    sent = motors.last_goal(stop.index, rest)
    final = ticks[sent].output.setpoint if sent is not None else None
    sent_before = motors.last_goal(0, stop.index - 1)
    commanded = (ticks[sent_before].output.setpoint if sent_before is not None else None) or before[-1]
    joints = []
    for i, name in enumerate(recording.config.joint_names):
        start = sample.position[i] if sample is not None else None
        path = [joint.position[i] for joint in known]
        joints.append(
            JointRow(
                name=name,
                unit=unit(recording, i),
                low=recording.config.low[i],
                high=recording.config.high[i],
                measured=start,
                commanded=commanded[i],
                velocity=(before[-1][i] - before[0][i]) / dt_s if len(before) == 2 else 0.0,
                braked=abs(final[i] - commanded[i]) if final is not None else None,
                moved=max(abs(p - start) for p in path) if start is not None and path else None,
                last=path[-1] if path else None,
            )
        )
    eased = _time_of(recording, stop, "stopped")
    return Braking(
        command_rest_s=_seconds(stop, ticks[rest].now_ns) if rest is not None else None,
        last_sent_s=_seconds(stop, ticks[sent].now_ns) if sent is not None else None,
        arm_stood_s=_seconds(stop, stood.stamp_ns) if stood is not None else None,
        measured_for_s=_seconds(stop, after[-1].stamp_ns) if after else None,
        eased_s=_seconds(stop, eased) if eased is not None else None,
        joints=tuple(joints),
    )


def _seconds(stop: Stop, at_ns: int) -> float:
    return (at_ns - stop.at_ns) / 1e9


def _stood(recording: Recording, samples: Sequence[JointState]) -> JointState | None:
    """The first sample from which on the arm did not move, as far as that is in the recording."""
    gripper = recording.config.gripper
    for k, first in enumerate(samples):
        until_ns = first.stamp_ns + STOOD_NS
        if samples[-1].stamp_ns < until_ns:
            return None
        moved = (
            abs(p - q)
            for later in takewhile(lambda sample, until=until_ns: sample.stamp_ns <= until, samples[k:])
            for p, q, is_gripper in zip(later.position, first.position, gripper, strict=True)
            if not is_gripper
        )
        if max(moved, default=0.0) <= STOOD:
            return first
    return None


def _time_of(recording: Recording, stop: Stop, code: str) -> int | None:
    for tick in recording.ticks[stop.index :]:
        if any(note.code == code for note in tick.output.notes):
            return tick.now_ns
    return None
