"""Frames of the motor bus as the tests read and write them; shares no code with the driver's codec."""

from __future__ import annotations

from dataclasses import dataclass

PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x82, 0x83
BROADCAST = 0xFE


@dataclass(frozen=True, slots=True)
class Request:
    """What the host asked."""

    motor_id: int
    instruction: int
    parameters: bytes


def decode_request(frame: bytes) -> Request:
    """Exactly one frame, or an `AssertionError`."""
    assert len(frame) >= 6, frame.hex(" ")
    assert frame[:2] == b"\xff\xff", frame.hex(" ")
    assert frame[3] == len(frame) - 4, frame.hex(" ")
    assert sum(frame[2:]) & 0xFF == 0xFF, f"wrong checksum: {frame.hex(' ')}"
    return Request(frame[2], frame[4], frame[5:-1])


def sync_write_rows(request: Request) -> tuple[int, int, list[tuple[int, bytes]]]:
    """(address, length, [(motor id, data)]) of a sync write."""
    assert (request.motor_id, request.instruction) == (BROADCAST, SYNC_WRITE)
    address, length, rows = request.parameters[0], request.parameters[1], request.parameters[2:]
    assert len(rows) % (length + 1) == 0
    starts = range(0, len(rows), length + 1)
    return address, length, [(rows[at], rows[at + 1 : at + 1 + length]) for at in starts]


def encode_status(motor_id: int, faults: int, parameters: bytes = b"") -> bytes:
    """A motor's answer."""
    body = bytes((motor_id, len(parameters) + 2, faults)) + parameters
    return b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))
