"""The account of a recording: which moment it is about, and everything that is known around it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..exit_codes import ExitCode
from ..messages import Phase
from ..report import environment
from .evidence import Evidence, evidence_at
from .facts import Braking, Margin, Stop, braking_after, margins_at, stops_of
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
    """The moment that it is about: the last stop, else control's last tick before it died, else the request
    to end, else the last tick."""
    control_died: str
    """How the control process ended, where it was not meant to; else empty."""
    quit_ns: int | None
    """When control was asked to end, if it was."""
    margins: tuple[Margin, ...]
    braking: Braking | None
    evidence: Evidence
    entries: tuple[Entry, ...]

    @property
    def stop(self) -> Stop | None:
        """The one that it is about."""
        return self.stops[-1] if self.stops else None

    @property
    def last(self) -> Tick:
        return self.recording.ticks[-1]

    @property
    def phase_before(self) -> Phase:
        """What control was doing until the moment."""
        before = [tick.phase for tick in self.recording.ticks if tick.now_ns < self.at_ns]
        return before[-1] if before and self.at_ns != self.last.now_ns else self.last.phase

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
    if stops:
        index = stops[-1].index
    elif quit_at is not None and not died:
        index = next(i for i, tick in enumerate(ticks) if tick.now_ns == quit_at)
    else:
        index = len(ticks) - 1
    at_ns = ticks[index].now_ns
    step = next((step for step in reversed(result.steps) if step.index == index), None)
    execution = step.before.execution if step is not None else None
    return Account(
        recording=recording,
        result=result,
        stops=stops,
        at_ns=at_ns,
        control_died=died,
        quit_ns=quit_at,
        margins=margins_at(recording, result, index),
        braking=braking_after(recording, stops[-1]) if stops else None,
        evidence=evidence_at(recording, at_ns, execution.end_ns if execution is not None else None),
        entries=timeline(recording),
    )


def _death_of_control(recording: Recording) -> str:
    """What the supervisor saw of it."""
    for event in recording.events:
        if event.code == "ended" and event.text.startswith("control ") and event.value not in _EXPECTED_ENDS:
            return event.text
    return ""


def as_json(account: Account) -> dict[str, Any]:
    """The account for programs; stamps in CLOCK_MONOTONIC ns, other units as in `facts` and `evidence`."""
    recording, result = account.recording, account.result
    braking = account.braking
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "recording": {
            "path": recording.path,
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
        "braking": None
        if braking is None
        else {
            **asdict(braking),
            "joints": [{**asdict(row), "to_limit": row.to_limit} for row in braking.joints],
        },
        "evidence": asdict(account.evidence),
        "timeline": [asdict(entry) for entry in account.entries],
    }
