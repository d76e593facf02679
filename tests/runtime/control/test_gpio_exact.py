"""A GPIO line to the last bit: what the kernel is asked for, what it answers, what is said."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.drivers.errors import ConfigError
from holdfast.runtime.control import gpio
from holdfast.runtime.control.gpio import GpioLine, request_of
from holdfast.runtime.control.input_spec import GpioSpec, parse_input

from . import wire_devices as wire


def spec_of(text: str) -> GpioSpec:
    spec = parse_input(text)
    assert isinstance(spec, GpioSpec)
    return spec


def answer(monkeypatch: pytest.MonkeyPatch, number: int, *fields: Any, form: struct.Struct) -> None:
    """The kernel's answer to one request."""
    monkeypatch.setitem(wire.ANSWERS, number, lambda *args: form.pack_into(args[-1], 0, *fields) or 0)


def fail(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    def failing(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setitem(wire.ANSWERS, number, failing)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ("", 1 << 2),
        ("?active=low", 1 << 2 | 1 << 1),
        ("?bias=as-is", 1 << 2),
        ("?bias=pull-up", 1 << 2 | 1 << 8),
        ("?bias=pull-down", 1 << 2 | 1 << 9),
        ("?bias=disabled", 1 << 2 | 1 << 10),
        ("?active=low&bias=disabled", 1 << 2 | 1 << 1 | 1 << 10),
    ],
)
def test_a_line_is_requested_with_the_kernels_structure_and_flags(options: str, flags: int) -> None:
    """`struct gpio_v2_line_request` of linux/gpio.h: 592 bytes, zero but for these."""
    expected = bytearray(592)
    struct.pack_into("<I", expected, 0, 17)
    expected[256:264] = b"holdfast"
    struct.pack_into("<Q", expected, 288, flags)
    struct.pack_into("<I", expected, 560, 1)
    struct.pack_into("<i", expected, 588, -1)
    assert request_of(spec_of(f"gpio:/dev/gpiochip0:17{options}")) == expected


def test_what_is_asked_about_chip_line_and_level(chip: wire.Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel wants what it fills in, and what is reserved, to be zero."""
    asked: list[tuple[int, bytes]] = []
    modes = set()

    def spy(fd: int, number: int, argument: Any = 0) -> int:
        if number in (gpio.GET_CHIP, gpio.GET_LINE_INFO, gpio.GET_VALUES):
            asked.append((number, bytes(argument)))
        if number == gpio.GET_CHIP:
            modes.add(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
        return wire.ioctl(fd, number, argument)

    monkeypatch.setattr(fcntl, "ioctl", spy)
    chip.tell(high=[17])
    line = GpioLine(spec_of(f"gpio:{chip.path}:17"))
    assert line.read() is True
    about = bytes(64) + struct.pack("<I", 17) + bytes(188)
    level = (gpio.GET_VALUES, struct.pack("<QQ", 0, 1))
    assert asked == [(gpio.GET_CHIP, bytes(68)), (gpio.GET_LINE_INFO, about), *[level] * 6]
    assert modes == {os.O_RDWR}
    line.close()


def test_a_line_that_is_closed_is_given_back(chip: wire.Chip) -> None:
    before = os.listdir("/proc/self/fd")
    line = GpioLine(spec_of(f"gpio:{chip.path}:17"))
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1, "the line; the chip is closed"
    line.close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("bits", "active"), [(0, False), (1, True), (2, False), (3, True)])
def test_the_lowest_bit_is_the_line(
    chip: wire.Chip, monkeypatch: pytest.MonkeyPatch, bits: int, active: bool
) -> None:
    line = GpioLine(spec_of(f"gpio:{chip.path}:17"))
    answer(monkeypatch, gpio.GET_VALUES, bits, 1, form=gpio.VALUES)
    assert line.read() is active
    line.close()


# Words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "pressed while high"),
        ("?active=low", "pressed while low"),
        ("?bias=pull-up", "pressed while high, pull-up"),
        ("?active=low&bias=disabled", "pressed while low, disabled"),
    ],
)
def test_the_line_is_described(
    chip: wire.Chip, monkeypatch: pytest.MonkeyPatch, options: str, words: str
) -> None:
    clock(monkeypatch, [7_000] * 5)
    line = GpioLine(spec_of(f"gpio:{chip.path}:17{options}"))
    assert line.identity == "acme-gpio, line 17 'PIN17'"
    assert line.description == f"{line.identity}, {words}, read in 7 us"
    line.close()


@pytest.mark.parametrize(
    ("name", "label", "line_name", "identity"),
    [
        (b"gpiochip3", b"acme", b"BUTTON", "acme, line 17 'BUTTON'"),
        (b"gpiochip3", b"acme", b"", "acme, line 17"),
        (b"gpiochip3", b"", b"", "gpiochip3, line 17"),
        (b"gpiochip3", b"acme\0old", b"A\0B", "acme, line 17 'A'"),
        (b"gpiochip3", b"acm\xe9", b"", "acm\ufffd, line 17"),
    ],
)
def test_chip_and_line_are_called_as_the_kernel_calls_them(
    chip: wire.Chip,
    monkeypatch: pytest.MonkeyPatch,
    name: bytes,
    label: bytes,
    line_name: bytes,
    identity: str,
) -> None:
    answer(monkeypatch, gpio.GET_CHIP, name, label, 32, form=gpio.CHIP_INFO)
    answer(monkeypatch, gpio.GET_LINE_INFO, line_name, b"", 17, 0, 0, form=gpio.LINE_INFO)
    line = GpioLine(spec_of(f"gpio:{chip.path}:17"))
    assert line.identity == identity
    line.close()


# What cannot be had


@pytest.mark.parametrize("code", [errno.ENOTTY, errno.EINVAL])
def test_what_does_not_know_the_request_is_no_chip(
    chip: wire.Chip, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fail(monkeypatch, gpio.GET_CHIP, code)
    with pytest.raises(ConfigError, match="is no GPIO chip"):
        GpioLine(spec_of(f"gpio:{chip.path}:17"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EBUSY, "the line is used by another"),
        (errno.EINVAL, "refuses this line as an input with bias=pull-up (Invalid argument)"),
        (errno.ENOTSUP, "refuses this line as an input with bias=pull-up (Operation not supported)"),
        (errno.ENXIO, "refuses this line as an input with bias=pull-up (No such device or address)"),
    ],
)
def test_a_line_that_is_not_given_is_a_mistake_in_the_configuration(
    chip: wire.Chip, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    fail(monkeypatch, gpio.GET_LINE, code)
    with pytest.raises(ConfigError) as refused:
        GpioLine(spec_of(f"gpio:{chip.path}:17?bias=pull-up"))
    assert words in str(refused.value)


@pytest.mark.parametrize("number", [gpio.GET_CHIP, gpio.GET_LINE_INFO, gpio.GET_LINE, gpio.GET_VALUES])
def test_any_other_error_is_the_systems_and_leaves_nothing_open(
    chip: wire.Chip, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = os.listdir("/proc/self/fd")
    fail(monkeypatch, number, errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as failed:
        GpioLine(spec_of(f"gpio:{chip.path}:17"))
    assert failed.value.errno == errno.EIO
    assert os.listdir("/proc/self/fd") == before


def test_a_chip_that_is_not_there_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GpioLine(spec_of(f"gpio:{tmp_path}/gpiochip9:17"))


# How long it takes to read


def clock(monkeypatch: pytest.MonkeyPatch, reads_ns: Iterable[int]) -> None:
    """Each read takes so long."""
    stamps = iter([stamp for taken in reads_ns for stamp in (1_000, 1_000 + taken)])
    monkeypatch.setattr(gpio, "time", SimpleNamespace(monotonic_ns=lambda: next(stamps)))


def test_the_quickest_of_five_reads_may_take_half_a_millisecond(
    chip: wire.Chip, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, [900_000, 900_000, 600_000, 900_000, 500_000])
    line = GpioLine(spec_of(f"gpio:{chip.path}:17"))
    assert line.description.endswith("read in 500 us")
    line.close()


def test_a_line_that_takes_longer_is_refused(chip: wire.Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, [900_000, 500_001, 600_000, 700_000, 800_000, 1_000])
    with pytest.raises(ConfigError, match=r"takes 0\.5 ms, at most 0\.5 fit"):
        GpioLine(spec_of(f"gpio:{chip.path}:17"))
