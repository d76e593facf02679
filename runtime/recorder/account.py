"""The account of a recording: which moment it is about, and everything that is known around it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..exit_codes import ExitCode
from ..messages import Phase
from ..report import environment
from .evidence import Evidence, evidence_at
from .facts import Braking, Margin, Stop, braking_after, margins_at, stops_of
from .kinds import KILLED, REQUEST
from .motors import Motors, motors_of
from .records import Recording, Tick
from .replay import ReplayResult, replay
from .timeline import Entry, timeline

SCHEMA = "holdfast.explanation"
SCHEMA_VERSION = 1
_ARITHMETIC = ("holdfast", "ruckig")
"""Packages whose version can change what control decides."""
_EXPECTED_ENDS = (ExitCode.FINISHED, ExitCode.REFUSED, ExitCode.PROTECTIVE_STOP)


@dataclass(frozen=True, slots=True)
class Account:
    """What is told: in words by `story`, as a picture by `plot`, as JSON by `as_json`."""

    recording: Recording
    result: ReplayResult
    stops: tuple[Stop, ...]
    at_ns: int
    """The moment that it is about; see `_moment`."""
    control_died: str
    """How the control process ended, where it was not meant to; else empty."""
    quit_ns: int | None
    """When control was asked to end, if it was."""
    margins: tuple[Margin, ...]
    motors: Motors
    braking: Braking | None
    evidence: Evidence
    entries: tuple[Entry, ...]

    @property
    def stop(self) -> Stop | None:
        """The one that it is about."""
        return next((stop for stop in self.stops if stop.at_ns == self.at_ns), None)

    @property
    def earlier(self) -> tuple[Stop, ...]:
        """The other ones."""
        return tuple(stop for stop in self.stops if stop is not self.stop)

    @property
    def requested(self) -> bool:
        """Whether it is about the moment at which a person asked for the recording."""
        return self.recording.reason == REQUEST and self.at_ns == self.last.now_ns and self.stop is None

    @property
    def last(self) -> Tick:
        return self.recording.ticks[-1]

    @property
    def phase_before(self) -> Phase:
        """What control was doing until the moment."""
        before = [tick.phase for tick in self.recording.ticks if tick.now_ns < self.at_ns]
        ongoing = self.stop is None and self.at_ns == self.last.now_ns
        return before[-1] if before and not ongoing else self.last.phase

    @property
    def other_versions(self) -> tuple[str, ...]:
        """Where the code that recorded is not the code that replays: a reason for differences."""
        then, now = self.recording.run.get("environment", {}), environment()
        rows = [("machine", then.get("machine"), now["machine"])]
        for name in _ARITHMETIC:
            rows.append((name, then.get("packages", {}).get(name), now["packages"].get(name)))
        return tuple(
            f"recorded with {what} {old}, replayed with {new}" for what, old, new in rows if old != new
        )


def account_of(recording: Recording) -> Account:
    """Works everything out; the recording must have a tick."""
    result = replay(recording)
    stops = stops_of(recording)
    ticks = recording.ticks
    quit_at = next((tick.now_ns for tick in ticks if tick.inbox.quit is not None), None)
    died = _death_of_control(recording)
    index = _moment(recording, stops, died, quit_at)
    at_ns = ticks[index].now_ns
    step = next((step for step in reversed(result.steps) if step.index == index), None)
    execution = step.before.execution if step is not None else None
    motors = motors_of(recording, result)
    stop = next((stop for stop in stops if stop.index == index), None)
    return Account(
        recording=recording,
        result=result,
        stops=stops,
        at_ns=at_ns,
        control_died=died,
        quit_ns=quit_at,
        margins=margins_at(recording, result, index),
        motors=motors,
        braking=braking_after(recording, stop, motors) if stop is not None else None,
        evidence=evidence_at(recording, at_ns, execution.end_ns if execution is not None else None),
        entries=timeline(recording),
    )


def _moment(recording: Recording, stops: tuple[Stop, ...], died: str, quit_ns: int | None) -> int:
    """The tick that the account is about: a stop that nobody has reset; else the last one, where control died
    or a person asked for the recording; else the last stop, the request to end, or the last tick."""
    end = len(recording.ticks) - 1
    if stops and stops[-1].reset_ns is None:
        return stops[-1].index
    if died or recording.reason == REQUEST:
        return end
    if stops:
        return stops[-1].index
    return next((i for i, tick in enumerate(recording.ticks) if tick.now_ns == quit_ns), end)


def _death_of_control(recording: Recording) -> str:
    """What the supervisor saw of it; or that nobody was left to see it."""
    for event in recording.events:
        if event.code == "ended" and event.text.startswith("control ") and event.value not in _EXPECTED_ENDS:
            return event.text
    if recording.reason == KILLED and recording.ticks[-1].output.finish is None:
        return "it was killed, as were all other processes of the run"
    return ""


def at(account: Account, at_ns: int) -> str:
    """When, in seconds from the moment of the account; the plot has the same axis."""
    return f"{offset(account, at_ns)} s"


def offset(account: Account, at_ns: int) -> str:
    return f"{(at_ns - account.at_ns) / 1e9:+.3f}"


def as_json(account: Account) -> dict[str, Any]:
    """The account for programs; stamps in CLOCK_MONOTONIC ns, other units as in `facts` and `evidence`."""
    recording, result = account.recording, account.result
    braking, goal = account.braking, account.motors.last_goal()
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "recording": {
            "path": recording.path,
            "reason": recording.reason,
            "dry_run": recording.dry_run,
            "notes": list(recording.notes),
            "first_ns": recording.ticks[0].now_ns,
            "last_ns": account.last.now_ns,
            "ticks": len(recording.ticks),
        },
        "run": dict(recording.run),
        "replay": {
            "identical": result.identical,
            "ticks": len(result.steps),
            "states": result.states,
            "skipped": result.skipped,
            "difference": asdict(result.difference) if result.difference else None,
        },
        "at_ns": account.at_ns,
        "stops": [asdict(stop) for stop in account.stops],
        "control_died": account.control_died,
        "quit_ns": account.quit_ns,
        "last_phase": Phase(account.last.phase).name.lower(),
        "margins": [{**asdict(margin), "exceeded": margin.exceeded} for margin in account.margins],
        "motors": {
            "last_goal_ns": None if goal is None else recording.ticks[goal].now_ns,
            "torque_switched": account.motors.torque,
            "lost": account.motors.lost,
        },
        "braking": None
        if braking is None
        else {
            **asdict(braking),
            "joints": [{**asdict(row), "to_limit": row.to_limit} for row in braking.joints],
        },
        "evidence": asdict(account.evidence),
        "timeline": [asdict(entry) for entry in account.entries],
    }
