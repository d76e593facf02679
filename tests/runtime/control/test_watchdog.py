"""The computer's own watchdog: what is written to it, and when."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from holdfast.runtime.control import watchdog
from holdfast.runtime.control.watchdog import Watchdog, WatchdogError

from . import wire_devices as wire

SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", wire.ioctl)


@pytest.fixture
def dog(tmp_path: Path) -> wire.Dog:
    return wire.Dog(tmp_path / "watchdog")


def test_requests_have_the_numbers_of_the_kernels_header() -> None:
    assert (watchdog.GET_SUPPORT, watchdog.SET_TIMEOUT, watchdog.GET_TIMEOUT) == (
        0x80285700,
        0xC0045706,
        0x80045707,
    )


def test_it_is_fed_once_a_second_and_stopped_by_an_orderly_end(dog: wire.Dog) -> None:
    found = Watchdog(str(dog.path))
    assert "acme-wdt" in found.open(0)
    for tick in range(501):
        found.feed(tick * SECOND // 100)
    assert dog.eaten() == b"\0" * 5
    found.close(orderly=True)
    found.close(orderly=True)
    found.feed(99 * SECOND)
    assert dog.eaten() == b"V"


def test_a_disorderly_end_leaves_it_running(dog: wire.Dog) -> None:
    found = Watchdog(str(dog.path))
    found.open(0)
    found.close(orderly=False)
    assert dog.eaten() == b""


def test_looking_at_it_does_not_start_it(dog: wire.Dog) -> None:
    before = len(os.listdir("/proc/self/fd"))
    Watchdog(str(dog.path)).check()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("shortest", "stands", "said"), [(1, 60, "5 s"), (20, 60, "60 s"), (5, 30, "5 s")])
def test_its_time_out_is_the_one_the_driver_says(
    dog: wire.Dog, shortest: int, stands: int, said: str
) -> None:
    dog.tell(shortest=shortest, timeout=stands)
    assert f"resets the computer {said} after" in Watchdog(str(dog.path)).open(0)


def test_one_that_fires_while_all_is_well_is_refused_and_stopped(dog: wire.Dog) -> None:
    dog.tell(shortest=20, timeout=2)
    with pytest.raises(WatchdogError, match="2 s"):
        Watchdog(str(dog.path)).open(0)
    assert dog.eaten() == b"V"


def test_one_that_cannot_be_stopped_is_said_to_be_so(
    dog: wire.Dog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog.tell(options=0x8080)
    assert "CANNOT be stopped" in Watchdog(str(dog.path)).open(0)
    (tmp_path / "watchdog0").mkdir()
    (tmp_path / "watchdog0" / "nowayout").write_text("1\n")
    assert watchdog._never_stops("/dev/watchdog", tmp_path)
    assert watchdog._never_stops("/dev/watchdog0", tmp_path)
    assert not watchdog._never_stops("/dev/watchdog1", tmp_path)


@pytest.mark.parametrize(("number", "words"), [(errno.EBUSY, "systemd"), (errno.EIO, "cannot be opened")])
def test_one_that_cannot_be_opened_is_refused(
    dog: wire.Dog, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    found = Watchdog(str(dog.path))
    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(WatchdogError, match=words):
        found.open(0)


def test_a_missing_permission_is_said(dog: wire.Dog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(WatchdogError, match="no permission"):
        Watchdog(str(dog.path)).check()


@pytest.mark.parametrize("path", ["/dev/no-such-watchdog", "/dev", "/etc/passwd"])
def test_what_is_no_device_is_refused_without_touching_it(path: str) -> None:
    with pytest.raises(WatchdogError, match="/dev/watchdog"):
        Watchdog(path).check()


def test_another_device_is_refused() -> None:
    with pytest.raises(WatchdogError, match="no watchdog"):
        Watchdog("/dev/null").open(0)
