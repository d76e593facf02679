"""What a trial came to: the escapes, and the measures. Pure: it asks the witness and the run's own words.

What is believed of the run's own words: when it noticed a fault and for which reason. What the arm did is the
witness's word alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from .bounds import BOUNDS, Configuration
from .classes import FaultClass
from .outcomes import CHECKS, Findings, bound_ns, noticed_ns, standstill_ns
from .timeline import STILL_RAD, Seen, Stop, Timeline

MOVING_RAD = 0.02
MOVING_NS = 200_000_000
"""Before a fault the arm must have been told to move so far in so long, or nothing was tried."""
SPEED_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Durations in ms, None where there is none."""

    escapes: tuple[str, ...]
    failure: str = ""
    """What else the product did wrong: no danger, but the trial did not go as it must."""
    false_stop: bool = False
    """A stop where there should have been none: no danger, but a failure."""
    detect_ms: float | None = None
    last_command_ms: float | None = None
    standstill_ms: float | None = None
    overshoot_rad: float | None = None
    bound_ms: float | None = None
    """With the slots that were seen to be missed."""
    missed_ms: float | None = None
    """Of that bound: missed slots."""
    speed_rad_s: float | None = None
    """Of the fastest joint's goals when the fault came."""


def judge(row: FaultClass, c: Configuration, line: Timeline, witness: Seen, category: int = 2) -> Verdict:
    """The verdict; `category`: of the robot's stops. Raises what the witness raises if it saw too little."""
    findings = Findings()
    for escape in witness.escapes(line.begin_ns, line.judged_ns):
        findings.escapes.append(f"on the wire: {escape}")
    seen_ns = max(line.begin_ns, line.fault_ns - MOVING_NS)
    findings.escapes.extend(f"the arm itself: {text}" for text in witness.excesses(seen_ns, line.judged_ns))
    findings.escapes.extend(f"{what!r} was obeyed while latched" for what in line.obeyed)
    if line.stop is not None:
        _reason(findings, row, line.stop, category)
    CHECKS[row.outcome](findings, row, c, line, witness)
    if row.exit_codes:
        codes = " or ".join(map(str, row.exit_codes))
        findings.check(line.exit_code in row.exit_codes, f"exit code {line.exit_code}, not {codes}")
    before = witness.moving(line.fault_ns - MOVING_NS, line.fault_ns).commanded
    way = max(way for way, gripper in zip(before, c.gripper, strict=True) if not gripper)
    return Verdict(
        tuple(findings.escapes),
        "" if way >= MOVING_RAD else f"the arm had moved {way:.3f} rad before the fault: nothing was tried",
        row.outcome == "ride_through" and line.stop is not None,
        **_measures(row, c, line, witness),
    )


def _reason(findings: Findings, row: FaultClass, stop: Stop, category: int) -> None:
    if row.outcome != "ride_through":
        right = " or ".join(row.reasons) or "none at all"
        findings.check(stop.code in row.reasons, f"wrong reason: {stop.code}, not {right}")
    findings.check(stop.category in (None, category), f"a stop of category {stop.category}, not {category}")


def _measures(row: FaultClass, c: Configuration, line: Timeline, witness: Seen) -> dict[str, float | None]:
    fast = witness.ways(line.fault_ns - SPEED_NS, line.fault_ns)
    ways = [way.length for way, gripper in zip(fast, c.gripper, strict=True) if not gripper]
    measured: dict[str, float | None] = {"speed_rad_s": max(ways) / (SPEED_NS / 1e9)}
    if row.outcome == "ride_through":
        return measured
    most_ns = bound_ns(row, c, line, witness)
    if row.bound != "none":
        measured |= {"bound_ms": most_ns / 1e6, "missed_ms": (most_ns - BOUNDS[row.bound].of(c)) / 1e6}
    seen_ns = noticed_ns(line)
    if seen_ns:
        measured["detect_ms"] = (seen_ns - line.fault_ns) / 1e6
    if row.outcome == "park" or (row.outcome == "contained" and line.stop is None):
        return measured
    last_ns = witness.last_command_ns(line.fault_ns, line.watched_ns)
    measured["last_command_ms"] = ((last_ns or line.fault_ns) - line.fault_ns) / 1e6
    still_ns = standstill_ns(witness, line)
    if still_ns is not None:
        measured["standstill_ms"] = (still_ns - line.fault_ns) / 1e6
    if row.outcome == "coast" or seen_ns:
        # What it went on for after it was noticed; where control is gone, after the fault.
        from_ns = line.fault_ns if row.outcome == "coast" else seen_ns
        measured["overshoot_rad"] = witness.overshoot_rad(from_ns, line.watched_ns)
    elif line.stop is not None:
        # Nobody was left to say when: the last change of a goal stands for it, with the braking before it.
        measured["detect_ms"] = measured["last_command_ms"]
        if "bound_ms" in measured:
            measured["bound_ms"] = (most_ns + c.stopping_ns) / 1e6
    return measured


__all__ = ["STILL_RAD", "Stop", "Timeline", "Verdict", "judge"]
