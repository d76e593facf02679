"""The recorders inside the three processes: when files are written, and that no error of theirs gets out."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from holdfast.drivers.types import Direction
from holdfast.runtime.control.clock import Wake
from holdfast.runtime.control.state import CoreState, Inbox, Note, Output
from holdfast.runtime.recorder import folder, in_supervisor
from holdfast.runtime.recorder.collect import own_files
from holdfast.runtime.recorder.folder import CODE_FILE, CONTROL_RING, RunFolder
from holdfast.runtime.recorder.in_control import ControlRecorder, control_ring_bytes
from holdfast.runtime.recorder.in_policy import PolicyRecorder
from holdfast.runtime.recorder.in_supervisor import (
    AFTER_STOP_NS,
    BETWEEN_REQUESTS_NS,
    STILL_IN_RING_NS,
    SupervisorRecorder,
    Written,
)
from holdfast.runtime.recorder.kinds import SPAN_S
from holdfast.runtime.recorder.reading import read_recording
from holdfast.runtime.recorder.records import EventRecord
from holdfast.runtime.recorder.ring import RingWriter

from ..control.world import config, joint_state
from .tapes import Tape, frame

pytestmark = pytest.mark.usefixtures("memory")

S = 1_000_000_000


class Broken:
    """A ring that cannot be written."""

    def write(self, kind: int, stamp_ns: int, payload: bytes) -> None:
        raise ValueError("mmap closed or invalid")


# Control


def test_an_error_of_the_recorder_never_reaches_control():
    recorder = ControlRecorder(Broken(), 3)  # pyright: ignore[reportArgumentType]
    recorder.bus(Direction.SENT, 1, b"")
    assert not recorder.on
    assert recorder.take_problem() == "nothing more is recorded here: ValueError: mmap closed or invalid"
    assert recorder.take_problem() == "", "said once"
    recorder.tick(None, 1, None, Inbox(), CoreState(), Output(None))
    recorder.state(CoreState(), 1)
    recorder.keyframe(CoreState(), 10 * S)
    assert recorder.take_problem() == ""


def test_a_tick_that_cannot_be_encoded_is_an_error_of_the_recorder(tmp_path: Path):
    recorder = ControlRecorder.open(tmp_path, config())
    recorder.tick(None, 1, joint_state((0.0,) * 5, 1), Inbox(), CoreState(), Output(None))
    assert not recorder.on
    assert "pack expected" in recorder.take_problem()


def test_a_record_that_is_too_large_is_told_once(tmp_path: Path):
    recorder = ControlRecorder(RingWriter.create(tmp_path / "small.ring", 4096, b""), 3)
    recorder.bus(Direction.SENT, 1, b"x")
    assert recorder.take_problem() == ""
    for _ in range(2):
        recorder.bus(Direction.SENT, 1, bytes(5000))
    assert "larger than its ring" in recorder.take_problem()
    assert recorder.take_problem() == ""
    assert recorder.on


def test_without_a_place_for_its_ring_control_is_told_why(tmp_path: Path):
    recorder = ControlRecorder.open(tmp_path / "gone", config())
    assert not recorder.on
    assert "No such file" in recorder.take_problem()


@pytest.mark.parametrize(("hz", "joints", "steps"), [(100, 6, 16), (500, 6, 50), (100, 14, 100), (50, 3, 8)])
def test_controls_ring_reaches_back_half_a_minute_and_fits_into_a_container(hz: int, joints: int, steps: int):
    size = control_ring_bytes(joints, hz, steps)
    assert size < 40e6, "a container has 64 MB of /dev/shm"
    assert size > SPAN_S * hz * 56 * joints


def test_half_a_minute_at_full_rate_is_in_the_ring(tmp_path: Path):
    """With a bus cycle in each tick, ten chunks a second and a state every five seconds."""
    Tape(tmp_path).fly(int(1.5 * SPAN_S * 100))
    recording = read_recording(tmp_path)
    span_s = (recording.ticks[-1].now_ns - recording.states[0][1].now_ns) / 1e9
    assert span_s > SPAN_S - 5


def test_a_tick_costs_little(tmp_path: Path):
    """Microseconds, with the bytes of a bus cycle; the bound is wide, for busy machines."""
    recorder = ControlRecorder.open(tmp_path, config())
    row = (0.1, 0.2, 0.3)
    joint, inbox = joint_state(row, 1), Inbox(heard_policy=True, heard_supervisor=True)
    state, output = CoreState(), Output(row, target=row)
    wake = Wake(1, 2, 1, 0, 0)
    costs = []
    for i in range(2000):
        start = time.perf_counter_ns()
        recorder.bus(Direction.SENT, i, b"x" * 14)
        recorder.bus(Direction.RECEIVED, i, b"x" * 126)
        recorder.tick(wake, i, joint, inbox, state, output)
        recorder.bus(Direction.SENT, i, b"x" * 26)
        costs.append(time.perf_counter_ns() - start)
    assert recorder.on
    assert sorted(costs)[len(costs) // 2] < 100_000


def test_recording_makes_no_cyclic_garbage(tmp_path: Path):
    """Control collects none: it would grow for as long as it runs."""
    tape = Tape(tmp_path).fly(20)
    recorder, last = tape.core.recorder, tape.core.given[-1]
    noted = replace(last.output, notes=(Note("clamped", "pan: lead"),))
    gc.collect()
    gc.disable()
    try:
        for i in range(100):
            recorder.bus(Direction.SENT, i, b"x")
            recorder.tick(None, i, last.joint, last.inbox, last.state, noted)
            recorder.state(last.state, i)
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert recorder.on


def test_whoever_outlives_the_supervisor_keeps_the_recording(tmp_path: Path):
    made = RunFolder.create(tmp_path, 1_000_000)
    recorder = ControlRecorder.open(made.path, config())
    recorder.state(CoreState(), 1)
    said = recorder.inherit(tmp_path / "files", "supervisor_lost")
    (path,) = own_files(tmp_path / "files")
    assert said == str(path)
    assert path.name.endswith("-supervisor_lost.flight")
    assert len(read_recording(path).states) == 1
    assert not made.path.exists()


def test_an_heir_that_cannot_write_leaves_the_rings_to_the_next_start(tmp_path: Path):
    made = RunFolder.create(tmp_path, 1_000_000)
    recorder = ControlRecorder.open(made.path, config())
    (tmp_path / "files").touch()
    assert "the next vla-run tries again" in recorder.inherit(tmp_path / "files", "x")
    assert (made.path / CONTROL_RING).exists()
    assert (made.path / CODE_FILE).read_text() == "x", "its name then"
    assert ControlRecorder().inherit(tmp_path, "x") == ""


# Policy


def test_pictures_are_small_and_five_a_second_of_each_camera(tmp_path: Path):
    Tape(tmp_path).fly(1)
    recorder = PolicyRecorder.open(tmp_path, 2)
    big = replace(frame(0), image=np.full((480, 640, 3), 90, np.uint8))
    for i in range(60):
        now = i * S // 30
        recorder.frames({"front": replace(big, stamp_ns=now), "wrist": replace(frame(now))}, now)
    recording = read_recording(tmp_path)
    assert recorder.on, recorder.take_problem()
    for camera in ("front", "wrist"):
        assert len([f for f in recording.frames if f.camera == camera]) == 10
    picture = cv2.imdecode(np.frombuffer(recording.frames[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (120, 160, 3)


def test_a_picture_that_cannot_be_encoded_does_not_stop_the_policy(tmp_path: Path):
    recorder = PolicyRecorder.open(tmp_path, 1)
    recorder.frames({"front": replace(frame(1), image=np.zeros((0, 0, 3), np.uint8))}, 1)
    assert not recorder.on
    assert "nothing more is recorded" in recorder.take_problem()


# Supervisor


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def recorder(tmp_path: Path, files: Path) -> SupervisorRecorder:
    """Of a run whose control has recorded something."""
    made = SupervisorRecorder.open(tmp_path / "state", files, {"pid": 1}, 1_000_000)
    assert made.folder is not None
    ControlRecorder.open(made.folder, config()).state(CoreState(), 1)
    return made


def until_done(recorder: SupervisorRecorder, now_ns: int) -> list[Written]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done = recorder.turn(now_ns)
        if done:
            return done
        time.sleep(0.005)
    raise AssertionError("no file was written")


def test_a_run_that_ends_well_leaves_nothing(recorder: SupervisorRecorder, files: Path):
    folder = recorder.folder
    assert recorder.finish(None, S) == []
    assert folder is not None
    assert not folder.exists()
    assert not files.exists()
    assert recorder.finish("internal", S) == [], "only once"


def test_a_stop_is_written_out_one_second_later(recorder: SupervisorRecorder, files: Path):
    recorder.stopped("policy_lost", 5 * S)
    assert recorder.turn(5 * S + AFTER_STOP_NS - 1) == []
    time.sleep(0.05)
    assert not files.exists()
    (written,) = until_done(recorder, 5 * S + AFTER_STOP_NS)
    (path,) = own_files(files)
    assert written.path == path
    assert path.name.endswith("-policy_lost.flight")
    assert f"vla-run --explain {path}" in written.text
    assert recorder.turn(100 * S) == [], "once"


def test_a_run_that_ends_soon_after_its_stop_writes_the_same_file_again(
    recorder: SupervisorRecorder, files: Path
):
    recorder.stopped("policy_lost", 5 * S)
    (first,) = until_done(recorder, 6 * S)
    recorder.event(EventRecord(7 * S, "control", "held", "", 0.0, 0))
    assert recorder.finish("protective_stop", 8 * S) == [first]
    (path,) = own_files(files)
    assert first.path == path
    assert [event.code for event in read_recording(path).events] == ["held"]


def test_a_run_that_ends_before_its_stop_was_written_writes_it_then(
    recorder: SupervisorRecorder, files: Path
):
    recorder.stopped("policy_lost", 5 * S)
    (written,) = recorder.finish("protective_stop", 5 * S + 1)
    assert own_files(files) == [written.path]


def test_what_led_up_to_a_stop_is_not_replaced_by_a_long_wait(recorder: SupervisorRecorder, files: Path):
    recorder.stopped("policy_lost", 5 * S)
    until_done(recorder, 6 * S)
    recorder.event(EventRecord(700 * S, "control", "held", "", 0.0, 0))
    assert recorder.finish("protective_stop", 5 * S + STILL_IN_RING_NS) == []
    (path,) = own_files(files)
    assert read_recording(path).events == ()


def test_a_bad_end_without_a_stop_is_written_out(recorder: SupervisorRecorder, files: Path):
    recorder.finish("internal", S)
    (path,) = own_files(files)
    assert path.name.endswith("-internal.flight")
    assert read_recording(path).run == {"pid": 1}


def test_a_person_gets_a_file_at_once(recorder: SupervisorRecorder, files: Path):
    assert recorder.request(S)
    until_done(recorder, S)
    (path,) = own_files(files)
    assert path.name.endswith("-request.flight")


def test_a_key_held_down_is_one_request_at_a_time(recorder: SupervisorRecorder, files: Path):
    for k in range(30):
        assert recorder.request(S + k * S // 30)
    until_done(recorder, 2 * S)
    assert recorder.request(2 * S)
    assert recorder.turn(S + BETWEEN_REQUESTS_NS - 1) == []
    assert len(own_files(files)) == 1
    until_done(recorder, S + BETWEEN_REQUESTS_NS)
    assert len(own_files(files)) == 2
    assert recorder.turn(100 * S) == []


def test_a_request_that_waits_is_written_at_the_end(recorder: SupervisorRecorder, files: Path):
    recorder.request(S)
    until_done(recorder, S)
    recorder.request(2 * S)
    (written,) = recorder.finish(None, 2 * S)
    assert own_files(files)[-1] == written.path


def test_a_request_that_could_not_be_written_is_no_killed_run(recorder: SupervisorRecorder, files: Path):
    """It ends well; the next start writes it out under its name."""
    folder = recorder.folder
    files.touch()
    recorder.request(S)
    (written,) = until_done(recorder, S)
    assert written.path is None
    assert folder is not None
    assert not (folder / CODE_FILE).exists(), "killed now, it would be a killed run"
    recorder.finish(None, 2 * S)
    assert (folder / CODE_FILE).read_text() == "request"


def test_once_there_is_room_again_it_is_written_and_nothing_is_left(
    recorder: SupervisorRecorder, files: Path
):
    folder = recorder.folder
    files.touch()
    recorder.request(S)
    until_done(recorder, S)
    files.unlink()
    (written,) = recorder.finish(None, 2 * S)
    assert own_files(files) == [written.path]
    assert folder is not None
    assert not folder.exists()


def test_a_later_file_makes_good_for_one_that_failed(recorder: SupervisorRecorder, files: Path):
    folder = recorder.folder
    files.touch()
    recorder.request(S)
    until_done(recorder, S)
    files.unlink()
    recorder.stopped("policy_lost", 2 * S)
    until_done(recorder, 4 * S)
    assert recorder.finish(None, 5 * S) == []
    assert folder is not None
    assert not folder.exists()


def test_no_thread_is_no_reason_to_end_a_run(
    recorder: SupervisorRecorder, files: Path, monkeypatch: pytest.MonkeyPatch
):
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    recorder.stopped("policy_lost", S)
    (said,) = until_done(recorder, 3 * S)
    assert "can't start new thread" in said.text
    (written,) = recorder.finish("protective_stop", 4 * S)
    assert own_files(files) == [written.path]


def test_names_and_passwords_of_cameras_are_not_recorded(tmp_path: Path):
    url = "rtsp://me:p@ss@10.0.0.7:554/stream?x=1"
    run = {"cameras": {"front": url, "wrist": "/dev/video0"}, "tasks": ["reach me@home"], "pid": 1}
    made = SupervisorRecorder.open(tmp_path / "state", tmp_path / "files", run, 1_000_000)
    assert made.folder is not None
    Tape(made.folder).fly(1)
    policy = PolicyRecorder.open(made.folder, 1)
    policy.fault(1, "camera_lost", f"{url} does not answer")
    made.event(EventRecord(1, "policy", "fault", f"camera_lost: {url} does not answer", 0.0, 0))
    recording = read_recording(made.folder)
    plain = "rtsp://10.0.0.7:554/stream?x=1"
    assert recording.run == {**run, "cameras": {"front": plain, "wrist": "/dev/video0"}}
    assert recording.faults[0].text == f"{plain} does not answer"
    assert recording.events[0].text == f"camera_lost: {plain} does not answer"
    for part in made.folder.iterdir():
        assert b"p@ss" not in part.read_bytes()


def test_a_person_asks_in_vain_where_nothing_is_recorded():
    assert not SupervisorRecorder().request(S)


def test_what_cannot_be_written_is_said_and_kept_for_the_next_start(
    recorder: SupervisorRecorder, files: Path
):
    files.touch()
    recorder.stopped("policy_lost", S)
    (written,) = until_done(recorder, 10 * S)
    assert "cannot be written" in written.text
    folder = recorder.folder
    recorder.finish("protective_stop", 11 * S)
    assert folder is not None
    assert (folder / CONTROL_RING).exists()


def test_a_disk_that_hangs_does_not_hold_up_the_supervisor(
    recorder: SupervisorRecorder, monkeypatch: pytest.MonkeyPatch
):
    def hang(folder: Path, recordings: Path, code: str) -> Path:
        time.sleep(0.5)
        return recordings

    monkeypatch.setattr(in_supervisor, "write_new", hang)
    recorder.request(S)
    start = time.monotonic()
    for _ in range(10):
        assert recorder.turn(S) == []
    assert time.monotonic() - start < 0.3


def test_without_any_place_the_run_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def nowhere(state: Path, room: int, on_disk: bool) -> RunFolder:
        raise OSError("Read-only file system")

    monkeypatch.setattr(RunFolder, "create", nowhere)
    recorder = SupervisorRecorder.open(tmp_path, tmp_path, {}, 1)
    assert recorder.folder is None
    assert "Read-only file system" in recorder.take_problem()
    recorder.stopped("x", S)
    assert recorder.turn(9 * S) == []
    assert recorder.finish("internal", 9 * S) == []


def test_strictly_nothing_is_recorded_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "_in_memory", list)
    recorder = SupervisorRecorder.open(tmp_path / "state", tmp_path, {}, 1, on_disk=False)
    assert not recorder.on
    assert "--rt strict" in recorder.take_problem()
    assert not (tmp_path / "state").exists()


def test_rings_on_a_disk_are_used_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(RunFolder, "in_memory", property(lambda self: False))
    recorder = SupervisorRecorder.open(tmp_path, tmp_path, {}, 1)
    assert recorder.on
    assert "on a disk" in recorder.take_problem()


@pytest.mark.parametrize(
    "use",
    [
        lambda r: r.event(EventRecord(1, "control", "x", "", 0.0, 0)),
        lambda r: r.stage(1, "running"),
    ],
)
def test_an_error_of_the_recorder_never_reaches_the_supervisor(use: Callable[[SupervisorRecorder], None]):
    recorder = SupervisorRecorder(writer=Broken())  # pyright: ignore[reportArgumentType]
    use(recorder)
    assert not recorder.on
    assert "nothing more is recorded" in recorder.take_problem()
