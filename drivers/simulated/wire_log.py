"""A record of every byte on the simulated wire, and of what the motors' shafts really did; and its reader.

File: 8 bytes `HFWIRE1\\n`, then records: u64 stamp (CLOCK_MONOTONIC ns, never falling), u8 direction (0: host
to motors, 1: motors to host, 2: truth), u8 zero, u16 length (all little-endian), then `length` bytes. Host
bytes are logged as they came out of the port (a chunk need not be a frame), motor bytes when they were put
into it.

A truth record is written after every physics step, whatever the bus does, and stamped when the step was
computed. Its bytes, for n motors in robot joint order: n times i32 position (ticks of the shaft less the
calibration's homing offset: what a sound servo reports as present position, here neither clipped nor cut),
n times u8 torque (`TORQUE_ON` + `DRIVEN`), u32 microseconds by which the step was late, u32 count of steps
that have been given up since the start because the simulator fell behind.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import SimulatorError

MAGIC = b"HFWIRE1\n"
FROM_HOST, FROM_MOTORS, TRUTH = 0, 1, 2
TORQUE_ON, DRIVEN = 1, 2
"""Bits of a truth record's torque: the torque register is on; the motor drives (no protection has let go)."""
FLUSH_NS = 20_000_000
_RECORD = struct.Struct("<QBBH")
_U32_MAX = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class WireRecord:
    stamp_ns: int
    from_host: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class TruthRecord:
    """What one physics step came to, in robot joint order."""

    stamp_ns: int
    ticks: tuple[int, ...]
    torque: tuple[int, ...]
    """Sums of `TORQUE_ON` and `DRIVEN`."""
    late_us: int
    skipped_steps: int


class WireLog:
    """Writes a log. Records reach the file within `FLUSH_NS` of the next `flush_if_due`."""

    def __init__(self, path: Path) -> None:
        """Opens `path` anew; raises `SimulatorError` if that cannot be."""
        self._path = path
        try:
            self._file = path.open("wb", buffering=1 << 16)
        except OSError as error:
            raise SimulatorError(f"the wire log {path} cannot be written: {error.strerror}") from error
        self._file.write(MAGIC)
        self._flushed_ns = 0

    def add(self, stamp_ns: int, direction: int, data: bytes) -> None:
        """Appends one record."""
        self._file.write(_RECORD.pack(stamp_ns, direction, 0, len(data)) + data)

    def add_truth(
        self,
        stamp_ns: int,
        ticks: Sequence[int],
        torque: Sequence[int],
        late_ns: int,
        skipped_steps: int,
    ) -> None:
        """Appends what one physics step came to."""
        late_us = min(late_ns // 1000, _U32_MAX)
        data = _truth_struct(len(ticks)).pack(*ticks, *torque, late_us, skipped_steps)
        self.add(stamp_ns, TRUTH, data)

    def flush_if_due(self, now_ns: int) -> None:
        """Hands the records to the system from time to time, so that others can read along.

        Raises `SimulatorError` where the disk is full.
        """
        if now_ns - self._flushed_ns >= FLUSH_NS:
            self._flushed_ns = now_ns
            self._check(self._file.flush)

    def close(self) -> None:
        """Raises `SimulatorError` where the rest cannot be written."""
        self._check(self._file.close)

    def _check(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            raise SimulatorError(
                f"the wire log {self._path} cannot be written any more: {error.strerror}"
            ) from error


def read_wire_log(path: Path) -> Iterator[WireRecord]:
    """The bytes in a log, oldest first; an unfinished last record (still being written) is left out.

    Raises `SimulatorError` if the file is no wire log.
    """
    for stamp_ns, direction, data in _records(path):
        if direction in (FROM_HOST, FROM_MOTORS):
            yield WireRecord(stamp_ns, direction == FROM_HOST, data)


def read_truth(path: Path) -> Iterator[TruthRecord]:
    """The truth records of a log, as `read_wire_log` gives the bytes."""
    for stamp_ns, direction, data in _records(path):
        if direction == TRUTH:
            motors = (len(data) - 8) // 5
            row = _truth_struct(motors).unpack(data)
            yield TruthRecord(stamp_ns, row[:motors], row[motors : 2 * motors], *row[2 * motors :])


def _records(path: Path) -> Iterator[tuple[int, int, bytes]]:
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise SimulatorError(f"{path} is no wire log: it does not begin with {MAGIC!r}")
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            stamp_ns, direction, _, length = _RECORD.unpack(head)
            data = file.read(length)
            if len(data) < length:
                return
            yield stamp_ns, direction, data


def _truth_struct(motors: int) -> struct.Struct:
    return struct.Struct(f"<{motors}i{motors}BII")
