"""Stop and reset inputs: what the command line names, what the kernel's bytes mean, what a tick gets."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.errors import ConfigError
from holdfast.runtime.control import evdev, gpio
from holdfast.runtime.control.input_spec import EvdevSpec, GpioSpec, parse_input
from holdfast.runtime.control.key_names import key_code, key_name
from holdfast.runtime.control.state import Note
from holdfast.runtime.control.stop_inputs import InputError, StopInputs

from ...processes import wait_for
from . import wire_devices as wire

HEADER = Path("/usr/include/linux/input-event-codes.h")
SPACE, ENTER = 57, 28


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", wire.ioctl)


@pytest.fixture
def keys(tmp_path: Path) -> wire.Keys:
    return wire.Keys(tmp_path / "event0")


@pytest.fixture
def chip(tmp_path: Path) -> wire.Chip:
    return wire.Chip(tmp_path / "gpiochip0")


def opened(*stops: str, resets: tuple[str, ...] = ()) -> StopInputs:
    inputs = StopInputs(stops, resets)
    inputs.open()
    return inputs


def codes(inputs: StopInputs) -> list[str]:
    return [condition.code for condition in inputs.poll().conditions]


def reopened(inputs: StopInputs) -> list[Note]:
    """What is said about those that are gone, once it has been tried."""
    notes = inputs.reopen()
    wait_for(lambda: notes.extend(inputs.poll().notes) or notes, "an answer")
    return notes


# What the command line names


def test_inputs_are_named_by_device_and_key_or_by_chip_and_line() -> None:
    assert parse_input("evdev:/dev/input/event3") == EvdevSpec(
        "evdev:/dev/input/event3", "/dev/input/event3", None
    )
    key = parse_input("evdev:/dev/input/by-id/usb-A_B-event-kbd?key=KEY_SPACE")
    assert isinstance(key, EvdevSpec)
    assert (key.path, key.key, key.key_text) == ("/dev/input/by-id/usb-A_B-event-kbd", SPACE, "KEY_SPACE")
    text = "gpio:/dev/gpiochip0:17"
    assert parse_input(text) == GpioSpec(text, "/dev/gpiochip0", 17, False, "as-is")
    text += "?active=low&bias=pull-up"
    assert parse_input(text) == GpioSpec(text, "/dev/gpiochip0", 17, True, "pull-up")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected evdev:"),
        ("/dev/input/event3", "expected evdev:"),
        ("evdev:", "expected evdev:"),
        ("evdev:event3", "expected evdev:"),
        ("usb:/dev/x", "expected evdev:"),
        ("evdev:/dev/input/event3?key=SPACE", "no key is called 'SPACE'"),
        ("evdev:/dev/input/event3?key=0", "no key"),
        ("evdev:/dev/input/event3?key=768", "no key"),
        ("evdev:/dev/input/event3?key=", "key"),
        ("evdev:/dev/input/event3?active=low", "unknown option 'active'"),
        ("evdev:/dev/input/event3?key=1&key=2", "twice"),
        ("gpio:/dev/gpiochip0", "number of a line"),
        ("gpio:/dev/gpiochip0:", "number of a line"),
        ("gpio:/dev/gpiochip0:-1", "number of a line"),
        ("gpio:/dev/gpiochip0:1?key=1", "unknown option 'key'"),
        ("gpio:/dev/gpiochip0:1?active=yes", "high"),
        ("gpio:/dev/gpiochip0:1?bias=up", "pull-up"),
        ("gpio:/dev/gpiochip0:1?bias", "bias"),
    ],
)
def test_what_is_malformed_is_refused_with_what_is_right(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_input(text)


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


# What the bytes of an input device mean

EVENTS = st.lists(st.tuples(st.integers(0, 31), st.integers(0, 0x2FF), st.integers(0, 2)), max_size=40)


@given(EVENTS, st.one_of(st.none(), st.integers(1, 0x2FF)), st.booleans())
def test_a_press_anywhere_among_other_events_counts(
    events: list[tuple[int, int, int]], key: int | None, doubt: bool
) -> None:
    data = b"".join(evdev.EVENT.pack(0, 0, *event) for event in events)
    pressed = any(kind == 1 and value and key in (None, code) for kind, code, value in events)
    dropped = any((kind, code) == (0, 3) for kind, code, _ in events)
    assert evdev.presses(data, key, doubt) == (pressed or (dropped and doubt))
    assert list(evdev.decode(data)) == events


def test_any_key_or_the_named_one_stops_as_long_as_it_is_down(keys: wire.Keys) -> None:
    any_key = opened(f"evdev:{keys.path}")
    assert codes(any_key) == []
    for key in (SPACE, ENTER):
        keys.press(key)
        assert [codes(any_key) for _ in range(3)] == [["stop_input"]] * 3
        keys.release(key)
        assert codes(any_key) == []


def test_another_key_than_the_named_one_is_nothing(keys: wire.Keys) -> None:
    space = opened(f"evdev:{keys.path}?key=KEY_SPACE")
    keys.press(ENTER)
    assert codes(space) == []
    keys.press(SPACE)
    assert "KEY_SPACE" in space.poll().conditions[0].text


def test_a_tap_between_two_ticks_is_not_missed(keys: wire.Keys) -> None:
    inputs = opened(f"evdev:{keys.path}")
    keys.tap(SPACE)
    assert codes(inputs) == ["stop_input"]
    assert codes(inputs) == []


def test_a_key_whose_events_never_come_is_seen_by_its_state(keys: wire.Keys) -> None:
    """As when another program has grabbed the device."""
    inputs = opened(f"evdev:{keys.path}?key=KEY_SPACE")
    keys.tell(down=[SPACE])
    assert codes(inputs) == ["stop_input"]


def test_events_that_the_kernel_had_to_drop_count_as_a_press_of_a_stop_and_not_of_a_reset(
    keys: wire.Keys, tmp_path: Path
) -> None:
    other = wire.Keys(tmp_path / "event1")
    inputs = opened(f"evdev:{keys.path}", resets=(f"evdev:{other.path}",))
    keys.send((evdev.EV_SYN, evdev.SYN_DROPPED, 0))
    other.send((evdev.EV_SYN, evdev.SYN_DROPPED, 0))
    polled = inputs.poll()
    assert [condition.code for condition in polled.conditions] == ["stop_input"]
    assert not polled.reset


def test_a_flood_of_events_takes_a_bounded_time_and_loses_no_press(keys: wire.Keys) -> None:
    inputs = opened(f"evdev:{keys.path}?key=KEY_SPACE")
    for _ in range(12):
        keys.send(*[(3, 0, value) for value in range(99)])
    keys.tap(SPACE)
    found = [codes(inputs) for _ in range(4)]
    assert found[0] == []
    assert ["stop_input"] in found


def test_a_vanished_device_is_a_condition_in_every_tick(keys: wire.Keys) -> None:
    inputs = opened(f"evdev:{keys.path}")
    keys.unplug()
    assert [codes(inputs) for _ in range(3)] == [["stop_input_lost"]] * 3
    assert str(keys.path) in inputs.poll().conditions[0].text


def test_half_an_event_is_no_event(keys: wire.Keys) -> None:
    inputs = opened(f"evdev:{keys.path}")
    os.write(keys.fd, b"\0" * 12)
    assert codes(inputs) == ["stop_input_lost"]


@pytest.mark.parametrize(("number", "opens"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_kernel_without_masks_sends_all_events_which_is_fine(
    keys: wire.Keys, monkeypatch: pytest.MonkeyPatch, number: int, opens: bool
) -> None:
    def no_mask(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setitem(wire.ANSWERS, evdev.SET_MASK, no_mask)
    if not opens:
        with pytest.raises(InputError, match="cannot be opened"):
            opened(f"evdev:{keys.path}")
        return
    inputs = opened(f"evdev:{keys.path}")
    keys.send((3, 0, 17))
    assert codes(inputs) == []
    keys.tap(SPACE)
    assert codes(inputs) == ["stop_input"]


@pytest.mark.parametrize("request_number", [evdev.GET_NAME, evdev.GET_KEYS])
def test_a_device_that_vanishes_while_it_is_opened_is_refused(
    keys: wire.Keys, monkeypatch: pytest.MonkeyPatch, request_number: int
) -> None:
    def gone(*_: object) -> int:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setitem(wire.ANSWERS, request_number, gone)
    with pytest.raises(InputError, match="No such device"):
        opened(f"evdev:{keys.path}")


# A GPIO line


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


@pytest.mark.parametrize("request_number", [gpio.GET_CHIP, gpio.GET_LINE])
def test_a_chip_that_vanishes_while_it_is_opened_is_refused(
    chip: wire.Chip, monkeypatch: pytest.MonkeyPatch, request_number: int
) -> None:
    def gone(*_: object) -> int:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setitem(wire.ANSWERS, request_number, gone)
    with pytest.raises(InputError, match="No such device"):
        opened(f"gpio:{chip.path}:17")


# All of a run


@pytest.mark.parametrize("spec", ["evdev:{}", "evdev:{}?key=KEY_SPACE"])
def test_a_stop_input_that_is_pressed_at_the_start_is_refused(keys: wire.Keys, spec: str) -> None:
    keys.press(SPACE)
    with pytest.raises(InputError, match="at the start: release it"):
        opened(spec.format(keys.path))


def test_a_cut_wire_at_the_start_is_refused(chip: wire.Chip) -> None:
    chip.tell(high=[17])
    with pytest.raises(InputError, match="cut wire"):
        opened(f"gpio:{chip.path}:17?bias=pull-up")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("evdev:/dev/does-not-exist", "is it plugged in"),
        ("gpio:/dev/does-not-exist:3", "is it plugged in"),
        ("evdev:/dev/null", "no input device"),
        ("gpio:/dev/null:3", "no GPIO chip"),
        ("evdev:/dev", "no input device|cannot be opened"),
    ],
)
def test_what_is_not_there_or_something_else_is_refused(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        opened(spec)


def test_a_device_without_the_key_is_refused_with_its_name(keys: wire.Keys) -> None:
    with pytest.raises(InputError, match=r"ACME Button.*has no BTN_SOUTH"):
        opened(f"evdev:{keys.path}?key=BTN_SOUTH")


@pytest.mark.parametrize("kind", ["evdev:{}", "gpio:{}:3"])
def test_a_missing_permission_is_said_with_the_group(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "node"
    node.touch()

    def forbidden(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    inputs = StopInputs([kind.format(node)])
    monkeypatch.setattr(os, "open", forbidden)
    for group, words in (("input", "usermod -aG input"), ("root", "udev rule")):
        monkeypatch.setattr(grp, "getgrgid", lambda _, name=group: grp.struct_group((name, "x", 1, [])))
        with pytest.raises(InputError, match=f"no permission.*{words}"):
            inputs.open()
    node.unlink()
    with pytest.raises(InputError, match=r"no permission.*udev rule"):
        inputs.open()


def test_what_was_opened_stands_among_the_guards(keys: wire.Keys, chip: wire.Chip) -> None:
    inputs = opened(
        f"evdev:{keys.path}?key=KEY_SPACE", f"gpio:{chip.path}:17", resets=(f"gpio:{chip.path}:3",)
    )
    key, line, reset = inputs.guards()
    assert key.startswith("stop input: evdev:")
    assert "'ACME Button', KEY_SPACE" in key
    assert "acme-gpio, line 17 'PIN17', pressed while high" in line
    assert reset.startswith("reset input: gpio:")
    assert StopInputs().guards() == ["stop input: none (--stop-input)"]


def test_a_reset_is_the_press_not_the_hold(keys: wire.Keys, chip: wire.Chip) -> None:
    keys.press(ENTER)
    inputs = opened(resets=(f"evdev:{keys.path}?key=KEY_ENTER", f"gpio:{chip.path}:3"))
    assert not inputs.poll().reset, "it was down before the start"
    keys.release(ENTER)
    assert not inputs.poll().reset
    keys.press(ENTER)
    assert [inputs.poll().reset for _ in range(3)] == [True, False, False]
    keys.release(ENTER)
    inputs.poll()
    keys.tap(ENTER)
    assert inputs.poll().reset
    chip.tell(high=[3])
    assert [inputs.poll().reset for _ in range(2)] == [True, False]


def test_a_reset_input_that_is_gone_stops_nothing_and_is_said_once(keys: wire.Keys) -> None:
    inputs = opened(resets=(f"evdev:{keys.path}",))
    keys.unplug()
    polled = [inputs.poll() for _ in range(3)]
    assert [len(p.notes) for p in polled] == [1, 0, 0]
    assert polled[0].notes[0].code == "reset_input_lost"
    assert not any(p.conditions for p in polled)


def test_a_device_that_is_plugged_in_again_is_used_again(keys: wire.Keys) -> None:
    inputs = opened(f"evdev:{keys.path}")
    keys.unplug()
    inputs.poll()
    assert [note.code for note in reopened(inputs)] == ["input_missing"]
    assert codes(inputs) == ["stop_input_lost"]
    keys.plug()
    assert [note.code for note in reopened(inputs)] == ["input_back"]
    assert codes(inputs) == []
    assert inputs.reopen() == []
    keys.press(SPACE)
    assert codes(inputs) == ["stop_input"]


def test_another_device_in_its_place_is_not_taken(keys: wire.Keys) -> None:
    inputs = opened(f"evdev:{keys.path}")
    keys.unplug()
    inputs.poll()
    wire.Keys(keys.path, name="Some Keyboard")
    assert "another device" in reopened(inputs)[0].text
    assert codes(inputs) == ["stop_input_lost"]


def test_closing_twice_is_fine_and_leaves_no_descriptor(keys: wire.Keys, chip: wire.Chip) -> None:
    before = len(os.listdir("/proc/self/fd"))
    inputs = opened(f"evdev:{keys.path}", f"gpio:{chip.path}:17")
    inputs.close()
    inputs.close()
    assert len(os.listdir("/proc/self/fd")) == before
