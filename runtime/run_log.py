"""Everything that a run leaves behind: the live view and the report read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from .exit_codes import ExitCode
from .messages import Histogram, Snapshot
from .schedulability import Schedule
from .stages import Plan, Stage, TaskRecord


class Screen(Protocol):
    """Where a run is shown. Must not block: the supervisor's heartbeat keeps the arm moving."""

    def line(self, text: str) -> None: ...

    def show(self, run: RunLog) -> None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the run."""

    t_ns: int
    source: str
    """control, policy or supervisor."""
    code: str
    text: str
    value: float
    task_id: int


@dataclass(slots=True)
class RunLog:
    """Everything that a run leaves behind; the live view and the report read it."""

    plan: Plan
    started_ns: int
    ended_ns: int = 0
    stage: Stage = Stage.STARTING
    tasks: list[TaskRecord] = field(default_factory=list)
    task: TaskRecord | None = None
    entries: list[Entry] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Events by code, also those beyond the number kept in `entries`."""
    guards: list[str] = field(default_factory=list)
    """What is armed, as control says it: `name: limit`."""
    snapshot: Snapshot | None = None
    histograms: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    """(source, stage) -> the newest."""
    ready: dict[str, Any] = field(default_factory=dict)
    """What the policy process measured before it was ready."""
    schedule: Schedule | None = None
    """Whether the policy is fast enough, once it has been measured."""
    stops: list[str] = field(default_factory=list)
    lost_messages: dict[str, int] = field(default_factory=dict)
    exit_code: ExitCode = ExitCode.INTERNAL
    reason: str = ""
    children: dict[str, str] = field(default_factory=dict)
    """How each child ended."""
    recordings: list[str] = field(default_factory=list)
    """Files of the flight recorder."""


def shown(entry: Entry) -> str:
    """An event as a line for a person."""
    return f"{entry.source}: {entry.code}: {entry.text}" if entry.text else f"{entry.source}: {entry.code}"
