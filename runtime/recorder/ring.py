"""A ring of records in a file that every process sees at once, and that no death of a process can tear.

The file is mapped shared: what a process has written stays there when it is killed, whatever it was doing.
Every record begins with a mark and a checksum over the rest of it, on a multiple of eight bytes; a reader
finds records by their marks and believes those whose checksum is right. So there is no pointer that could be
wrong: a kill in the middle of a write costs the record being written, and the oldest ones that it was
written over. Records run on across the end of the ring.

Layout (little-endian): head (`_HEAD`), preamble, then from `data_offset` on `capacity` bytes of ring. A
record: mark u32, crc32 u32, length u32, kind u16, 0 u16, sequence u64, stamp_ns i64, payload. Checksums start
from a random number of the file, so that no bytes from outside can pass for a record.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from .kinds import RecordingError

_MAGIC = b"HFRING1\n"
_HEAD = struct.Struct("<8sIIQQQ")
_HEAD_CHECKED = 12
"""The checksum in the head covers everything from here to the end of the preamble."""
_MARK = b"\xf5HF\xfa"
_START = struct.Struct("<4sI")
_REST = struct.Struct("<IHHQq")
_FIXED = _START.size + _REST.size
_PAGE = 4096
_ALIGN = 8
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands in a ring."""

    sequence: int
    stamp_ns: int
    kind: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ring:
    """What a ring file held."""

    preamble: bytes
    records: tuple[Record, ...]
    """Oldest first."""
    gaps: frozenset[int]
    """Indices of records directly before which others are missing; never 0."""
    notes: tuple[str, ...]
    """What is damaged, in words."""


def record_bytes(payload: int) -> int:
    """What a record with a payload of so many bytes takes in the ring."""
    return -(-(_FIXED + payload) // _ALIGN) * _ALIGN


class RingWriter:
    """The one writer of a ring. Not thread-safe."""

    def __init__(self, mapped: mmap.mmap, data_offset: int, capacity: int, salt: int) -> None:
        self._map = mapped
        self._offset = data_offset
        self._capacity = capacity
        self._salt = salt
        self._at = 0
        self._sequence = 0
        self.dropped = 0
        """Records that were larger than the ring; none of them is in it."""

    @classmethod
    def create(cls, path: Path, size_bytes: int, preamble: bytes) -> RingWriter:
        """A new file (mode 0600) with room for about `size_bytes` of records. Raises `OSError`.

        All its memory is allocated here: a full file system fails now, not with a SIGBUS in a later write.
        """
        capacity = -(-size_bytes // _PAGE) * _PAGE
        offset = -(-(_HEAD.size + len(preamble)) // _PAGE) * _PAGE
        salt = int.from_bytes(os.urandom(4), "little")
        head = _HEAD.pack(_MAGIC, 0, salt, offset, capacity, len(preamble)) + preamble
        head = head[:8] + struct.pack("<I", zlib.crc32(head[_HEAD_CHECKED:])) + head[_HEAD_CHECKED:]
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, offset + capacity)
            os.pwrite(fd, head, 0)
            # In memory (tmpfs) no write is a page fault from here on. On a disk the first write into a page
            # is one, and again after each time that the kernel has written it back.
            mapped = mmap.mmap(fd, offset + capacity, flags=mmap.MAP_SHARED | _POPULATE)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        return cls(mapped, offset, capacity, salt)

    def write(self, kind: int, stamp_ns: int, payload: bytes) -> None:
        """Appends a record over the oldest ones. In a ring in memory (tmpfs) it never blocks."""
        length = len(payload)
        size = _FIXED + length
        capacity = self._capacity
        if size > capacity:
            self.dropped += 1
            return
        rest = _REST.pack(length, kind, 0, self._sequence, stamp_ns) + payload
        record = _START.pack(_MARK, zlib.crc32(rest, self._salt)) + rest
        begin = self._offset + self._at
        until_end = capacity - self._at
        if size <= until_end:
            self._map[begin : begin + size] = record
        else:
            self._map[begin : begin + until_end] = record[:until_end]
            self._map[self._offset : self._offset + size - until_end] = record[until_end:]
        self._at = (self._at + size + _ALIGN - 1) // _ALIGN * _ALIGN % capacity
        self._sequence += 1

    def close(self) -> None:
        """Ends the mapping; the file stays."""
        self._map.close()


def read_ring(source: Path | bytes) -> Ring:
    """Everything that can still be read, however the file was cut or damaged.

    Raises `RecordingError` for what is no ring, or one with a damaged head; `OSError` where the file cannot
    be read.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        raise RecordingError("not a ring of the flight recorder")
    _, checksum, salt, offset, capacity, length = _HEAD.unpack_from(data)
    end = _HEAD.size + length
    if end > len(data) or zlib.crc32(data[_HEAD_CHECKED:end]) != checksum:
        raise RecordingError("a ring whose head is damaged")
    content = data[offset : offset + capacity]
    notes = []
    if len(content) < capacity:
        notes.append(f"the file is cut off: {len(content)} of {capacity} bytes are there")
    records = _scan(content, capacity, salt)
    gaps = frozenset(i for i in range(1, len(records)) if records[i].sequence != records[i - 1].sequence + 1)
    if gaps:
        missing = records[-1].sequence - records[0].sequence + 1 - len(records)
        notes.append(f"{missing} records in between are damaged")
    return Ring(data[_HEAD.size : end], records, gaps, tuple(notes))


def _scan(content: bytes, capacity: int, salt: int) -> tuple[Record, ...]:
    # A record may run on across the end.
    around = content + bytes(capacity - len(content)) + content
    found: dict[int, Record] = {}
    at = around.find(_MARK)
    while 0 <= at < capacity:
        record = _record_at(around, at, capacity, salt) if at % _ALIGN == 0 else None
        if record is None:
            at = around.find(_MARK, at + 1)
            continue
        found[record.sequence] = record
        at = around.find(_MARK, at + record_bytes(len(record.payload)))
    return tuple(found[sequence] for sequence in sorted(found))


def _record_at(around: bytes, at: int, capacity: int, salt: int) -> Record | None:
    _, checksum = _START.unpack_from(around, at)
    begin = at + _START.size
    if begin + _REST.size > len(around):
        return None
    length, kind, _, sequence, stamp_ns = _REST.unpack_from(around, begin)
    end = at + _FIXED + length
    if _FIXED + length > capacity or end > len(around) or zlib.crc32(around[begin:end], salt) != checksum:
        return None
    return Record(sequence, stamp_ns, kind, around[at + _FIXED : end])
