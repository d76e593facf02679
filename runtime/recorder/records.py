"""What a recording holds, as frozen values: the ticks of control and everything beside them.

`observed` has the records of the policy process. All stamps are CLOCK_MONOTONIC nanoseconds of one computer
since its start; run.json says which time of day that was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...drivers.types import Direction, JointState
from ..control.config import CoreConfig
from ..control.state import CoreState, Inbox, Output
from ..messages import Chunk, Phase, Snapshot
from .observed import FaultRecord, FrameRecord, InferenceRecord, TaskRecord


@dataclass(frozen=True, slots=True)
class Tick:
    """One call of `core.step`: all that it was given and, but for its state, all that it gave back."""

    sequence: int
    """Of its record in the ring; also orders it among chunks and bus bytes."""
    now_ns: int
    slot_ns: int
    """The slot of the grid; 0 for a step after an error of our own, which has none."""
    late_ns: int
    """How long after the slot control woke."""
    joint: JointState | None
    inbox: Inbox
    """Complete, with its chunk."""
    phase: Phase
    """After the step."""
    output: Output


@dataclass(frozen=True, slots=True)
class BusRecord:
    """One transmission or answer on the motor bus."""

    sequence: int
    stamp_ns: int
    """SENT: when its first bit can have left. Else: when the last byte had been read."""
    direction: Direction
    data: bytes


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event of the run, as on the screen."""

    t_ns: int
    source: str
    """control, policy or supervisor."""
    code: str
    text: str
    value: float
    task_id: int


@dataclass(frozen=True, slots=True)
class StageRecord:
    """From here on the run was in this stage (`runtime.stages.Stage`, in its words)."""

    at_ns: int
    stage: str


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """Control's counters as the supervisor had them, once a second."""

    at_ns: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Recording:
    """All that could be read, each list oldest first."""

    path: str
    run: Mapping[str, Any]
    """run.json: what ran (session, bundle, robot, cameras, options, start time)."""
    config: CoreConfig
    """With which `ControlCore` can be built again."""
    ticks: tuple[Tick, ...]
    states: tuple[tuple[int, CoreState], ...]
    """(i, the whole state before `ticks[i]`); i may be `len(ticks)`, for the state after the last."""
    gaps: frozenset[int]
    """Ticks directly before which records are missing: what came before does not lead up to them. Tick 0 is
    not among them, although the ring has forgotten what was before it."""
    chunks: Mapping[int, Chunk]
    """By id."""
    bus: tuple[BusRecord, ...]
    frames: tuple[FrameRecord, ...]
    inferences: tuple[InferenceRecord, ...]
    faults: tuple[FaultRecord, ...]
    tasks: tuple[TaskRecord, ...]
    events: tuple[EventRecord, ...]
    stages: tuple[StageRecord, ...]
    snapshots: tuple[SnapshotRecord, ...]
    notes: tuple[str, ...]
    """What is damaged or missing, in words."""
    reason: str = ""
    """What the file was written for: the code of a stop or of a bad end, `kinds.REQUEST` or `kinds.KILLED`.
    Rings that lie in a folder which no process holds are those of a killed run. Empty: not known."""

    @property
    def dry_run(self) -> bool:
        """Whether no torque was given: then `Tick.joint` has the commanded position and speed in place of the
        measured ones, as the core was told; all else in it was measured."""
        return bool(self.run.get("options", {}).get("dry_run"))

    @property
    def complete(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not self.notes
