"""What a trial came to: the escapes, and the measures. Pure: it asks the observer and the run's own words.

What is believed of the run's own words: when it noticed a fault and for which reason. What the arm did is the
observer's word alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .bounds import BOUNDS, END_NS, SERVO_SETTLE_NS, Configuration
from .classes import FaultClass

STILL_RAD = 0.005
"""A joint that stands may seem to move by so much (three ticks)."""
GOING_RAD = 0.05
"""The sweeping arm moves further in the last part of a trial that it must ride through."""
GOING_NS = 400_000_000
DROOP = 0.25
"""Share of `lead` that a joint may sink after a stop, once (docs/safety.md)."""
TRAVEL_SLACK_RAD = 0.02
REST_NS = 100_000_000
"""After the run has said that the arm is at rest, for the simulated servos to be so, too."""


class Moved(Protocol):
    @property
    def commanded(self) -> tuple[float, ...]: ...
    @property
    def true(self) -> tuple[float, ...]: ...


class Witness(Protocol):
    """What is asked of `observer.Observer`."""

    def escapes(self, since_ns: int, until_ns: int | None = None) -> Sequence[object]: ...
    def moving(self, t0_ns: int, t1_ns: int) -> Moved: ...
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
    def torque(self, t_ns: int) -> tuple[bool, ...]: ...
    def torque_register(self, t_ns: int) -> tuple[bool, ...]: ...


@dataclass(frozen=True, slots=True)
class Stop:
    """A protective stop, as the run tells it."""

    code: str
    at_ns: int
    """0 where only the latch file tells (the run's own words ended with it)."""
    category: int = 2


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
    noticed_ns: int = 0
    """When the run said that it ends, or that a process has died (park, coast)."""
    released_ns: int = 0
    """When the run said that torque is off."""
    exit_code: int | None = None
    exited_ns: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Durations in ms, None where there is none."""

    escapes: tuple[str, ...]
    false_stop: bool = False
    """A stop where there should have been none: no danger, but a failure."""
    detect_ms: float | None = None
    last_command_ms: float | None = None
    standstill_ms: float | None = None
    overshoot_rad: float | None = None
    bound_ms: float | None = None


@dataclass(slots=True)
class _Findings:
    escapes: list[str] = field(default_factory=list)

    def check(self, good: bool, text: str) -> None:
        if not good:
            self.escapes.append(text)


def judge(row: FaultClass, c: Configuration, line: Timeline, witness: Witness, category: int = 2) -> Verdict:
    """The verdict; `category`: of the robot's stops. Raises what the witness raises if it saw too little."""
    findings = _Findings()
    end_ns = line.next_ns or line.watched_ns
    for escape in witness.escapes(line.begin_ns, end_ns):
        findings.escapes.append(f"on the wire: {escape}")
    if line.stop is not None:
        _reason(findings, row, line.stop, category)
    checks = {
        "stop": _stop,
        "park": _park,
        "coast": _coast,
        "contained": _contained,
        "ride_through": _ride_through,
    }
    checks[row.outcome](findings, row, c, line, witness)
    if row.exit_codes:
        codes = " or ".join(map(str, row.exit_codes))
        findings.check(line.exit_code in row.exit_codes, f"exit code {line.exit_code}, not {codes}")
    return Verdict(
        tuple(findings.escapes),
        row.outcome == "ride_through" and line.stop is not None,
        **_measures(row, c, line, witness),
    )


def _reason(findings: _Findings, row: FaultClass, stop: Stop, category: int) -> None:
    if row.outcome != "ride_through":
        right = " or ".join(row.reasons) or "none at all"
        findings.check(stop.code in row.reasons, f"wrong reason: {stop.code}, not {right}")
    findings.check(stop.category == category, f"a stop of category {stop.category}, not {category}")


def _stop(findings: _Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Witness) -> None:
    bound_ns = BOUNDS[row.bound].of(c)
    if line.stop is None:
        findings.escapes.append("no stop")
    elif line.stop.at_ns:
        late_ms = (line.stop.at_ns - line.fault_ns - bound_ns) / 1e6
        findings.check(late_ms <= 0, f"noticed {late_ms:.0f} ms after the bound of {bound_ns / 1e6:.0f} ms")
    stop_ns = line.fault_ns + bound_ns
    _at_rest(findings, c, line, witness, stop_ns)
    _held(findings, row, c, line, witness, stop_ns)


def _at_rest(findings: _Findings, c: Configuration, line: Timeline, witness: Witness, stop_ns: int) -> None:
    """The arm stands in time: `stop_ns`, braking, and what its servos take to settle."""
    by_ns = stop_ns + c.stopping_ns + SERVO_SETTLE_NS
    if by_ns >= line.watched_ns:
        # Everything after the watch is judged by `_held`; the arm must stand by the end of the watch.
        by_ns = line.watched_ns
    droop = max(DROOP * lead for lead in _arm(c, c.lead))
    still_ns = _standstill_ns(witness, line, max(STILL_RAD, droop))
    if still_ns is None or still_ns > by_ns:
        when = "not at all" if still_ns is None else f"{(still_ns - by_ns) / 1e6:.0f} ms late"
        findings.escapes.append(f"motion after the bound and the stopping time: at rest {when}")


def _held(
    findings: _Findings,
    row: FaultClass,
    c: Configuration,
    line: Timeline,
    witness: Witness,
    stop_ns: int,
) -> None:
    """Once at rest nothing moves: not while latched, not by the reset, not until somebody lets it go on."""
    latest_ns = stop_ns + c.stopping_ns + c.easing_ns
    rest_ns = min(line.rest_ns or latest_ns, latest_ns) + REST_NS
    end_ns = line.next_ns or line.watched_ns
    if rest_ns < end_ns:
        moved = witness.moving(rest_ns, end_ns)
        findings.check(max(moved.commanded) == 0, f"commanded {max(moved.commanded):.4f} rad while latched")
        if row.torque == "held":
            way = max(_arm(c, moved.true))
            # An arm that was pressing on something may still give way a little, with its goals unchanged.
            most = STILL_RAD if row.outcome != "contained" else max(DROOP * lead for lead in _arm(c, c.lead))
            findings.check(way <= most, f"moved {way:.4f} rad while latched")
    _torque(findings, row, witness, end_ns)


def _standstill_ns(witness: Witness, line: Timeline, still_rad: float = STILL_RAD) -> int | None:
    """Of the arm: the simulated jaws creep to their goal for half a second, real ones may hold something."""
    return witness.standstill_ns(line.fault_ns, line.watched_ns, still_rad=still_rad, grippers=False)


def _arm(c: Configuration, values: tuple[float, ...]) -> list[float]:
    """The values of the joints that are no grippers."""
    return [value for value, gripper in zip(values, c.gripper, strict=True) if not gripper]


def _torque(findings: _Findings, row: FaultClass, witness: Witness, at_ns: int) -> None:
    if row.torque == "held":
        findings.check(all(witness.torque(at_ns)), f"torque is {witness.torque(at_ns)}, should be held")
    elif row.torque == "off":
        on = witness.torque_register(at_ns)
        findings.check(not any(on), f"torque is {on}, should be off")


def _park(findings: _Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Witness) -> None:
    bound_ns = BOUNDS[row.bound].of(c)
    findings.check(bool(line.noticed_ns), "nothing was done about it")
    if line.noticed_ns:
        late_ms = (line.noticed_ns - line.fault_ns - bound_ns) / 1e6
        findings.check(late_ms <= 0, f"noticed {late_ms:.0f} ms after the bound of {bound_ns / 1e6:.0f} ms")
    findings.check(bool(line.released_ns), "the arm was not parked and released")
    by_ns = line.fault_ns + bound_ns + c.stopping_ns + c.parking_ns
    if line.released_ns:
        late_ms = (line.released_ns - by_ns) / 1e6
        findings.check(late_ms <= 0, f"released {late_ms:.0f} ms after the time that parking may take")
        commanded = witness.last_command_ns(line.released_ns, line.watched_ns)
        findings.check(commanded is None, "a goal after the release")
    findings.check(
        0 < line.exited_ns <= by_ns + END_NS, "vla-run had not ended when it should have, or not at all"
    )
    _torque(findings, row, witness, line.watched_ns)


def _coast(findings: _Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Witness) -> None:
    goals_ns = BOUNDS[row.goals].of(c)
    if line.stop is not None:
        # It was control itself that stopped the arm, with its last strength.
        goals_ns += c.stopping_ns + c.easing_ns
    last_ns = witness.last_command_ns(line.fault_ns, line.watched_ns)
    if last_ns is not None:
        late_ms = (last_ns - line.fault_ns - goals_ns) / 1e6
        findings.check(late_ms <= 0, f"a goal {late_ms:.0f} ms after the last that there should be")
    travel = witness.travel_rad(line.fault_ns, line.watched_ns)
    ways = zip(*(_arm(c, values) for values in (travel, c.lead, c.stopping_rad)), strict=True)
    for joint, (way, lead, brake) in enumerate(ways):
        most = lead + (brake if line.stop is not None else 0.0) + TRAVEL_SLACK_RAD
        findings.check(way <= most, f"joint {joint + 1} went on for {way:.3f} rad, {most:.3f} are its lead")
    coasting_ns = round(max(lead / v for lead, v in zip(c.lead, c.velocity, strict=True)) * 1e9)
    by_ns = line.fault_ns + goals_ns + coasting_ns + SERVO_SETTLE_NS
    still_ns = _standstill_ns(witness, line)
    findings.check(still_ns is not None and still_ns <= by_ns, "the arm does not stand when it should")
    bound_ns = BOUNDS[row.bound].of(c)
    seen_ns = _noticed(line)
    findings.check(0 < seen_ns <= line.fault_ns + bound_ns, f"not reported within {bound_ns / 1e6:.0f} ms")
    _torque(findings, row, witness, line.watched_ns)


def _contained(
    findings: _Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Witness
) -> None:
    if line.stop is not None:
        _at_rest(findings, c, line, witness, line.stop.at_ns)
        _held(findings, row, c, line, witness, line.stop.at_ns)
    else:
        _torque(findings, row, witness, line.watched_ns)


def _ride_through(
    findings: _Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Witness
) -> None:
    if line.stop is not None:
        # Not an escape: `false_stop` says it. What follows must be as after any stop.
        _held(findings, row, c, line, witness, line.stop.at_ns)
        return
    moved = witness.moving(line.watched_ns - GOING_NS, line.watched_ns)
    findings.check(max(moved.true) >= GOING_RAD, "the arm does not move any more, and nobody said why")
    _torque(findings, row, witness, line.watched_ns)


def _noticed(line: Timeline) -> int:
    """When the run first said that something is wrong; 0 where it did not, or could not say when."""
    at_ns = [t for t in (line.noticed_ns, line.stop.at_ns if line.stop else 0) if t]
    return min(at_ns, default=0)


def _measures(row: FaultClass, c: Configuration, line: Timeline, witness: Witness) -> dict[str, float | None]:
    if row.outcome == "ride_through":
        return {}
    measured: dict[str, float | None] = {}
    if row.bound != "none":
        measured["bound_ms"] = BOUNDS[row.bound].of(c) / 1e6
    noticed_ns = _noticed(line)
    if noticed_ns:
        measured["detect_ms"] = (noticed_ns - line.fault_ns) / 1e6
    if row.outcome == "park" or (row.outcome == "contained" and line.stop is None):
        return measured
    last_ns = witness.last_command_ns(line.fault_ns, line.watched_ns)
    measured["last_command_ms"] = ((last_ns or line.fault_ns) - line.fault_ns) / 1e6
    still_ns = _standstill_ns(witness, line)
    if still_ns is not None:
        measured["standstill_ms"] = (still_ns - line.fault_ns) / 1e6
    if row.outcome == "coast" or noticed_ns:
        # What it went on for after it was noticed; where control is gone, after the fault.
        from_ns = line.fault_ns if row.outcome == "coast" else noticed_ns
        measured["overshoot_rad"] = witness.overshoot_rad(from_ns, line.watched_ns)
    elif line.stop is not None:
        # Nobody was left to say when it was noticed: not later than the last goal changed.
        measured["detect_ms"] = measured["last_command_ms"]
    return measured
