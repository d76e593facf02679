"""Input devices and GPIO chips at the wire, where the kernel has none."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from . import wire_devices as wire


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", wire.ioctl)


@pytest.fixture
def keys(kernel: None, tmp_path: Path) -> wire.Keys:
    return wire.Keys(tmp_path / "event0")


@pytest.fixture
def chip(kernel: None, tmp_path: Path) -> wire.Chip:
    return wire.Chip(tmp_path / "gpiochip0")
