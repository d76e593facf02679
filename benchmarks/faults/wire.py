"""Reads a simulator's wire log while it grows, and finds the register writes in what the host sent.

It shares no code with the driver, the gate or the simulator: what they get wrong together must show here. The
form of the log is in docs/simulator.md; the protocol is Feetech's: `FF FF ID LEN INST params CHK`, LEN counts
what follows it, CHK = ~(ID + LEN + INST + params) & 0xFF.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"HFWIRE1\n"
FROM_HOST, FROM_MOTORS, TRUTH = 0, 1, 2
HEAD_BYTES = 12
BROADCAST = 0xFE
PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 1, 2, 3, 4, 5, 0x82, 0x83
SILENCE_NS = 50_000_000
"""After so long a silence a motor begins anew with the next byte, and so does `HostFrames`."""
READ_BYTES = 1 << 20


class LogError(Exception):
    """The file is no wire log."""


@dataclass(frozen=True, slots=True)
class Record:
    stamp_ns: int
    """CLOCK_MONOTONIC"""
    direction: int
    data: bytes


class LogReader:
    """Gives the records of a log as they come to be written. An unfinished last one is kept for next time."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` where there is no such file. It may still be empty."""
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._rest = b""
        self._begun = False

    def close(self) -> None:
        self._file.close()

    def read(self) -> Iterator[Record]:
        """What has been added since the last call. Raises `LogError` if this is no wire log."""
        while data := self._file.read(READ_BYTES):
            data = self._rest + data
            at = 0
            if not self._begun:
                if len(data) < len(MAGIC):
                    self._rest = data
                    continue
                if not data.startswith(MAGIC):
                    raise LogError(f"{self._path} is no wire log: it does not begin with {MAGIC!r}")
                self._begun, at = True, len(MAGIC)
            records = []
            while at + HEAD_BYTES <= len(data):
                end = at + HEAD_BYTES + int.from_bytes(data[at + 10 : at + 12], "little")
                if end > len(data):
                    break
                stamp_ns = int.from_bytes(data[at : at + 8], "little")
                records.append(Record(stamp_ns, data[at + 8], data[at + HEAD_BYTES : end]))
                at = end
            self._rest = data[at:]
            yield from records


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that the host told a motor to put into its registers, from `register` on."""

    stamp_ns: int
    """When the frame's last byte arrived."""
    motor_id: int
    """254: all"""
    register: int
    data: bytes
    alone: bool
    """In a frame of its own, rather than in one with the other motors'."""

    def covers(self, register: int) -> int | None:
        """The byte that is written to `register`, if it is among those written."""
        at = register - self.register
        return self.data[at] if 0 <= at < len(self.data) else None


@dataclass(frozen=True, slots=True)
class Strange:
    """Something that a host must never send: a damaged frame, or an instruction that is not for it."""

    stamp_ns: int
    text: str


class HostFrames:
    """Cuts frames from the host's bytes, wherever those are cut.

    After a damaged frame it looks again from the next byte on: what a motor might take for a command must not
    be missed, even if a sound motor would not.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._pieces: deque[tuple[int, int]] = deque()
        """(end in the buffer, stamp) of each piece."""

    def feed(self, stamp_ns: int, data: bytes) -> list[Write | Strange]:
        """What is complete with these bytes, in the order in which it arrived."""
        found: list[Write | Strange] = []
        if self._pieces and stamp_ns - self._pieces[-1][1] > SILENCE_NS:
            found += self._give_up()
        self._buffer += data
        self._pieces.append((len(self._buffer), stamp_ns))
        found += self._frames()
        return found

    def _give_up(self) -> list[Write | Strange]:
        """The frame at the front will never be complete; one may hide behind its header."""
        found: list[Write | Strange] = []
        while self._buffer:
            self._drop(1)
            found += self._frames()
        return found

    def _frames(self) -> list[Write | Strange]:
        buffer = self._buffer
        found: list[Write | Strange] = []
        while True:
            start = buffer.find(b"\xff\xff")
            if start < 0:
                # The last byte may be half a header.
                self._drop(len(buffer) - buffer.endswith(b"\xff"))
                return found
            self._drop(start)
            if len(buffer) < 4:
                return found
            if buffer[2] == 0xFF or buffer[3] < 2:
                self._drop(1)
                continue
            length = buffer[3] + 4
            if len(buffer) < length:
                return found
            frame, stamp_ns = bytes(buffer[:length]), self._stamp(length)
            if sum(frame[2:]) & 0xFF != 0xFF:
                found.append(Strange(stamp_ns, f"a frame with a wrong checksum: {frame.hex(' ')}"))
                self._drop(1)
                continue
            self._drop(length)
            found += _meaning(stamp_ns, frame)

    def _stamp(self, length: int) -> int:
        """When the byte before `length` arrived."""
        return next(stamp_ns for end, stamp_ns in self._pieces if end >= length)

    def _drop(self, count: int) -> None:
        if count:
            del self._buffer[:count]
            self._pieces = deque((end - count, stamp) for end, stamp in self._pieces if end > count)


def _meaning(stamp_ns: int, frame: bytes) -> list[Write | Strange]:
    motor_id, instruction, parameters = frame[2], frame[4], frame[5:-1]
    if instruction in (PING, READ, SYNC_READ, ACTION):
        return []
    if instruction in (WRITE, REG_WRITE) and len(parameters) >= 2:
        # A write that waits for an action counts from now: nothing keeps the action from coming at once.
        return [Write(stamp_ns, motor_id, parameters[0], parameters[1:], True)]
    if instruction == SYNC_WRITE and len(parameters) >= 2 and parameters[1]:
        register, size = parameters[0], parameters[1]
        rows, rest = divmod(len(parameters) - 2, size + 1)
        found: list[Write | Strange] = []
        for row in range(rows):
            at = 2 + row * (size + 1)
            data = parameters[at + 1 : at + 1 + size]
            found.append(Write(stamp_ns, parameters[at], register, data, False))
        return [*found, Strange(stamp_ns, f"a ragged sync write: {frame.hex(' ')}")] if rest else found
    return [Strange(stamp_ns, f"instruction 0x{instruction:02x} to motor {motor_id}: {frame.hex(' ')}")]
