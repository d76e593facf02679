"""A key of an input device: what the kernel's bytes mean."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.runtime.control import evdev
from holdfast.runtime.control.stop_inputs import InputError

from . import wire_devices as wire
from .inputs import ENTER, SPACE, codes, opened, reopened

EVENTS = st.lists(st.tuples(st.integers(0, 31), st.integers(0, 0x2FF), st.integers(0, 2)), max_size=40)


@example([(0, 3, 0)], None, True)
@example([(0, 4, 0)], None, True)
@example([(1, 3, 0)], None, True)
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


def test_nothing_but_keys_is_asked_for(keys: wire.Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def takes(fd: int, driver: Path, knows: dict, mask: bytes) -> int:
        kind, size, address = struct.unpack("@IIQ", mask)
        asked.append((kind, size, ctypes.string_at(address, size)))
        return 0

    monkeypatch.setitem(wire.ANSWERS, evdev.SET_MASK, takes)
    opened(f"evdev:{keys.path}")
    # Of the types of events (0) in whole C longs the one of keys (1).
    assert asked == [(0, 8, b"\2" + bytes(7))]


def test_the_end_of_the_file_is_a_device_that_has_gone(keys: wire.Keys) -> None:
    inputs = opened(f"evdev:{keys.path}")
    os.close(keys.fd)
    assert codes(inputs) == ["stop_input_lost"]


def test_another_device_of_the_same_name_is_another(keys: wire.Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = opened(f"evdev:{keys.path}")
    keys.unplug()
    inputs.poll()
    keys.plug()

    def other(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
        argument[:] = struct.pack("@HHHH", 3, 0x1234, 0xABCE, 0x111)
        return 0

    monkeypatch.setitem(wire.ANSWERS, evdev.GET_ID, other)
    assert "another device now: 'ACME Button' (1234:abce, version 0111)" in reopened(inputs)[0].text


def test_a_device_without_keys_is_refused(tmp_path: Path, kernel: None) -> None:
    mouse = wire.Keys(tmp_path / "event1", keys=(), name="ACME Mouse")
    with pytest.raises(InputError, match=r"ACME Mouse.*has no keys"):
        opened(f"evdev:{mouse.path}")


def test_a_name_that_is_no_text_is_no_reason_to_refuse(
    keys: wire.Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(fd: int, driver: Path, knows: dict, argument: bytearray) -> int:
        argument[:3] = b"A\xffB"
        return 3

    monkeypatch.setitem(wire.ANSWERS, evdev.GET_NAME, name)
    assert "A\ufffdB" in opened(f"evdev:{keys.path}").guards()[0]


def test_one_that_is_refused_is_closed(keys: wire.Keys) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(InputError, match="has no BTN_SOUTH"):
        opened(f"evdev:{keys.path}?key=BTN_SOUTH")
    assert os.listdir("/proc/self/fd") == before


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
