"""A ring gives back what was written last, whatever kills its writer and whatever is done to its file."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.runtime.recorder.kinds import RecordingError
from holdfast.runtime.recorder.ring import Record, Ring, RingWriter, read_ring, record_bytes

from .writer import payload

PAGE = 4096
KILLS = 60
WRITER = [sys.executable, "-m", "tests.runtime.recorder.writer"]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.ring"


def written(path: Path, payloads: list[bytes], size: int = PAGE) -> list[Record]:
    path.unlink(missing_ok=True)
    writer = RingWriter.create(path, size, b"what the records mean")
    for i, content in enumerate(payloads):
        writer.write(i % 7, -i, content)
    writer.close()
    return [Record(i, -i, i % 7, content) for i, content in enumerate(payloads)]


def newest_that_fit(records: list[Record], size: int = PAGE) -> int:
    """How many of the newest records lie in a ring of this size whole."""
    room, count = size, 0
    for record in reversed(records):
        room -= record_bytes(len(record.payload))
        if room < 0:
            break
        count += 1
    return count


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=900), max_size=60))
def test_the_newest_records_come_back_whole(tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]):
    path = tmp_path_factory.getbasetemp() / "newest.ring"
    records = written(path, payloads)
    ring = read_ring(path)
    assert ring.preamble == b"what the records mean"
    assert ring.notes == ()
    count = newest_that_fit(records)
    assert list(ring.records) == records[len(records) - count :]


def test_a_long_preamble_takes_no_room_from_the_records(path: Path):
    RingWriter.create(path, PAGE, b"x" * 3 * PAGE).write(1, 2, b"y" * 4000)
    ring = read_ring(path)
    assert (len(ring.preamble), ring.records) == (3 * PAGE, (Record(0, 2, 1, b"y" * 4000),))


def test_a_record_that_is_larger_than_the_ring_is_dropped_and_counted(path: Path):
    writer = RingWriter.create(path, PAGE, b"")
    writer.write(1, 0, b"first")
    writer.write(1, 0, bytes(PAGE))
    writer.write(1, 0, b"second")
    assert writer.dropped == 1
    assert [record.payload for record in read_ring(path).records] == [b"first", b"second"]


def test_bytes_from_outside_cannot_pass_for_a_record(path: Path, tmp_path: Path):
    """A record within a record, as bytes on a bus could be made: once the outer one is half overwritten, the
    inner one stands in the ring, but with the checksum of another ring."""
    other = tmp_path / "other.ring"
    written(other, [b"forged"])
    forged = other.read_bytes()[PAGE : PAGE + record_bytes(6)]
    writer = RingWriter.create(path, PAGE, b"")
    writer.write(1, 0, forged * 60)
    for _ in range(40):
        writer.write(2, 0, b"x" * 50)
    assert {record.kind for record in read_ring(path).records} == {2}


def test_two_rings_never_share_a_file(path: Path):
    RingWriter.create(path, PAGE, b"")
    with pytest.raises(FileExistsError):
        RingWriter.create(path, PAGE, b"")


def test_only_its_owner_reads_it(path: Path):
    RingWriter.create(path, PAGE, b"")
    assert path.stat().st_mode & 0o777 == 0o600


# Damage


@pytest.mark.parametrize("content", [b"", b"HFRING1\n", b"\0" * 8192, b"PK\x03\x04 something else"])
def test_what_is_no_ring_is_refused(path: Path, content: bytes):
    path.write_bytes(content)
    with pytest.raises(RecordingError):
        read_ring(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_never_makes_up_a_record(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """Flipped bits, a hole, a cut: what is read is what was written, or nothing."""
    path = tmp_path_factory.getbasetemp() / "damaged.ring"
    records = {r.sequence: r for r in written(path, [payload(i) for i in range(40)])}
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "hole", "cut"])):
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "hole":
                length = min(data.draw(st.integers(1, 600)), len(content) - at)
                content[at : at + length] = bytes(length)
            case "cut":
                del content[max(1, at) :]
    try:
        ring = read_ring(bytes(content))
    except RecordingError:
        return
    sequences = [record.sequence for record in ring.records]
    assert sequences == sorted(set(sequences))
    assert all(record == records[record.sequence] for record in ring.records)
    for i in range(1, len(sequences)):
        assert (i in ring.gaps) == (sequences[i] != sequences[i - 1] + 1)
    assert bool(ring.notes) or not ring.gaps


def test_one_damaged_record_costs_that_one(path: Path):
    records = written(path, [b"%03d" % i for i in range(20)])
    content = bytearray(path.read_bytes())
    content[content.index(b"007")] ^= 1
    ring = read_ring(bytes(content))
    assert [r.sequence for r in ring.records] == [r.sequence for r in records if r.sequence != 7]
    assert ring.gaps == {7}
    assert ring.notes == ("1 records in between are damaged",)


# Death of the writer


def assert_nothing_is_missing(ring: Ring, completed: int, size: int) -> None:
    """`completed` writes had returned: all of those that fit are there, whole and in order."""
    assert not ring.gaps
    assert not ring.notes
    first, last = ring.records[0].sequence, ring.records[-1].sequence
    assert last >= completed - 1
    for record in ring.records:
        assert record == Record(
            record.sequence, record.sequence, record.sequence % 5, payload(record.sequence)
        )
    # One more at each end (what was being written may have begun to replace the oldest) would not fit.
    taken = sum(record_bytes(len(payload(i))) for i in range(max(0, first - 1), last + 2))
    assert first == 0 or taken > size


@pytest.mark.parametrize("size", [4 * PAGE, 256 * PAGE])
def test_kill_9_at_any_instant_loses_nothing_that_was_complete(tmp_path: Path, size: int):
    """Real processes that write as fast as they can, killed at random moments."""
    rng = random.Random(size)
    laps = 0
    for i in range(KILLS // 2):
        path, progress = tmp_path / f"{i}.ring", tmp_path / f"{i}.progress"
        progress.write_bytes(bytes(8))
        process = subprocess.Popen([*WRITER, str(path), str(progress), str(size), "0"], cwd=ROOT)
        while int.from_bytes(progress.read_bytes(), "little") == 0:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        completed = int.from_bytes(progress.read_bytes(), "little")
        ring = read_ring(path)
        assert_nothing_is_missing(ring, completed, size)
        laps += ring.records[0].sequence > 0
        path.unlink()
    assert laps > KILLS // 10, "most were killed after the ring had come round"


def test_a_copy_taken_while_it_is_written_to_is_whole(tmp_path: Path):
    """The supervisor copies rings that are being written to."""
    path, progress = tmp_path / "live.ring", tmp_path / "progress"
    progress.write_bytes(bytes(8))
    size = 128 * PAGE
    process = subprocess.Popen([*WRITER, str(path), str(progress), str(size), "0.0002"], cwd=ROOT)
    try:
        while int.from_bytes(progress.read_bytes(), "little") < 2000:
            time.sleep(0.01)
        for _ in range(20):
            before = int.from_bytes(progress.read_bytes(), "little")
            ring = read_ring(path)
            assert not ring.gaps
            assert ring.records[0].sequence > 0
            assert ring.records[-1].sequence >= before - 1
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()


# A full file system


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """One megabyte of memory as a file system."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = tmp_path / "small"
    folder.mkdir()
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=1m") != 0:
        pytest.skip(f"mounting a small tmpfs: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(str(folder).encode(), 2)


def test_a_ring_that_does_not_fit_fails_at_once_and_leaves_nothing(small_tmpfs: Path):
    with pytest.raises(OSError, match="No space left") as caught:
        RingWriter.create(small_tmpfs / "large.ring", 2_000_000, b"")
    assert caught.value.errno == errno.ENOSPC
    assert not list(small_tmpfs.iterdir())


def test_a_file_system_that_fills_up_later_costs_the_writer_nothing(small_tmpfs: Path):
    """In a process of its own: without its memory allocated, a write into the mapping would be a SIGBUS."""
    script = f"""
from pathlib import Path
from holdfast.runtime.recorder.ring import RingWriter, read_ring
folder = Path({str(small_tmpfs)!r})
writer = RingWriter.create(folder / "early.ring", 500_000, b"")
try:
    (folder / "junk").write_bytes(bytes(2_000_000))
except OSError:
    pass
for i in range(20_000):
    writer.write(1, i, b"x" * 100)
assert read_ring(folder / "early.ring").records[-1].sequence == 19_999
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
