"""The pty behind a stable path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.drivers.simulated.pty_port import PtyPort


@pytest.fixture
def port(tmp_path: Path):
    port = PtyPort(tmp_path / "arm")
    yield port
    port.unplug()


def test_bytes_pass_unchanged_both_ways(port: PtyPort) -> None:
    every = bytes(range(256))
    host = os.open(port.link, os.O_RDWR | os.O_NOCTTY)
    os.write(host, every)
    heard = b""
    while len(heard) < len(every):
        heard += port.read()
    port.write(every)
    answer = b""
    while len(answer) < len(every):
        answer += os.read(host, 4096)
    os.close(host)
    assert heard == answer == every


def test_reading_and_writing_never_wait(port: PtyPort) -> None:
    assert port.read() == b""
    for _ in range(100):
        port.write(bytes(4096))
    assert port.lost_bytes > 0


def test_the_path_survives_a_replug(port: PtyPort) -> None:
    port.unplug()
    assert not port.plugged
    assert not os.path.lexists(port.link)
    port.write(b"nobody hears this")
    port.plug()
    os.close(os.open(port.link, os.O_RDWR | os.O_NOCTTY))
