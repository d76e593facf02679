"""What must come of each outcome of the table of classes, as checks of what the witness saw. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from .bounds import BOUNDS, END_NS, FEW_TICKS, SERVO_SETTLE_NS, Configuration
from .classes import FaultClass
from .timeline import STILL_RAD, Seen, Timeline

GOING_RAD = 0.05
"""The sweeping arm moves further in the last part of a trial that it must ride through."""
GOING_NS = 400_000_000
DROOP = 0.25
"""Share of `lead` that a joint may sink after a stop, once (docs/safety.md)."""
SLACK_RAD = 0.02
TICK_RAD = 0.0016
"""Of a servo's encoder, rounded up."""
REST_NS = 100_000_000
"""After the run has said that the arm is at rest, for the simulated servos to be so, too."""


@dataclass(slots=True)
class Findings:
    escapes: list[str] = field(default_factory=list)

    def check(self, good: bool, text: str) -> None:
        if not good:
            self.escapes.append(text)


def arm(c: Configuration, values: tuple[float, ...]) -> list[float]:
    """The values of the joints that are no grippers."""
    return [value for value, gripper in zip(values, c.gripper, strict=True) if not gripper]


def noticed_ns(line: Timeline) -> int:
    """When the run first said that something is wrong; 0 where it did not, or could not say when."""
    at_ns = [t for t in (line.noticed_ns, line.stop.at_ns if line.stop else 0) if t]
    return min(at_ns, default=0)


def bound_ns(row: FaultClass, c: Configuration, line: Timeline, witness: Seen) -> int:
    """By when the fault must have been noticed: the table's bound, and the slots that control was seen to
    miss meanwhile."""
    bound = BOUNDS[row.bound]
    most_ns = bound.of(c)
    if not bound.controls:
        return most_ns
    longest_ns = most_ns + c.missed_slots * c.tick_ns
    # Where nobody was left to tell when, the last change of a goal.
    last_ns = witness.last_command_ns(line.fault_ns, line.judged_ns) if line.stop is not None else None
    until_ns = noticed_ns(line) or last_ns or line.fault_ns + most_ns
    until_ns = min(until_ns, line.fault_ns + longest_ns, line.judged_ns)
    return most_ns + missed_ns(c, line, witness, line.fault_ns, until_ns)


def missed_ns(c: Configuration, line: Timeline, witness: Seen, t0_ns: int, t1_ns: int) -> int:
    """The slots that control was seen to miss in a row, in the worst case of a stretch, which ends with the
    goals that follow it."""
    next_ns = witness.next_goals_ns(t1_ns) or t1_ns
    end_ns = max(t0_ns, t1_ns, min(next_ns, line.judged_ns))
    return c.missed_ns(witness.goal_gap_ns(t0_ns, end_ns))


def braked_ns(c: Configuration, line: Timeline, witness: Seen, stop_ns: int) -> int:
    """When braking from `stop_ns` on must be over: after so many goals as the longest takes. A slot that is
    missed is not caught up, so it takes longer by as much: at most what may be missed in a row."""
    longest_ns = c.stopping_ns + FEW_TICKS * c.tick_ns
    last_ns = witness.goals_ns(stop_ns, math.ceil(longest_ns / c.tick_ns)) or 0
    latest_ns = stop_ns + longest_ns + c.missed_slots * c.tick_ns
    return min(max(stop_ns + longest_ns, last_ns), latest_ns, line.judged_ns)


def standstill_ns(witness: Seen, line: Timeline, still_rad: float = STILL_RAD) -> int | None:
    """Of the arm: the simulated jaws creep to their goal for half a second, real ones may hold something."""
    return witness.standstill_ns(line.fault_ns, line.watched_ns, still_rad=still_rad, grippers=False)


def _stop(findings: Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Seen) -> None:
    most_ns = bound_ns(row, c, line, witness)
    stop_ns = line.fault_ns + most_ns
    if line.stop is None:
        findings.escapes.append("no stop")
    elif line.stop.at_ns:
        late_ms = (line.stop.at_ns - stop_ns) / 1e6
        findings.check(late_ms <= 0, f"noticed {late_ms:.0f} ms after the bound of {most_ns / 1e6:.0f} ms")
        # Who has noticed must brake from then on, not only when the bound is over.
        stop_ns = min(stop_ns, line.stop.at_ns)
    _stands(findings, row, c, line, witness, stop_ns)


def _stands(
    findings: Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Seen, stop_ns: int
) -> None:
    """All that must be true of an arm from a stop on."""
    _braked(findings, row, c, line, witness, stop_ns)
    _at_rest(findings, row, c, line, witness, stop_ns)
    _held(findings, row, c, line, witness, stop_ns)


def _braked(
    findings: Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Seen, stop_ns: int
) -> None:
    """Commands brake as configured from `stop_ns` on; what follows only takes a joint off what it presses
    on. The arm itself goes no further than braking, and what it was behind its command. A joint that lies
    about where it is may be eased towards the lie, by its lead at most."""
    stop_ns = min(stop_ns, line.judged_ns)
    by_ns = braked_ns(c, line, witness, stop_ns)
    braking, after = witness.ways(stop_ns, by_ns), witness.ways(by_ns, line.judged_ns)
    travel = witness.travel_rad(stop_ns, line.judged_ns)
    for joint, (first, then, way) in enumerate(zip(braking, after, travel, strict=True)):
        name = f"joint {joint + 1}"
        if c.gripper[joint]:
            findings.check(then.length == 0, f"{name}, the gripper, was told to move after the braking time")
            continue
        ticks_rad = FEW_TICKS * c.tick_ns * 1e-9 * c.velocity[joint]
        most = c.stopping_rad[joint] + ticks_rad + SLACK_RAD
        lies = row.lies and joint + 1 == line.motor
        if lies:
            most += c.lead[joint]
        findings.check(
            first.length <= most,
            f"{name} was told to go on for {first.length:.3f} rad after the stop, {most:.3f} are its braking",
        )
        pairs = itertools.pairwise(zip(then.goals, then.true, strict=True))
        eased = lies or all(abs(g - at) <= abs(g0 - at) + TICK_RAD for (g0, _), (g, at) in pairs)
        findings.check(
            eased and then.length <= c.lead[joint] + SLACK_RAD,
            f"{name} was told to go on for {then.length:.3f} rad after the braking time, not to ease off",
        )
        most += DROOP * c.lead[joint]
        findings.check(
            way <= most, f"{name} went on for {way:.3f} rad after the stop, {most:.3f} are allowed"
        )


def _at_rest(
    findings: Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Seen, stop_ns: int
) -> None:
    """The arm stands in time: `stop_ns`, braking, and what its servos take to settle."""
    by_ns = braked_ns(c, line, witness, stop_ns) + SERVO_SETTLE_NS + (c.easing_ns if row.lies else 0)
    if by_ns >= line.watched_ns:
        # Everything after the watch is judged by `_held`; the arm must stand by the end of the watch.
        by_ns = line.watched_ns
    droop = max(DROOP * lead for lead in arm(c, c.lead))
    still_ns = standstill_ns(witness, line, max(STILL_RAD, droop))
    if still_ns is None or still_ns > by_ns:
        when = "not at all" if still_ns is None else f"{(still_ns - by_ns) / 1e6:.0f} ms late"
        findings.escapes.append(f"motion after the bound and the stopping time: at rest {when}")


def _held(
    findings: Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Seen, stop_ns: int
) -> None:
    """Once at rest nothing moves: not while latched, not by the reset, not until somebody lets it go on."""
    latest_ns = stop_ns + c.stopping_ns + c.easing_ns + c.missed_slots * c.tick_ns
    rest_ns = min(line.rest_ns or latest_ns, latest_ns) + REST_NS
    if rest_ns < line.judged_ns:
        moved = witness.moving(rest_ns, line.judged_ns)
        findings.check(max(moved.commanded) == 0, f"commanded {max(moved.commanded):.4f} rad while latched")
        if row.torque == "held":
            way = max(arm(c, moved.true))
            # An arm that was pressing on something may still give way a little, with its goals unchanged.
            most = STILL_RAD if row.outcome != "contained" else max(DROOP * lead for lead in arm(c, c.lead))
            findings.check(way <= most, f"moved {way:.4f} rad while latched")
    _torque(findings, row, line, witness)


def _torque(findings: Findings, row: FaultClass, line: Timeline, witness: Seen) -> None:
    """From the fault to the end, not at one moment."""
    if row.torque == "any":
        return
    if row.torque == "off":
        on = witness.torque_register(line.watched_ns)
        findings.check(not any(on), f"torque is {on}, should be off")
        return
    seen = witness.let_go(line.fault_ns, line.judged_ns)
    findings.check(not any(seen.off), f"torque was switched off: {seen.off}, should be held")
    limp = [joint + 1 for joint, limp in enumerate(seen.limp) if limp]
    allowed = [line.motor] if row.torque == "others_held" else []
    findings.check(set(limp) <= set(allowed), f"motors {limp} let go: torque should be held")


def _park(findings: Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Seen) -> None:
    most_ns = bound_ns(row, c, line, witness)
    findings.check(bool(line.noticed_ns), "nothing was done about it")
    if line.noticed_ns:
        late_ms = (line.noticed_ns - line.fault_ns - most_ns) / 1e6
        findings.check(late_ms <= 0, f"noticed {late_ms:.0f} ms after the bound of {most_ns / 1e6:.0f} ms")
    findings.check(bool(line.released_ns), "the arm was not parked and released")
    by_ns = line.fault_ns + most_ns + c.stopping_ns + c.parking_ns
    # What the motors say of it, not the run: the first of them that was let go.
    first_ns = witness.let_go(line.fault_ns, line.judged_ns).first_ns
    if first_ns is not None:
        late_ms = (first_ns - by_ns) / 1e6
        findings.check(late_ms <= 0, f"released {late_ms:.0f} ms after the time that parking may take")
        off = witness.off_park_rad(first_ns)
        for joint, (away, lead) in enumerate(zip(off, c.lead, strict=True)):
            most = DROOP * lead + SLACK_RAD
            findings.check(
                c.gripper[joint] or away <= most,
                f"joint {joint + 1} was let go {away:.3f} rad from its park pose, {most:.3f} are allowed",
            )
        way = max(arm(c, witness.moving(max(line.fault_ns, first_ns - REST_NS), first_ns).true))
        findings.check(way <= SLACK_RAD, f"it was let go in motion, {way:.3f} rad in 0.1 s")
        commanded = witness.last_command_ns(first_ns, line.watched_ns)
        findings.check(commanded is None, "a goal after the release")
    findings.check(
        0 < line.exited_ns <= by_ns + END_NS, "vla-run had not ended when it should have, or not at all"
    )
    _torque(findings, row, line, witness)


def _coast(findings: Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Seen) -> None:
    goals_ns = BOUNDS[row.goals].of(c)
    if BOUNDS[row.goals].controls:
        goals_ns += missed_ns(c, line, witness, line.fault_ns, line.fault_ns + goals_ns)
    if line.stop is not None:
        # It was control itself that stopped the arm, with its last strength.
        goals_ns += c.stopping_ns + c.easing_ns
    last_ns = witness.last_command_ns(line.fault_ns, line.watched_ns)
    if last_ns is not None:
        late_ms = (last_ns - line.fault_ns - goals_ns) / 1e6
        findings.check(late_ms <= 0, f"a goal {late_ms:.0f} ms after the last that there should be")
    travel = witness.travel_rad(line.fault_ns, line.judged_ns)
    ways = zip(*(arm(c, values) for values in (travel, c.lead, c.stopping_rad)), strict=True)
    for joint, (way, lead, brake) in enumerate(ways):
        most = lead + (brake if line.stop is not None else 0.0) + SLACK_RAD
        findings.check(way <= most, f"joint {joint + 1} went on for {way:.3f} rad, {most:.3f} are its lead")
    coasting_ns = round(max(lead / v for lead, v in zip(c.lead, c.velocity, strict=True)) * 1e9)
    by_ns = line.fault_ns + goals_ns + coasting_ns + SERVO_SETTLE_NS
    still_ns = standstill_ns(witness, line)
    findings.check(still_ns is not None and still_ns <= by_ns, "the arm does not stand when it should")
    most_ns = BOUNDS[row.bound].of(c)
    findings.check(
        0 < noticed_ns(line) <= line.fault_ns + most_ns, f"not reported within {most_ns / 1e6:.0f} ms"
    )
    _torque(findings, row, line, witness)


def _contained(findings: Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Seen) -> None:
    if line.stop is not None:
        _stands(findings, row, c, line, witness, line.stop.at_ns)
    else:
        _torque(findings, row, line, witness)


def _ride_through(
    findings: Findings, row: FaultClass, c: Configuration, line: Timeline, witness: Seen
) -> None:
    if line.stop is not None:
        # Not an escape: `false_stop` says it. What follows must be as after any stop.
        _held(findings, row, c, line, witness, line.stop.at_ns)
        return
    moved = witness.moving(line.watched_ns - GOING_NS, line.watched_ns)
    findings.check(
        max(arm(c, moved.true)) >= GOING_RAD, "the arm does not move any more, and nobody said why"
    )
    _torque(findings, row, line, witness)


CHECKS: dict[str, Callable[[Findings, FaultClass, Configuration, Timeline, Seen], None]] = {
    "stop": _stop,
    "park": _park,
    "coast": _coast,
    "contained": _contained,
    "ride_through": _ride_through,
}
"""By outcome."""
