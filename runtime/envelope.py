"""The header of every message, and datagrams in and out: AF_UNIX SOCK_SEQPACKET keeps them whole.

The header has magic, version, type, session, sequence and stamp. The session is a random number drawn by the
supervisor at start: a message of another session is refused, so a socket that outlived its run can never
move an arm.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .messages import (
    Arm,
    Chunk,
    Event,
    Fault,
    Heartbeat,
    Histogram,
    Message,
    MessageError,
    Quit,
    Reset,
    Snapshot,
    State,
    Stop,
    Task,
    Type,
)

MAGIC = b"HF"
VERSION = 1
MAX_BYTES = 65536
"""Largest message; a 100-step chunk of 14 joints takes 11 kB."""

_HEADER = struct.Struct("<2sBBQIq")

_CLASSES: dict[int, type[Message]] = {
    cls.TYPE: cls
    for cls in (Chunk, State, Heartbeat, Reset, Quit, Arm, Stop, Fault, Event, Task, Snapshot, Histogram)
}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded message with its header."""

    session: int
    sequence: int
    stamp_ns: int
    message: Message


def encode(message: Message, *, session: int, sequence: int, stamp_ns: int) -> bytes:
    """The bytes of one datagram. Raises `MessageError` when it would be larger than `MAX_BYTES`."""
    header = _HEADER.pack(MAGIC, VERSION, message.TYPE, session, sequence & 0xFFFFFFFF, stamp_ns)
    data = header + message.pack()
    if len(data) > MAX_BYTES:
        raise MessageError(f"a {message.TYPE.name} of {len(data)} bytes is over the {MAX_BYTES} allowed")
    return data


def decode(data: bytes, *, session: int) -> Envelope:
    """The message in one datagram. Raises `MessageError` for anything but this version and session."""
    if len(data) < _HEADER.size:
        raise MessageError(f"a message of {len(data)} bytes is shorter than its header")
    magic, version, kind, got, sequence, stamp_ns = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise MessageError(f"not a message of version {VERSION}: magic {magic!r}, version {version}")
    if got != session:
        raise MessageError("a message of another session")
    cls = _CLASSES.get(kind)
    if cls is None:
        raise MessageError(f"unknown message type {kind}")
    try:
        message = cls.unpack(data[_HEADER.size :])
    except (struct.error, ValueError) as error:
        raise MessageError(f"malformed {Type(kind).name}: {error}") from error
    return Envelope(session, sequence, stamp_ns, message)
