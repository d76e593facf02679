"""The records of the policy process, and their codec. Knows nothing of control: the policy process may not.

All stamps are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import Any

from ...drivers.types import StampSource
from .kinds import SPAN_S
from .ring import record_bytes

THUMBNAIL_PX = 160
FRAMES_PER_S = 5.0
_JPEG_BYTES = 10_000
_INFERENCES_PER_S = 60.0

_FRAME = struct.Struct("<qqQBH")
_INFERENCE = struct.Struct("<II9q")
_TASK = struct.Struct("<I")
_SOURCES = tuple(StampSource)


def policy_ring_bytes(cameras: int) -> int:
    """Room for `SPAN_S` of records."""
    frames = cameras * FRAMES_PER_S * record_bytes(_JPEG_BYTES)
    return int(SPAN_S * (frames + _INFERENCES_PER_S * record_bytes(_INFERENCE.size)))


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """A camera's picture that an inference began with, made small."""

    camera: str
    stamp_ns: int
    stamp_source: StampSource
    arrival_ns: int
    sequence: int
    jpeg: bytes
    """At most `THUMBNAIL_PX` on the longer side; empty where it could not be encoded."""

    def pack(self) -> bytes:
        name = self.camera.encode(errors="replace")
        fixed = _FRAME.pack(
            self.stamp_ns, self.arrival_ns, self.sequence, _SOURCES.index(self.stamp_source), len(name)
        )
        return fixed + name + self.jpeg

    @classmethod
    def unpack(cls, body: bytes) -> FrameRecord:
        stamp_ns, arrival_ns, sequence, source, length = _FRAME.unpack_from(body)
        end = _FRAME.size + length
        name = body[_FRAME.size : end].decode(errors="replace")
        return cls(name, stamp_ns, _SOURCES[source], arrival_ns, sequence, body[end:])


@dataclass(frozen=True, slots=True)
class InferenceRecord:
    """One inference, from its pictures to the chunk that was sent."""

    chunk_id: int
    task_id: int
    observation_ns: int
    """Stamp of the oldest picture."""
    frame_arrival_ns: int
    got_ns: int
    """When the loop had the pictures."""
    start_ns: int
    prepared_ns: int
    """End of the pre-processing."""
    run_ns: int
    """End of the last `session.run`."""
    end_ns: int
    session_run_ns: int
    """Time inside the backend alone (a duration)."""
    sent_ns: int

    def pack(self) -> bytes:
        return _INFERENCE.pack(*astuple(self))

    @classmethod
    def unpack(cls, body: bytes) -> InferenceRecord:
        values: tuple[Any, ...] = _INFERENCE.unpack(body)
        return cls(*values)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """The instruction that the policy process was given; an empty text is a pause."""

    at_ns: int
    task_id: int
    text: str

    def pack(self) -> bytes:
        return _TASK.pack(self.task_id) + self.text.encode(errors="replace")

    @classmethod
    def unpack(cls, at_ns: int, body: bytes) -> TaskRecord:
        (task_id,) = _TASK.unpack_from(body)
        return cls(at_ns, task_id, body[_TASK.size :].decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """Why the policy process gave up; `code` is a row of control's table."""

    at_ns: int
    code: str
    text: str

    def pack(self) -> bytes:
        code = self.code.encode(errors="replace")
        return struct.pack("<H", len(code)) + code + self.text.encode(errors="replace")

    @classmethod
    def unpack(cls, at_ns: int, body: bytes) -> FaultRecord:
        (length,) = struct.unpack_from("<H", body)
        code = body[2 : 2 + length].decode(errors="replace")
        return cls(at_ns, code, body[2 + length :].decode(errors="replace"))
