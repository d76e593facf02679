"""Values of control to bytes and back, exactly: every double bit for bit, every integer whole.

What comes at every tick is a struct; what is rare, and what later fields may add, is JSON derived from the
dataclasses (Python writes the shortest decimal that reads back as the same double, infinities included).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ...drivers.types import Direction, JointState
from ..control.clock import Wake
from ..control.config import CoreConfig
from ..control.state import CoreState, Inbox, Output
from ..messages import Chunk, Phase, Snapshot
from .kinds import FORMAT, RecordingError
from .records import BusRecord, EventRecord, Tick

T = TypeVar("T")

_HEAD = struct.Struct("<qqqHBBIIIII")
_JOINT, _CHUNK, _SETPOINT, _TARGET, _RESET, _POLICY, _SUPERVISOR, _RELEASE, _RARE = (1 << i for i in range(9))

_FREQUENT: dict[type, tuple[str, ...]] = {
    Inbox: (
        "chunk",
        "superseded",
        "reset",
        "heard_policy",
        "heard_supervisor",
        "slots_run",
        "slots_late",
        "slots_overrun",
    ),
    Output: ("setpoint", "target", "new_chunk_id", "release"),
}
"""Fields in the struct. As long as all others have their defaults, they take no room."""


def _rare(kind: type) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Any, ...]]:
    """What picks the other fields of a value, and what it picks when all have their defaults."""
    others = [field for field in fields(kind) if field.name not in _FREQUENT[kind]]
    defaults = [f.default if f.default_factory is MISSING else f.default_factory() for f in others]
    assert len(others) > 1, "attrgetter gives a tuple for two names or more"
    return attrgetter(*(field.name for field in others)), tuple(defaults)


_pick_inbox, _USUAL_INBOX = _rare(Inbox)
_pick_output, _USUAL_OUTPUT = _rare(Output)

_JOINT_TYPES = {name: hint for name, hint in get_type_hints(JointState).items() if name != "stamp_ns"}
_joint_rows = attrgetter(*_JOINT_TYPES)

_DIRECTIONS = {direction: bytes((direction,)) for direction in Direction}

_CONFIG = TypeAdapter(CoreConfig)
_STATE = TypeAdapter(CoreState)
_INBOX = TypeAdapter(Inbox)
_OUTPUT = TypeAdapter(Output)
_SNAPSHOT = TypeAdapter(Snapshot)
_EVENT = TypeAdapter(EventRecord)


class TickCodec:
    """For arms with `joints` joints. Encoding raises `struct.error` for rows of another length."""

    def __init__(self, joints: int) -> None:
        self._row = struct.Struct(f"<{joints}d")
        codes = ("q" if "int" in str(hint) else "d" for hint in _JOINT_TYPES.values())
        self._joint = struct.Struct("<q" + "".join(f"{joints}{code}" for code in codes))
        self._joints = joints

    def encode(
        self,
        now_ns: int,
        wake: Wake | None,
        joint: JointState | None,
        inbox: Inbox,
        phase: Phase,
        output: Output,
    ) -> bytes:
        """One call of `core.step`; `inbox.chunk` is only marked: it is the record before."""
        rare = _pick_inbox(inbox) != _USUAL_INBOX or _pick_output(output) != _USUAL_OUTPUT
        flags = (
            _JOINT * (joint is not None)
            | _CHUNK * (inbox.chunk is not None)
            | _SETPOINT * (output.setpoint is not None)
            | _TARGET * (output.target is not None)
            | _RESET * inbox.reset
            | _POLICY * inbox.heard_policy
            | _SUPERVISOR * inbox.heard_supervisor
            | _RELEASE * output.release
            | _RARE * rare
        )
        slot_ns, late_ns = (wake.slot_ns, wake.late_ns) if wake is not None else (0, 0)
        body = _HEAD.pack(
            now_ns, slot_ns, late_ns, flags, phase, self._joints, output.new_chunk_id, inbox.superseded,
            inbox.slots_run, inbox.slots_late, inbox.slots_overrun,
        )  # fmt: skip
        if joint is not None:
            body += self._joint.pack(joint.stamp_ns, *chain.from_iterable(_joint_rows(joint)))
        if output.setpoint is not None:
            body += self._row.pack(*output.setpoint)
        if output.target is not None:
            body += self._row.pack(*output.target)
        if rare:
            body += _json([_INBOX.dump_python(replace(inbox, chunk=None)), _OUTPUT.dump_python(output)])
        return body

    @property
    def usual_bytes(self) -> int:
        """Length of a tick in which nothing rare happens."""
        return _HEAD.size + self._joint.size + 2 * self._row.size

    def has_chunk(self, body: bytes) -> bool:
        """Whether the record before has the chunk of this tick. Raises `struct.error`."""
        return bool(_HEAD.unpack_from(body)[3] & _CHUNK)

    def decode(self, sequence: int, body: bytes, chunk: Chunk | None) -> Tick:
        """`chunk`: that of the record before. Raises `RecordingError`."""
        try:
            return self._decode(sequence, body, chunk)
        except (struct.error, ValueError, TypeError) as error:
            raise RecordingError(f"a tick that cannot be read: {error}") from error

    def _decode(self, sequence: int, body: bytes, chunk: Chunk | None) -> Tick:
        now_ns, slot_ns, late_ns, flags, phase, joints, chunk_id, superseded, run, late, overrun = (
            _HEAD.unpack_from(body)
        )
        if not flags & _CHUNK:
            chunk = None
        elif chunk is None:
            raise RecordingError("a tick without its chunk")
        if joints != self._joints:
            raise RecordingError(f"a tick of an arm with {joints} joints, expected {self._joints}")
        at = _HEAD.size
        joint = None
        if flags & _JOINT:
            stamp_ns, *flat = self._joint.unpack_from(body, at)
            at += self._joint.size
            rows = {name: tuple(flat[i * joints : (i + 1) * joints]) for i, name in enumerate(_JOINT_TYPES)}
            joint = JointState(stamp_ns=stamp_ns, **rows)
        setpoint = target = None
        if flags & _SETPOINT:
            setpoint = self._row.unpack_from(body, at)
            at += self._row.size
        if flags & _TARGET:
            target = self._row.unpack_from(body, at)
            at += self._row.size
        if flags & _RARE:
            inbox_json, output_json = json.loads(body[at:])
            inbox, output = _INBOX.validate_python(inbox_json), _OUTPUT.validate_python(output_json)
        else:
            inbox, output = Inbox(), Output(None)
        return Tick(
            sequence, now_ns, slot_ns, late_ns, joint,
            replace(
                inbox, chunk=chunk, superseded=superseded, reset=bool(flags & _RESET),
                heard_policy=bool(flags & _POLICY), heard_supervisor=bool(flags & _SUPERVISOR),
                slots_run=run, slots_late=late, slots_overrun=overrun,
            ),
            Phase(phase),
            replace(output, setpoint=setpoint, target=target, new_chunk_id=chunk_id,
                    release=bool(flags & _RELEASE)),
        )  # fmt: skip


def encode_config(config: CoreConfig) -> bytes:
    """The preamble of control's ring: all that a `ControlCore` is built from, and how ticks are laid out."""
    return _json({"format": FORMAT, "layout": _layout(), "config": _CONFIG.dump_python(config)})


def decode_config(preamble: bytes) -> CoreConfig:
    """Raises `RecordingError`, also for records that another version of Holdfast wrote."""
    try:
        content = json.loads(preamble)
        written, config = (content["format"], content["layout"]), content["config"]
    except (ValueError, TypeError, KeyError) as error:
        raise RecordingError(f"the head of control's ring is not JSON of a recorder: {error}") from error
    if written != (FORMAT, _layout()):
        raise RecordingError(
            "the recording was written by another version of Holdfast: read it with that one"
        )
    return _read(_CONFIG, config)


def _layout() -> dict[str, list[str]]:
    return {
        "joint": list(_JOINT_TYPES),
        "inbox": list(_FREQUENT[Inbox]),
        "output": list(_FREQUENT[Output]),
    }


def encode_state(state: CoreState) -> bytes:
    return _json(_STATE.dump_python(state))


def decode_state(body: bytes) -> CoreState:
    """Raises `RecordingError`."""
    return _from_json(_STATE, body)


def encode_event(event: EventRecord) -> bytes:
    return _json(_EVENT.dump_python(event))


def decode_event(body: bytes) -> EventRecord:
    """Raises `RecordingError`."""
    return _from_json(_EVENT, body)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    return _json(_SNAPSHOT.dump_python(snapshot))


def decode_snapshot(body: bytes) -> Snapshot:
    """Raises `RecordingError`."""
    return _from_json(_SNAPSHOT, body)


def encode_bus(direction: Direction, data: bytes) -> bytes:
    return _DIRECTIONS[direction] + data


def decode_bus(sequence: int, stamp_ns: int, body: bytes) -> BusRecord:
    """Raises `RecordingError`."""
    try:
        return BusRecord(sequence, stamp_ns, Direction(body[0]), body[1:])
    except (IndexError, ValueError) as error:
        raise RecordingError(f"bytes of the bus that cannot be read: {error}") from error


def _json(value: Any) -> bytes:
    return json.dumps(value, default=sorted, separators=(",", ":")).encode()


def _from_json(adapter: TypeAdapter[T], body: bytes) -> T:
    try:
        content = json.loads(body)
    except ValueError as error:
        raise RecordingError(f"not JSON: {error}") from error
    return _read(adapter, content)


def _read(adapter: TypeAdapter[T], content: Any) -> T:
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        raise RecordingError(f"values of another version of Holdfast: {error}") from error
