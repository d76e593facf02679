"""A GPIO line: what its level means, and which cannot be had."""

from __future__ import annotations

import errno
import os

import pytest

from holdfast.runtime.control import gpio
from holdfast.runtime.control.stop_inputs import InputError

from . import wire_devices as wire
from .inputs import codes, opened


def test_a_normally_closed_contact_to_ground_stops_when_pressed_or_cut(chip: wire.Chip) -> None:
    inputs = opened(f"gpio:{chip.path}:17?bias=pull-up")
    assert codes(inputs) == []
    chip.tell(high=[17])
    assert [codes(inputs) for _ in range(2)] == [["stop_input"]] * 2
    chip.tell(high=[3])
    assert codes(inputs) == []


def test_a_normally_open_contact_to_ground_is_active_low(chip: wire.Chip) -> None:
    chip.tell(high=[17])
    inputs = opened(f"gpio:{chip.path}:17?active=low&bias=pull-up")
    assert codes(inputs) == []
    chip.tell(high=[])
    assert codes(inputs) == ["stop_input"]


def test_a_chip_that_vanishes_is_a_condition_in_every_tick(chip: wire.Chip) -> None:
    inputs = opened(f"gpio:{chip.path}:17")
    chip.unplug()
    assert [codes(inputs) for _ in range(2)] == [["stop_input_lost"]] * 2


@pytest.mark.parametrize(
    ("line", "changes", "words"),
    [
        ("40", {}, "lines 0 to 31"),
        ("4", {"used": {"4": "wifi-led"}}, "used by wifi-led"),
        ("4?bias=pull-down", {"no_bias": True}, "use a resistor"),
    ],
)
def test_a_line_that_cannot_be_had_is_refused(chip: wire.Chip, line: str, changes: dict, words: str) -> None:
    chip.tell(**changes)
    with pytest.raises(InputError, match=words):
        opened(f"gpio:{chip.path}:{line}")


def test_a_line_that_takes_long_to_read_is_refused(chip: wire.Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpio, "SLOW_NS", -1)
    with pytest.raises(InputError, match="no expander"):
        opened(f"gpio:{chip.path}:17")


def test_one_that_is_refused_is_closed(chip: wire.Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(InputError, match="lines 0 to 31"):
        opened(f"gpio:{chip.path}:32")
    monkeypatch.setattr(gpio, "SLOW_NS", -1)
    with pytest.raises(InputError, match="no expander"):
        opened(f"gpio:{chip.path}:31")
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("request_number", [gpio.GET_CHIP, gpio.GET_LINE])
def test_a_chip_that_vanishes_while_it_is_opened_is_refused(
    chip: wire.Chip, monkeypatch: pytest.MonkeyPatch, request_number: int
) -> None:
    def gone(*_: object) -> int:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setitem(wire.ANSWERS, request_number, gone)
    with pytest.raises(InputError, match="No such device"):
        opened(f"gpio:{chip.path}:17")
