"""What `--stop-input` and `--reset-input` name, and the numbers of the kernel's headers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from holdfast.drivers.errors import ConfigError
from holdfast.runtime.control import evdev, gpio, input_spec
from holdfast.runtime.control.input_spec import EvdevSpec, GpioSpec, parse_input
from holdfast.runtime.control.key_names import key_code, key_name
from holdfast.runtime.control.stop_inputs import StopInputs

from .inputs import SPACE

HEADER = Path("/usr/include/linux/input-event-codes.h")


def test_inputs_are_named_by_device_and_key_or_by_chip_and_line() -> None:
    any_key = parse_input("evdev:/dev/input/event3")
    assert any_key == EvdevSpec("evdev:/dev/input/event3", "/dev/input/event3", None)
    assert isinstance(any_key, EvdevSpec)
    assert any_key.key_text == "any key"
    key = parse_input("evdev:/dev/input/by-id/usb-A_B-event-kbd?key=KEY_SPACE")
    assert isinstance(key, EvdevSpec)
    assert (key.path, key.key, key.key_text) == ("/dev/input/by-id/usb-A_B-event-kbd", SPACE, "KEY_SPACE")
    text = "gpio:/dev/gpiochip0:17"
    assert parse_input(text) == GpioSpec(text, "/dev/gpiochip0", 17, False, "as-is")
    text += "?active=low&bias=pull-up"
    assert parse_input(text) == GpioSpec(text, "/dev/gpiochip0", 17, True, "pull-up")
    for bias in ("as-is", "pull-up", "pull-down", "disabled"):
        spec = parse_input(f"gpio:/dev/gpiochip0:17?active=high&bias={bias}")
        assert isinstance(spec, GpioSpec)
        assert (spec.active_low, spec.bias) == (False, bias)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected evdev:"),
        ("/dev/input/event3", "expected evdev:"),
        ("evdev:", "expected evdev:"),
        ("evdev:event3", "expected evdev:"),
        ("usb:/dev/x", "expected evdev:"),
        ("usb:/dev/x:1", "expected evdev:"),
        ("evdev:/dev/input/event3?key=SPACE", "no key is called 'SPACE'"),
        ("evdev:/dev/input/event3?key=0", "no key"),
        ("evdev:/dev/input/event3?key=768", "no key"),
        ("evdev:/dev/input/event3?key=", "key"),
        ("evdev:/dev/input/event3?active=low", "unknown option 'active'"),
        ("evdev:/dev/input/event3?key=1&key=2", "twice"),
        ("evdev:/dev/input/event3?key=1&", "expected evdev:"),
        ("gpio:/dev/gpiochip0", "number of a line"),
        ("gpio:/dev/gpiochip0:", "number of a line"),
        ("gpio:/dev/gpiochip0:-1", "number of a line"),
        ("gpio:/dev/gpiochip0:\u0661", "number of a line"),  # a digit in Arabic
        ("gpio:/dev/gpiochip0:\u00b2", "number of a line"),  # an exponent
        ("gpio:/dev/gpiochip0:1?key=1", "unknown option 'key'"),
        ("gpio:/dev/gpiochip0:1?active=yes", "high"),
        ("gpio:/dev/gpiochip0:1?bias=up", "pull-up"),
        ("gpio:/dev/gpiochip0:1?bias", "bias"),
    ],
)
def test_what_is_malformed_is_refused_with_what_is_right(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_input(text)


def test_an_input_without_options_has_no_query_to_be_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is none even where the parser refuses an empty one, as Python 3.10's does."""

    def parse(query: str, **options: Any) -> list[tuple[str, str]]:
        if not query:
            raise ValueError("bad query field: ''")
        return parse_qsl(query, **options)

    monkeypatch.setattr(input_spec, "parse_qsl", parse)
    assert isinstance(parse_input("evdev:/dev/input/event3"), EvdevSpec)
    assert isinstance(parse_input("gpio:/dev/gpiochip0:17?bias=pull-up"), GpioSpec)


@pytest.mark.parametrize(
    ("stop", "reset", "apart"),
    [
        ("evdev:/dev/a", "evdev:/dev/a?key=KEY_R", False),
        ("evdev:/dev/a?key=KEY_R", "evdev:/dev/a", False),
        ("evdev:/dev/a?key=KEY_R", "evdev:/dev/a?key=KEY_R", False),
        ("gpio:/dev/g:1", "gpio:/dev/g:1?active=low", False),
        ("evdev:/dev/a?key=KEY_S", "evdev:/dev/a?key=KEY_R", True),
        ("evdev:/dev/a", "evdev:/dev/b", True),
        ("gpio:/dev/g:1", "gpio:/dev/g:2", True),
        ("gpio:/dev/g:1", "evdev:/dev/a", True),
        ("evdev:/dev/a", "gpio:/dev/g:1", True),
    ],
)
def test_pressing_a_reset_must_not_be_a_stop_too(stop: str, reset: str, apart: bool) -> None:
    if apart:
        StopInputs([stop], [reset])
    else:
        with pytest.raises(ConfigError, match="two keys"):
            StopInputs([stop], [reset])


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not installed")
def test_keys_have_the_kernels_names_and_numbers() -> None:
    rows = re.findall(r"^#define\s+((?:KEY|BTN)_\w+)\s+(\w+)", HEADER.read_text(), re.MULTILINE)
    theirs: dict[str, int] = {}
    for name, value in rows:
        theirs[name] = theirs[value] if value in theirs else int(value, 0)
    ours = {key_name(number): number for number in range(1, 0x300) if not key_name(number).startswith("key ")}
    assert len(ours) > 250
    assert {name: theirs[name] for name in ours} == ours
    for name in ("BTN_A", "BTN_B", "BTN_X", "BTN_Y"):
        assert key_code(name) == theirs[name]
    assert key_code("KEY_SPACE") == SPACE
    assert key_code("57") == SPACE


def test_requests_have_the_numbers_and_sizes_of_the_kernels_headers() -> None:
    assert evdev.EVENT.size == 24
    assert (evdev.EV_SYN, evdev.EV_KEY, evdev.SYN_DROPPED) == (0, 1, 3)
    numbers = (
        evdev.GET_ID, evdev.GET_NAME, evdev.GET_KEYS, evdev.GET_KEYS_THERE, evdev.SET_MASK,
        gpio.GET_CHIP, gpio.GET_LINE_INFO, gpio.GET_LINE, gpio.GET_VALUES,
    )  # fmt: skip
    assert numbers == (
        0x80084502, 0x81004506, 0x80604518, 0x80604521, 0x40104593,
        0x8044B401, 0xC100B405, 0xC250B407, 0xC010B40E,
    )  # fmt: skip
    spec = parse_input("gpio:/dev/gpiochip0:17?active=low&bias=pull-up")
    assert isinstance(spec, GpioSpec)
    asked = gpio.request_of(spec)
    assert int.from_bytes(asked[:4], "little") == 17
    assert asked[256:264] == b"holdfast"
    assert int.from_bytes(asked[288:296], "little") == 1 << 1 | 1 << 2 | 1 << 8
    assert int.from_bytes(asked[560:564], "little") == 1
