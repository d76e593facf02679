"""The latch file: what stands in it, that it is on the disk before torque, and which arm it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from holdfast.runtime.control import latch as latch_module
from holdfast.runtime.control.latch import BY_ID, UNFINISHED, LatchFile, arm_key, identity

ARM = "serial:/dev/a"


@pytest.fixture
def latch(tmp_path: Path) -> LatchFile:
    return LatchFile.of(tmp_path / "state" / "holdfast", ARM, tmp_path / "by-id")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the disk: the size of a file that is synced, a folder, a rename."""
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").resolve()
        done.append("sync the folder" if path.is_dir() else f"sync {path.stat().st_size} bytes")
        sync(fd)

    def rename(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    return done


def test_it_says_what_happened_to_which_arm(latch: LatchFile) -> None:
    latch.set("chunk_bad", "nan", ARM)
    assert json.loads(latch.path.read_text()) == {"code": "chunk_bad", "text": "nan", "arm": ARM}
    latch.set(*UNFINISHED, ARM)
    assert latch.reason() == "unfinished: control ended without saying why"
    assert [path.name for path in latch.path.parent.iterdir()] == [latch.path.name], "nothing is left over"


def test_all_of_it_is_on_the_disk_before_the_file_has_its_name_and_then_the_folder(
    latch: LatchFile, disk: list[str]
) -> None:
    latch.set("chunk_bad", "nan", ARM)
    assert disk == [f"sync {latch.path.stat().st_size} bytes", "rename", "sync the folder"]


def test_another_reason_is_not_worth_waiting_for_the_disk(latch: LatchFile, disk: list[str]) -> None:
    latch.set("chunk_bad", "nan", ARM)
    disk.clear()
    latch.note("stalled", "pan", ARM)
    assert disk == ["rename"]
    assert latch.reason() == "stalled: pan"


def test_half_a_file_never_has_the_name_that_counts(
    latch: LatchFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    latch.set("chunk_bad", "nan", ARM)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        latch.set("stalled", "pan", ARM)
    assert latch.reason() == "chunk_bad: nan"


def test_no_descriptor_is_left_open(latch: LatchFile) -> None:
    before = os.listdir("/proc/self/fd")
    latch.set("chunk_bad", "nan", ARM)
    latch.note("stalled", "pan", ARM)
    assert os.listdir("/proc/self/fd") == before


def test_what_cannot_be_understood_is_a_latch_of_unknown_reason(latch: LatchFile) -> None:
    latch.path.parent.mkdir(parents=True)
    latch.path.write_text("[]")
    assert latch.reason() == "unknown"
    latch.path.write_text("{")
    assert latch.reason() == f"unknown ({latch.path} cannot be read)"
    latch.clear()
    assert latch.reason() is None


def test_its_name_is_16_digits_of_the_arms_identity(tmp_path: Path, latch: LatchFile) -> None:
    key = hashlib.sha256(b"/dev/a").hexdigest()[:16]
    assert arm_key(ARM, tmp_path) == key
    assert latch.path == tmp_path / "state" / "holdfast" / f"stopped-{key}.json"


def test_an_arm_is_known_by_its_adapter_else_by_its_port(tmp_path: Path) -> None:
    assert Path("/dev/serial/by-id") == BY_ID
    assert identity.__defaults__ == arm_key.__defaults__ == (latch_module.BY_ID,)
    node, other, by_id = tmp_path / "ttyUSB0", tmp_path / "ttyUSB1", tmp_path / "by-id"
    node.touch()
    other.touch()
    assert identity(f"serial:{node}", by_id) == str(node), "no such folder: no adapter"
    by_id.mkdir()
    (by_id / "usb-a_first").symlink_to(other)
    (by_id / "usb-b_second").symlink_to(node)
    assert identity(f"serial:{node}?baud=1", by_id) == "by-id:usb-b_second"
    assert identity(f"serial:{other}", by_id) == "by-id:usb-a_first"
    assert identity("tcp:127.0.0.1:9", by_id) == "tcp:127.0.0.1:9"
    assert identity("serial:some/../port", by_id) == str(Path.cwd() / "port")
