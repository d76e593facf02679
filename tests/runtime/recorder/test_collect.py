"""Where rings lie, whose they are, and how they become one file."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from holdfast.runtime.recorder import collect, folder
from holdfast.runtime.recorder.collect import KEEP, intend, own_files, recover, write_new, write_out
from holdfast.runtime.recorder.folder import CONTROL_RING, RUN_FILE, RunFolder, dead_runs
from holdfast.runtime.recorder.kinds import REASON_FILE
from holdfast.runtime.recorder.reading import read_recording

from .tapes import Tape

MB = 1_000_000


pytestmark = pytest.mark.usefixtures("memory")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    return Tape(tmp_path / "rings").fly(20).beside().folder


def left_behind(state: Path, rings: Path, run: dict | None = None) -> Path:
    """The rings of a run whose processes have all died."""
    made = RunFolder.create(state, MB)
    shutil.copytree(rings, made.path, dirs_exist_ok=True)
    (made.path / RUN_FILE).write_text(json.dumps(run or {}))
    made.close()
    return made.path


def older(folder: Path, *names: str, after_s: int = 0) -> None:
    """Recordings of other runs, written one second after another in 2025."""
    for k, name in enumerate(names):
        path = folder / f"{name}.flight"
        path.write_bytes(b"PK")
        at = (1_735_700_000 + k if not after_s else time.time_ns() // 10**9 + after_s + k) * 10**9
        os.utime(path, ns=(at, at))


# The folder


def test_it_is_made_in_memory_for_us_alone(state: Path, memory: Path):
    made = RunFolder.create(state, MB)
    assert made.path.parent == memory
    assert made.in_memory
    for place in (made.path, memory):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert RunFolder.create(state, MB).path != made.path


def test_without_room_in_memory_it_is_made_on_disk(
    state: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
):
    """As in a container whose /dev/shm is small."""
    real = os.statvfs

    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(
        folder.os, "statvfs", lambda path: real(path) if str(path).startswith(str(state)) else Full
    )
    assert RunFolder.create(state, MB).path.parent == state / "rings"
    with pytest.raises(OSError, match="less than 1000000 MB"):
        RunFolder.create(state, 10**12)


def test_without_a_place_in_memory_it_is_made_in_the_state_folder(
    state: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(folder, "_in_memory", list)
    made = RunFolder.create(state, MB)
    assert made.path.parent == state / "rings"
    assert not made.in_memory


def test_a_disk_is_not_used_where_that_is_not_wanted(state: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "_in_memory", list)
    with pytest.raises(OSError, match="in memory"):
        RunFolder.create(state, MB, on_disk=False)
    assert not state.exists()


def test_a_place_that_others_can_write_to_is_not_trusted(state: Path, memory: Path):
    memory.mkdir()
    memory.chmod(0o777)
    assert RunFolder.create(state, MB).path.parent != memory


def test_a_link_in_its_place_is_not_followed(state: Path, memory: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    memory.symlink_to(tmp_path / "elsewhere")
    RunFolder.create(state, MB)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_while_any_process_of_a_run_lives_its_rings_are_not_touched(state: Path):
    mine = RunFolder.create(state, MB)
    child = RunFolder.join(mine.path)
    assert not list(dead_runs(state))
    mine.close()
    assert not list(dead_runs(state)), "the child still lives"
    child.close()
    assert [dead.path for dead in dead_runs(state)] == [mine.path]


def test_a_killed_process_holds_nothing(state: Path):
    mine = RunFolder.create(state, MB)
    script = (
        "import sys, time; from pathlib import Path; from holdfast.runtime.recorder.folder import RunFolder\n"
        "held = RunFolder.join(Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(mine.path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    mine.close()
    assert not list(dead_runs(state))
    process.kill()
    process.wait()
    process.stdout.close()
    assert [dead.path for dead in dead_runs(state)] == [mine.path]


def test_two_starts_do_not_recover_the_same_run(state: Path, rings: Path):
    path = left_behind(state, rings)
    for dead in dead_runs(state):
        fd = os.open(path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        assert dead.path == path


def test_a_child_whose_folder_is_gone_is_told(state: Path):
    made = RunFolder.create(state, MB)
    made.remove()
    with pytest.raises(FileNotFoundError):
        RunFolder.join(made.path)


# One file


def test_a_file_has_all_rings_and_what_ran(rings: Path, tmp_path: Path):
    parts = [path.name for path in rings.iterdir()]
    target = write_new(rings, tmp_path / "made" / "on" / "demand", "policy_lost")
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted([REASON_FILE, *parts])
        assert archive.read(REASON_FILE) == b"policy_lost"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(target.parent) == [target.name], "no temporary file is left"


def test_a_file_that_cannot_be_written_leaves_nothing(
    rings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(collect.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_new(rings, tmp_path / "files", "policy_lost")
    assert not list((tmp_path / "files").iterdir())


def test_a_file_that_cannot_be_written_again_stays_as_it_was(
    rings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = write_new(rings, tmp_path / "files", "policy_lost")
    before = target.read_bytes()
    monkeypatch.setattr(collect.os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_out(rings, target)
    assert target.read_bytes() == before


def test_the_newest_are_kept_and_files_of_others_are_left_alone(rings: Path, tmp_path: Path):
    files = tmp_path / "files"
    files.mkdir()
    older(files, *(f"20250101T0000{i:02d}Z-stalled" for i in range(KEEP + 5)))
    (files / "20250101T000001Z-stalled.png").touch()
    (files / "mine.flight").touch()
    (files / "20200101T000000Z-notes.txt").touch()
    target = write_new(rings, files, "policy_lost")
    assert own_files(files)[-1] == target
    assert len(own_files(files)) == KEEP
    assert own_files(files)[0].name == "20250101T000006Z-stalled.flight"
    assert not (files / "20250101T000001Z-stalled.png").exists(), "the plot of one that is gone"
    assert (files / "mine.flight").exists()
    assert (files / "20200101T000000Z-notes.txt").exists()


def test_requests_push_out_no_stop(rings: Path, tmp_path: Path):
    older(tmp_path, "20250101T000000Z-camera_lost")
    older(tmp_path, *(f"20250102T0000{i:02d}Z-request" for i in range(KEEP + 5)))
    target = write_new(rings, tmp_path, "request")
    stop, *requests = own_files(tmp_path)
    assert stop.name == "20250101T000000Z-camera_lost.flight"
    assert len(requests) == KEEP
    assert requests[-1] == target


def test_no_file_of_this_run_is_deleted(rings: Path, tmp_path: Path):
    mine = [write_new(rings, tmp_path, "request") for _ in range(KEEP + 5)]
    assert own_files(tmp_path) == mine


def test_with_a_clock_that_is_wrong_the_file_just_written_stays(rings: Path, tmp_path: Path):
    older(tmp_path, *(f"20990101T0000{i:02d}Z-stalled" for i in range(KEEP)), after_s=10_000_000)
    first = write_new(rings, tmp_path, "policy_lost")
    second = write_new(rings, tmp_path, "policy_lost")
    assert first.exists()
    assert second.exists()


def test_the_order_is_that_of_writing_not_of_names(tmp_path: Path):
    names = ["20260101T000000Z-a", *(f"20260101T000000Z-a-{k}" for k in range(2, 12)), "20200101T000000Z-b"]
    older(tmp_path, *names)
    assert [path.stem for path in own_files(tmp_path)] == names
    for name in names:
        os.utime(tmp_path / f"{name}.flight", ns=(5, 5))
    by_number = [path.stem for path in own_files(tmp_path)]
    assert by_number == ["20200101T000000Z-b", *names[:-1]], "within one instant of the clock: by number"


def test_a_name_that_is_only_reserved_is_no_recording(tmp_path: Path):
    (tmp_path / "20250101T000000Z-stalled.flight").touch()
    assert own_files(tmp_path) == []


def test_old_files_that_cannot_be_deleted_do_not_cost_the_new_one(
    rings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As in a folder with the sticky bit, where the old ones are somebody else's."""
    older(tmp_path, *(f"20250101T0000{i:02d}Z-stalled" for i in range(KEEP + 5)))
    real = Path.unlink

    def sticky(path: Path, missing_ok: bool = False) -> None:
        if "stalled" in path.name:
            raise PermissionError(1, "Operation not permitted")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", sticky)
    target = write_new(rings, tmp_path, "policy_lost")
    assert read_recording(target).ticks
    assert len(own_files(tmp_path)) == KEEP + 6


def test_a_link_laid_in_its_way_is_not_written_through(rings: Path, tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target = tmp_path / "20250101T000000Z-x.flight"
    target.symlink_to(victim)
    (tmp_path / f".{target.name}.{os.getpid()}.tmp").symlink_to(victim)
    write_out(rings, target)
    assert victim.read_text() == "precious"
    assert not target.is_symlink()


def test_half_a_file_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    rings: Path, tmp_path: Path
):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    files = tmp_path / "files"
    files.mkdir()
    halves = [files / f".20250101T000000Z-stalled.flight.{pid}.x_1.tmp" for pid in (dead.pid, os.getpid())]
    for half in halves:
        half.touch()
    write_new(rings, files, "policy_lost")
    assert [half.exists() for half in halves] == [False, True]


def test_two_stops_in_one_second_have_two_files(rings: Path, tmp_path: Path):
    paths = {write_new(rings, tmp_path, "bus_lost") for _ in range(3)}
    assert len(paths) == 3
    assert set(own_files(tmp_path)) == paths


def test_names_are_safe(rings: Path, tmp_path: Path):
    path = write_new(rings, tmp_path, "../Odd code")
    assert path.parent == tmp_path
    assert path.name.endswith("Z-___odd_code.flight")


# After everything was killed


def test_the_rings_of_a_dead_run_are_written_out_and_removed(state: Path, rings: Path, tmp_path: Path):
    path = left_behind(state, rings, {"pid": 7})
    (found,) = recover(state, tmp_path / "files")
    assert found.path is not None
    assert "killed" in found.path.name
    assert str(found.path) in found.text
    recording = read_recording(found.path)
    assert len(recording.ticks) == 21
    assert recording.run == {"pid": 7}
    assert not path.exists()
    assert recover(state, tmp_path / "files") == []


def test_they_go_where_the_dead_run_wanted_them(state: Path, rings: Path, tmp_path: Path):
    left_behind(state, rings, {"recordings": str(tmp_path / "wanted")})
    (found,) = recover(state, tmp_path / "files")
    assert found.path is not None
    assert found.path.parent == tmp_path / "wanted"


def test_where_they_cannot_be_written_they_stay(state: Path, rings: Path, tmp_path: Path):
    (tmp_path / "files").touch()
    path = left_behind(state, rings)
    (found,) = recover(state, tmp_path / "files")
    assert found.path is None
    assert str(path) in found.text
    assert path.exists()


def test_where_the_folder_it_wanted_is_full_they_go_to_that_of_this_start(
    state: Path, rings: Path, tmp_path: Path
):
    (tmp_path / "wanted").touch()
    path = left_behind(state, rings, {"recordings": str(tmp_path / "wanted")})
    (found,) = recover(state, tmp_path / "files")
    assert own_files(tmp_path / "files") == [found.path]
    assert not path.exists()


def test_what_stays_of_several_runs_is_said_in_one_line(state: Path, rings: Path, tmp_path: Path):
    (tmp_path / "files").touch()
    (tmp_path / "wanted").touch()
    paths = [left_behind(state, rings, {"recordings": str(tmp_path / "wanted")}) for _ in range(3)]
    (found,) = recover(state, tmp_path / "files")
    assert "3 runs" in found.text
    for path in (*paths, tmp_path / "files", tmp_path / "wanted"):
        assert str(path) in found.text


def test_an_error_in_what_one_run_left_does_not_keep_the_next_from_starting(
    state: Path, rings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    left_behind(state, rings)

    def broken(folder: Path, recordings: Path, code: str) -> Path:
        raise MemoryError("no memory left")

    monkeypatch.setattr(collect, "write_new", broken)
    (found,) = recover(state, tmp_path / "files")
    assert "no memory left" in found.text


def test_what_could_not_be_written_is_recovered_under_the_name_it_was_to_have(
    state: Path, rings: Path, tmp_path: Path
):
    intend(left_behind(state, rings), "camera_lost")
    (found,) = recover(state, tmp_path / "files")
    assert found.path is not None
    assert found.path.name.endswith("-camera_lost.flight")
    assert "killed" not in found.text


def test_a_run_that_died_before_control_began_leaves_no_file(state: Path, rings: Path, tmp_path: Path):
    path = left_behind(state, rings)
    (path / CONTROL_RING).unlink()
    assert recover(state, tmp_path / "files") == []
    assert not path.exists()
