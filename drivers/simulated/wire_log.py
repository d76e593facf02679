"""A record of every byte on the simulated wire, and its reader.

File: 8 bytes `HFWIRE1\\n`, then records: u64 stamp (CLOCK_MONOTONIC ns), u8 direction (0: host to motors,
1: motors to host), u8 zero, u16 length (all little-endian), then `length` bytes. Host bytes are logged as
they came out of the pty (a chunk need not be a frame), motor bytes when they were put into it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import SimulatorError

MAGIC = b"HFWIRE1\n"
FROM_HOST, FROM_MOTORS = 0, 1
FLUSH_NS = 100_000_000
_RECORD = struct.Struct("<QBBH")


@dataclass(frozen=True, slots=True)
class WireRecord:
    stamp_ns: int
    from_host: bool
    data: bytes


class WireLog:
    """Writes a log. Records reach the file within `FLUSH_NS` of the next `flush_if_due`."""

    def __init__(self, path: Path) -> None:
        """Opens `path` anew; raises `SimulatorError` if that cannot be."""
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise SimulatorError(f"the wire log {path} cannot be written: {error.strerror}") from error
        self._file.write(MAGIC)
        self._flushed_ns = 0

    def add(self, stamp_ns: int, direction: int, data: bytes) -> None:
        """Appends one record."""
        self._file.write(_RECORD.pack(stamp_ns, direction, 0, len(data)) + data)

    def flush_if_due(self, now_ns: int) -> None:
        """Hands the records to the system from time to time, so that others can read along."""
        if now_ns - self._flushed_ns >= FLUSH_NS:
            self._file.flush()
            self._flushed_ns = now_ns

    def close(self) -> None:
        self._file.close()


def read_wire_log(path: Path) -> Iterator[WireRecord]:
    """The records of a log, oldest first; an unfinished last one (still being written) is left out.

    Raises `SimulatorError` if the file is no wire log.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise SimulatorError(f"{path} is no wire log: it does not begin with {MAGIC!r}")
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            stamp_ns, direction, _, length = _RECORD.unpack(head)
            data = file.read(length)
            if len(data) < length:
                return
            yield WireRecord(stamp_ns, direction == FROM_HOST, data)
