"""A recording from its file, or from the rings of a run that died."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..messages import Chunk, MessageError
from . import codec
from .folder import CODE_FILE, CONTROL_RING, POLICY_RING, RINGS, RUN_FILE, SUPERVISOR_RING
from .kinds import KILLED, REASON_FILE, Kind, RecordingError
from .observed import FaultRecord, FrameRecord, InferenceRecord, TaskRecord
from .records import BusRecord, EventRecord, Recording, SnapshotRecord, StageRecord, Tick
from .ring import Record, Ring, read_ring
from .run_file import read_run_file

T = TypeVar("T")

_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
"""Of a member of a zip file (PKWARE APPNOTE 4.3.7)."""
_LOCAL_MAGIC = b"PK\x03\x04"
_MEMBERS = (REASON_FILE, RUN_FILE, *RINGS)
_REASON = re.compile(rb"[a-z0-9_]{1,40}")


def read_recording(path: Path) -> Recording:
    """Reads a written `.flight` file, or the folder of rings that a dead run has left.

    Damage costs what is damaged and is said in `notes`. Raises `RecordingError` for what is no recording, or
    has no ring of control that can be read.
    """
    notes: list[str] = []
    try:
        parts = _of_folder(path) if path.is_dir() else _of_file(path.read_bytes(), notes)
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        ring = read_ring(parts.get(CONTROL_RING, b""))
        config = codec.decode_config(ring.preamble)
    except RecordingError as error:
        what = error if CONTROL_RING in parts else "there is no ring of control in it"
        raise RecordingError(f"{path} is no recording that can be read: {what}") from error
    control = _Control(codec.TickCodec(len(config.joint_names)))
    _take_all(control.kinds(), ring, CONTROL_RING, notes, control.missing)
    beside = _Beside()
    for name in (SUPERVISOR_RING, POLICY_RING):
        try:
            _take_all(beside.kinds(), read_ring(parts.get(name, b"")), name, notes)
        except RecordingError as error:
            if name in parts:
                notes.append(f"{name}: {error}")
            elif name != POLICY_RING or _policy_began(control.chunks, beside.events):
                notes.append(f"{name} is not there")
    return Recording(
        path=str(path),
        run=read_run_file(parts.get(RUN_FILE), notes),
        config=config,
        ticks=tuple(control.ticks),
        states=tuple(control.states),
        gaps=frozenset(control.gaps),
        chunks=control.chunks,
        bus=tuple(control.bus),
        frames=tuple(beside.frames),
        inferences=tuple(beside.inferences),
        faults=tuple(beside.faults),
        tasks=tuple(beside.tasks),
        events=tuple(beside.events),
        stages=tuple(beside.stages),
        snapshots=tuple(beside.snapshots),
        notes=tuple(notes),
        reason=_reason(parts.get(REASON_FILE, b"")),
    )


def run_info(folder: Path) -> Mapping[str, Any]:
    """run.json of a folder of rings; empty where it cannot be read."""
    try:
        return read_run_file((folder / RUN_FILE).read_bytes(), [])
    except OSError:
        return {}


def _policy_began(chunks: Mapping[int, Chunk], events: Sequence[EventRecord]) -> bool:
    """Whether the policy process got as far as having a ring; a supervisor's ring that is missing says
    nothing of it, and has a note itself."""
    return bool(chunks) or any(event.source == "policy" and event.code == "ready" for event in events)


def _reason(content: bytes) -> str:
    return content.decode() if _REASON.fullmatch(content) else ""


def _of_folder(folder: Path) -> dict[str, bytes]:
    parts = {name: (folder / name).read_bytes() for name in (RUN_FILE, *RINGS) if (folder / name).exists()}
    if _is_held(folder):
        return parts
    # Of a run that ended by itself but could not write its file there is word.
    word = folder / CODE_FILE
    return {REASON_FILE: word.read_bytes() if word.exists() else KILLED.encode(), **parts}


def _is_held(folder: Path) -> bool:
    """Whether a process of the run lives."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _of_file(data: bytes, notes: list[str]) -> dict[str, bytes]:
    """The members of a zip file, by their own headers: a file that was cut off has lost its directory."""
    parts: dict[str, bytes] = {}
    at = data.find(_LOCAL_MAGIC)
    while at >= 0 and at + _LOCAL_HEADER.size <= len(data):
        *_, checksum, _, size, name_length, extra_length = _LOCAL_HEADER.unpack_from(data, at)
        begin = at + _LOCAL_HEADER.size + name_length + extra_length
        name = data[at + _LOCAL_HEADER.size : at + _LOCAL_HEADER.size + name_length].decode(errors="replace")
        end = begin
        if name in _MEMBERS and name not in parts:
            content = parts[name] = data[begin : begin + size]
            end = begin + size
            if len(content) < size:
                notes.append(f"{name} is cut off")
            elif zlib.crc32(content) != checksum:
                notes.append(f"{name} is not as it was written: its checksum is another one")
        at = data.find(_LOCAL_MAGIC, max(end, at + 1))
    return parts


def _take_all(
    kinds: Mapping[int, Callable[[Record], None]],
    ring: Ring,
    name: str,
    notes: list[str],
    missing: Callable[[], None] = lambda: None,
) -> None:
    """Hands each record to what takes its kind. `missing`: called where records are lost in between."""
    notes += [f"{name}: {note}" for note in ring.notes]
    problems: list[str] = []
    for index, record in enumerate(ring.records):
        if index in ring.gaps:
            missing()
        try:
            if record.kind not in kinds:
                raise RecordingError(f"records of the unknown kind {record.kind}")
            kinds[record.kind](record)
        except (RecordingError, MessageError, struct.error, ValueError, IndexError) as error:
            problems.append(str(error))
            missing()
    if problems:
        notes.append(f"{name}: {len(problems)} records cannot be read; the first: {problems[0]}")


@dataclass(slots=True)
class _Control:
    """What control's ring holds, tick by tick."""

    ticks_of: codec.TickCodec
    ticks: list[Tick] = field(default_factory=list)
    states: list[tuple[int, Any]] = field(default_factory=list)
    gaps: set[int] = field(default_factory=set)
    chunks: dict[int, Chunk] = field(default_factory=dict)
    bus: list[BusRecord] = field(default_factory=list)
    _chunk: tuple[int, Chunk] | None = None
    """The newest chunk and the sequence of its record."""

    def kinds(self) -> dict[int, Callable[[Record], None]]:
        return {
            Kind.TICK: self._tick,
            Kind.CHUNK: self._take_chunk,
            Kind.STATE: self._state,
            Kind.BUS: self._bus,
        }

    def missing(self) -> None:
        """What was before does not lead up to the next tick, nor does a state that was written since."""
        while self.states and self.states[-1][0] == len(self.ticks):
            self.states.pop()
        if self.ticks:
            self.gaps.add(len(self.ticks))

    def _tick(self, record: Record) -> None:
        chunk = self._chunk[1] if self._chunk is not None and self._chunk[0] == record.sequence - 1 else None
        if chunk is None and not self.ticks and self.ticks_of.has_chunk(record.payload):
            # The oldest tick of the ring, whose chunk has just been written over.
            return
        self.ticks.append(self.ticks_of.decode(record.sequence, record.payload, chunk))

    def _take_chunk(self, record: Record) -> None:
        chunk = Chunk.unpack(record.payload)
        self._chunk = (record.sequence, chunk)
        self.chunks[chunk.chunk_id] = chunk

    def _state(self, record: Record) -> None:
        self.states.append((len(self.ticks), codec.decode_state(record.payload)))

    def _bus(self, record: Record) -> None:
        self.bus.append(codec.decode_bus(record.sequence, record.stamp_ns, record.payload))


@dataclass(slots=True)
class _Beside:
    """What the rings of policy and supervisor hold."""

    frames: list[FrameRecord] = field(default_factory=list)
    inferences: list[InferenceRecord] = field(default_factory=list)
    faults: list[FaultRecord] = field(default_factory=list)
    tasks: list[TaskRecord] = field(default_factory=list)
    events: list[EventRecord] = field(default_factory=list)
    stages: list[StageRecord] = field(default_factory=list)
    snapshots: list[SnapshotRecord] = field(default_factory=list)

    def kinds(self) -> dict[int, Callable[[Record], None]]:
        return {
            Kind.FRAME: _into(self.frames, lambda r: FrameRecord.unpack(r.payload)),
            Kind.INFERENCE: _into(self.inferences, lambda r: InferenceRecord.unpack(r.payload)),
            Kind.FAULT: _into(self.faults, lambda r: FaultRecord.unpack(r.stamp_ns, r.payload)),
            Kind.TASK: _into(self.tasks, lambda r: TaskRecord.unpack(r.stamp_ns, r.payload)),
            Kind.EVENT: _into(self.events, lambda r: codec.decode_event(r.payload)),
            Kind.STAGE: _into(self.stages, lambda r: StageRecord(r.stamp_ns, r.payload.decode())),
            Kind.SNAPSHOT: _into(
                self.snapshots, lambda r: SnapshotRecord(r.stamp_ns, codec.decode_snapshot(r.payload))
            ),
        }


def _into(rows: list[T], read: Callable[[Record], T]) -> Callable[[Record], None]:
    return lambda record: rows.append(read(record))
