"""A recording holds what was recorded; damage costs what is damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.drivers.types import Direction, StampSource
from holdfast.runtime.recorder.account import account_of
from holdfast.runtime.recorder.collect import write_out
from holdfast.runtime.recorder.folder import (
    CODE_FILE,
    CONTROL_RING,
    POLICY_RING,
    RINGS,
    RUN_FILE,
    SUPERVISOR_RING,
)
from holdfast.runtime.recorder.kinds import Kind, RecordingError
from holdfast.runtime.recorder.reading import read_recording
from holdfast.runtime.recorder.records import EventRecord, Recording, StageRecord
from holdfast.runtime.recorder.ring import read_ring
from holdfast.runtime.recorder.run_file import read_run_file
from holdfast.runtime.recorder.story import tell

from ..control.world import MS
from .flight import Flight
from .tapes import RecordedCore, Tape


def assert_same(recording: Recording, core: RecordedCore, first: int = 0) -> None:
    """Its ticks are those of the core from `first` on."""
    expected = core.given[first:]
    assert len(recording.ticks) == len(expected)
    for tick, given_ in zip(recording.ticks, expected, strict=True):
        assert (tick.now_ns, tick.joint, tick.inbox) == (given_.now_ns, given_.joint, given_.inbox)
        assert (tick.phase, tick.output) == (given_.state.phase, given_.output)
        assert (tick.slot_ns, tick.late_ns) == (given_.now_ns - 1, 1)


def test_everything_comes_back(tmp_path: Path):
    tape = Tape(tmp_path / "rings").fly(1200).beside()
    target = tmp_path / "all.flight"
    write_out(tape.folder, target)
    for recording in (read_recording(target), read_recording(tape.folder)):
        assert recording.complete, recording.notes
        assert recording.config == tape.core.config
        assert_same(recording, tape.core)
        # At the beginning, after five seconds, after ten.
        assert [i for i, _ in recording.states] == [0, 501, 1001]
        assert all(state == tape.core.given[i - 1].state for i, state in recording.states[1:])
        used = {g.inbox.chunk.chunk_id: g.inbox.chunk for g in tape.core.given if g.inbox.chunk}
        assert recording.chunks == used
        assert not recording.gaps
        assert [bus.direction for bus in recording.bus[:2]] == [Direction.SENT, Direction.RECEIVED]
        assert recording.bus[1].data == b"answer" * 20
        assert recording.bus[0].sequence < recording.ticks[0].sequence < recording.bus[2].sequence
        assert recording.run == {"pid": 42, "bundle": {"name": "tiny"}}
        now = tape.bench.now_ns
        assert recording.events == (EventRecord(now, "control", "stop", "camera_lost: gone", 1.5, 1),)
        assert recording.stages == (StageRecord(now, "running the task"),)
        assert [(t.task_id, t.text) for t in recording.tasks] == [(1, "touch the cube")]
        assert [(f.code, f.text) for f in recording.faults] == [("camera_lost", "the camera is gone")]
        assert recording.inferences[0].sent_ns == now + 3


def test_a_picture_comes_back_small(tmp_path: Path):
    recording = read_recording(Tape(tmp_path).fly(1).beside().folder)
    (frame,) = recording.frames
    assert (frame.camera, frame.stamp_source, frame.sequence) == ("front", StampSource.HEADER, 1)
    picture = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (48, 64, 3)
    blue, green, red = picture[24, 8].tolist()
    assert red > 150 > 80 > max(blue, green), "its colours are those of the frame"


def test_a_ring_that_came_round_has_the_newest_ticks(tmp_path: Path):
    tape = Tape(tmp_path, ring_bytes=40_000).fly(300)
    recording = read_recording(tape.folder)
    assert not recording.gaps
    assert 40 < len(recording.ticks) < 100
    assert_same(recording, tape.core, len(tape.core.given) - len(recording.ticks))


def test_the_oldest_tick_whose_chunk_is_overwritten_is_left_out(tmp_path: Path):
    """For every way in which a ring may have come round: no note, no tick without its chunk."""
    for ticks in range(100, 111):
        tape = Tape(tmp_path / str(ticks), ring_bytes=20_000).fly(ticks)
        recording = read_recording(tape.folder)
        assert all("control" not in note for note in recording.notes)
        assert not recording.gaps
        assert_same(recording, tape.core, len(tape.core.given) - len(recording.ticks))


# Damage


def broken(folder: Path, kind: Kind, nth: int) -> bytes:
    """Control's ring with one bit flipped in the nth record of a kind."""
    content = bytearray((folder / CONTROL_RING).read_bytes())
    record = [r for r in read_ring(bytes(content)).records if r.kind == kind][nth]
    # A payload of eight bytes or more is unique here: it holds a stamp.
    content[content.index(record.payload) + len(record.payload) // 2] ^= 1
    return bytes(content)


def test_a_damaged_tick_is_a_gap(tmp_path: Path):
    tape = Tape(tmp_path).fly(100)
    (tmp_path / CONTROL_RING).write_bytes(broken(tmp_path, Kind.TICK, 40))
    recording = read_recording(tmp_path)
    assert recording.gaps == {40}
    assert len(recording.ticks) == len(tape.core.given) - 1
    assert recording.ticks[40].now_ns == tape.core.given[41].now_ns
    assert "1 records in between are damaged" in " ".join(recording.notes)
    assert not recording.complete


def test_a_damaged_chunk_costs_its_tick(tmp_path: Path):
    tape = Tape(tmp_path).fly(100)
    (tmp_path / CONTROL_RING).write_bytes(broken(tmp_path, Kind.CHUNK, 3))
    recording = read_recording(tmp_path)
    lost = next(i for i, g in enumerate(tape.core.given) if g.inbox.chunk and g.inbox.chunk.chunk_id == 31)
    assert recording.gaps == {lost}
    assert 31 not in recording.chunks
    assert recording.ticks[lost].now_ns == tape.core.given[lost + 1].now_ns


def test_a_state_before_missing_ticks_is_not_taken_for_the_state_after_them(tmp_path: Path):
    tape = Tape(tmp_path).fly(700)
    state_at = 501
    (tmp_path / CONTROL_RING).write_bytes(broken(tmp_path, Kind.TICK, state_at))
    recording = read_recording(tmp_path)
    assert recording.gaps == {state_at}
    assert [i for i, _ in recording.states] == [0]
    assert len(recording.ticks) == len(tape.core.given) - 1


@pytest.mark.parametrize("name", [POLICY_RING, SUPERVISOR_RING, RUN_FILE])
def test_what_is_not_there_is_said(tmp_path: Path, name: str):
    tape = Tape(tmp_path).fly(5).beside()
    (tmp_path / name).unlink()
    recording = read_recording(tape.folder)
    assert recording.notes == (f"{name} is not there",)
    assert_same(recording, tape.core)


def test_without_control_there_is_no_recording(tmp_path: Path):
    Tape(tmp_path).fly(5).beside()
    (tmp_path / CONTROL_RING).unlink()
    with pytest.raises(RecordingError, match="no ring of control"):
        read_recording(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a recording", b"PK\x03\x04" + bytes(26), b"PK\x03\x04"])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "x.flight"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"x\.flight"):
        read_recording(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(RecordingError, match="No such file"):
        read_recording(tmp_path / "none.flight")
    with pytest.raises(RecordingError):
        read_recording(tmp_path)


def test_a_file_cut_off_still_has_what_is_before_the_cut(tmp_path: Path):
    tape = Tape(tmp_path / "rings").fly(50).beside()
    target = tmp_path / "whole.flight"
    write_out(tape.folder, target)
    content = target.read_bytes()
    cut = tmp_path / "cut.flight"
    cut.write_bytes(content[: content.index(read_ring(tape.folder / POLICY_RING).records[-1].payload)])
    recording = read_recording(cut)
    assert_same(recording, tape.core)
    assert recording.tasks
    assert not recording.events
    assert f"{SUPERVISOR_RING} is not there" in recording.notes


def test_a_run_that_ended_before_the_policy_had_a_ring_is_not_damaged(tmp_path: Path):
    tape = Tape(tmp_path)
    tape.bench.run(5)
    tape.beside()
    (tmp_path / POLICY_RING).unlink()
    assert read_recording(tape.folder).notes == ()


def test_a_byte_that_was_changed_is_noticed_wherever_it_is(tmp_path: Path):
    tape = Tape(tmp_path / "rings").fly(20).beside()
    target = tmp_path / "whole.flight"
    write_out(tape.folder, target, "camera_lost")
    content = target.read_bytes()
    assert read_recording(target).complete
    target.write_bytes(content.replace(b'"tiny"', b'"tony"', 1))
    recording = read_recording(target)
    assert recording.notes == (f"{RUN_FILE} is not as it was written: its checksum is another one",)
    assert recording.run["bundle"] == {"name": "tony"}


def test_it_says_what_it_was_written_for(tmp_path: Path):
    tape = Tape(tmp_path / "rings").fly(5).beside()
    for code in ("camera_lost", "request", "killed", ""):
        write_out(tape.folder, tmp_path / "x.flight", code)
        assert read_recording(tmp_path / "x.flight").reason == code


def test_rings_that_no_process_holds_are_those_of_a_killed_run(tmp_path: Path):
    tape = Tape(tmp_path / "rings").fly(5).beside()
    assert read_recording(tape.folder).reason == "", "this process holds them"
    shutil.copytree(tape.folder, tmp_path / "left")
    assert read_recording(tmp_path / "left").reason == "killed"
    (tmp_path / "left" / CODE_FILE).write_text("camera_lost")
    assert read_recording(tmp_path / "left").reason == "camera_lost"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.integers(-(10**400), 10**400) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
RUN = {
    "schema": "holdfast.recording", "format": 1, "session": "0f", "pid": 1, "started": "now",
    "started_ns": 5, "utc_less_monotonic_ns": 9,
    "bundle": {"name": "tiny", "path": "/x", "sha256": "ab", "precision": "fp32"},
    "robot": {"name": "sim", "file": "a", "arm": "b", "calibration": "c"}, "cameras": {"front": "/dev/v0"},
    "tasks": ["touch"], "options": {"dry_run": False, "cpu": None}, "policy_limits": {"frame_age_ns": 400},
    "recordings": "/r", "environment": {"machine": "x86_64", "packages": {"ruckig": "1"}, "cpus": 2},
}  # fmt: skip


def test_a_run_file_as_it_is_written_is_taken_whole():
    notes: list[str] = []
    assert read_run_file(json.dumps(RUN).encode(), notes) == RUN
    assert notes == []


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_what_is_wrong_in_a_run_file_costs_only_itself(data: st.DataObject):
    run = json.loads(json.dumps(RUN))
    wrong = data.draw(st.dictionaries(st.sampled_from([*RUN]) | st.text(max_size=4), JSON, max_size=4))
    run.update(wrong)
    for part in ("bundle", "environment", "options"):
        if part not in wrong:
            run[part].update(data.draw(st.dictionaries(st.sampled_from([*RUN[part]]), JSON, max_size=2)))
    notes: list[str] = []
    read = read_run_file(json.dumps(run).encode(), notes)
    for key in RUN.keys() - wrong.keys() - {"bundle", "environment", "options"}:
        assert read[key] == RUN[key]
    "\n".join(notes).encode()
    recording = replace(Flight().go(2).recording(), run=read, notes=tuple(notes))
    text = "\n".join(line for section in tell(account_of(recording)) for line in section.lines)
    text.encode()


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_a_run_file_that_is_anything_at_all(content: bytes):
    read_run_file(content, [])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, so that every part of it is hit often."""
    folder = tmp_path_factory.mktemp("fuzz")
    tape = Tape(folder / "rings", ring_bytes=20_000).fly(60).beside()
    for name in RINGS[1:]:
        # Most of these is unused: leave it out.
        ring = tape.folder / name
        ring.write_bytes(ring.read_bytes()[:12_000])
    write_out(tape.folder, folder / "whole.flight")
    return folder / "whole.flight"


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damage_is_never_a_traceback(file: Path, data: st.DataObject):
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        used = [i for i, byte in enumerate(content) if byte] or [0]
        at = used[data.draw(st.integers(0, 10**6)) % len(used)]
        match data.draw(st.sampled_from(["flip", "set", "hole", "cut", "insert"])):
            case "flip":
                content[at : at + 1] = bytes(
                    b ^ 1 << data.draw(st.integers(0, 7)) for b in content[at : at + 1]
                )
            case "set":
                content[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
            case "hole":
                del content[at : at + data.draw(st.integers(1, 3000))]
            case "cut":
                del content[at:]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=20))
    path = file.with_name("damaged.flight")
    path.write_bytes(content)
    try:
        recording = read_recording(path)
    except RecordingError:
        return
    stamps = [tick.now_ns for tick in recording.ticks]
    assert stamps == sorted(stamps)
    # A tick of the bench is 10 ms: where one is missing in between, a gap says so.
    for i in range(1, len(stamps)):
        assert stamps[i] - stamps[i - 1] == 10 * MS or i in recording.gaps
