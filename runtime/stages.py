"""The stages of a run, their deadlines, and the values that flow between `Sequence` and the supervisor."""

from __future__ import annotations

import signal
from collections.abc import Sequence as Items
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeAlias

from .exit_codes import ExitCode
from .messages import Arm, Message

if TYPE_CHECKING:
    from .schedulability import Schedule, Timing

Child = Literal["control", "policy"]


class Stage(Enum):
    """Where the run stands; the value is what a person reads."""

    STARTING = "starting"
    RETURNING = "moving to the start pose"
    PAUSING = "pause before the task"
    RUNNING = "running the task"
    ENDING = "ending the task"
    STOPPED = "protective stop"
    HELD = "reset, waiting for a person"
    QUITTING = "parking and releasing"
    LEAVING = "ending the policy process"
    DONE = "finished"


DEADLINES_S = {
    Stage.STARTING: 180.0,
    Stage.RETURNING: 60.0,
    Stage.ENDING: 10.0,
    Stage.QUITTING: 60.0,
    Stage.LEAVING: 3.0,
}
"""Longest stay in each stage that waits for a child. RUNNING, PAUSING, STOPPED and HELD wait for time or a
person."""
CONTROL_SILENCE_S = 5.0
"""Control sends a snapshot every 100 ms; silence for this long means that it hangs."""
LAST_GRACE_S = 10.0
"""Between asking control to stop in place and killing it."""

SIGNAL_EXITS = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGHUP: ExitCode.HANGUP,
}


@dataclass(frozen=True, slots=True)
class Send:
    child: Child
    message: Message


@dataclass(frozen=True, slots=True)
class End:
    """End a child: SIGTERM, or SIGKILL where `now`."""

    child: Child
    now: bool = False


@dataclass(frozen=True, slots=True)
class Journal:
    """A line for the event file and the screen; own codes: started, schedule, task_ready,
    task_start, task_end, late, fault, signal, asked, endpoint, notify, recorder, recording."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Save:
    """Write the flight recorder's last seconds to a file."""


Action: TypeAlias = Send | End | Journal | Save


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run shall do. Durations in seconds of wall time."""

    tasks: Items[str]
    duration_s: float | None
    """Per task; None: until a person or a signal ends it."""
    pause_s: float
    on_stop: Literal["wait", "exit"]
    strategy: str
    """How chunks are executed: a key of `control.strategies.STRATEGIES`."""
    timing: Timing
    """Of chunks, control and pictures, as far as known before the policy process has measured."""


@dataclass(slots=True)
class TaskRecord:
    """What became of one task."""

    task_id: int
    text: str
    ready_ns: int = 0
    start_ns: int = 0
    end_ns: int = 0
    outcome: str = "not started"


def describe_status(status: int) -> str:
    """An exit status as words: `exit code 1`, `killed by SIGKILL`."""
    if status >= 0:
        return f"exit code {status}"
    return f"killed by {signal.Signals(-status).name}"


def arm_message(task: TaskRecord | None, schedule: Schedule | None, *, follow: bool) -> Arm:
    """To the start pose, or into the task, with the limits that follow from the measured times."""
    assert task is not None
    assert schedule is not None
    limits_s = (schedule.chunk_age_limit_s, schedule.silence_limit_s)
    return Arm(task.task_id, not follow, follow, *(round(limit_s * 1e9) for limit_s in limits_s))
