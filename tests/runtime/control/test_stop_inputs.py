"""Stop and reset inputs: what is refused at the start, what a tick gets, what was lost and comes back."""

from __future__ import annotations

import errno
import grp
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from holdfast.runtime.control.state import Condition
from holdfast.runtime.control.stop_inputs import InputError, Polled, StopInputs

from ...processes import wait_for
from . import wire_devices as wire
from .inputs import ENTER, SPACE, codes, opened, reopened


@pytest.mark.parametrize("spec", ["evdev:{}", "evdev:{}?key=KEY_SPACE"])
def test_a_stop_input_that_is_pressed_at_the_start_is_refused(keys: wire.Keys, spec: str) -> None:
    keys.press(SPACE)
    with pytest.raises(InputError, match=r"at the start: release it$"):
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


def test_without_inputs_a_tick_gets_nothing() -> None:
    assert StopInputs().poll() == Polled(conditions=(), reset=False, notes=())
    assert StopInputs().reopen() == []


def test_a_condition_names_the_input_and_what_is_pressed(keys: wire.Keys, chip: wire.Chip) -> None:
    texts = [f"evdev:{keys.path}", f"evdev:{keys.path}?key=KEY_SPACE", f"gpio:{chip.path}:17"]
    inputs = opened(*texts)
    keys.press(SPACE)
    chip.tell(high=[17])
    what = ("any key", "KEY_SPACE", "the line")
    expected = [
        Condition("stop_input", f"{text}: {pressed} is pressed")
        for text, pressed in zip(texts, what, strict=True)
    ]
    assert list(inputs.poll().conditions) == expected


def test_before_they_are_opened_and_after_the_end_nothing_is_read(keys: wire.Keys) -> None:
    inputs = StopInputs([f"evdev:{keys.path}"], [f"evdev:{keys.path}x"])
    assert inputs.poll() == Polled((), False, ())
    inputs = opened(f"evdev:{keys.path}")
    inputs.close()
    keys.press(SPACE)
    assert inputs.poll() == Polled((), False, ())


def test_one_that_was_lost_stays_so_until_it_is_opened_again(keys: wire.Keys) -> None:
    """Also where it answers once more: what came meanwhile is not known."""
    inputs = opened(f"evdev:{keys.path}")
    os.write(keys.fd, b"\0" * 12)
    assert codes(inputs) == ["stop_input_lost"]
    keys.press(SPACE)
    assert codes(inputs) == ["stop_input_lost"]
    assert [note.code for note in reopened(inputs)] == ["input_back"]
    assert codes(inputs) == ["stop_input"]


def test_one_that_is_still_being_opened_is_said_to_be(
    keys: wire.Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = opened(f"evdev:{keys.path}")
    keys.unplug()
    inputs.poll()
    keys.plug()
    answers, name = threading.Event(), wire.ANSWERS[wire.evdev.GET_NAME]

    def waits(*arguments: Any) -> int:
        answers.wait()
        return name(*arguments)

    monkeypatch.setitem(wire.ANSWERS, wire.evdev.GET_NAME, waits)
    assert inputs.reopen() == []
    assert codes(inputs) == ["stop_input_lost"]
    (note,) = inputs.reopen()
    assert note.code == "input_missing"
    assert str(keys.path) in note.text
    answers.set()
    wait_for(lambda: not codes(inputs), "its answer", 10.0)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.EIO])
@pytest.mark.parametrize("kind", ["stop", "reset"])
def test_what_cannot_be_opened_is_called_by_its_kind(
    keys: wire.Keys, monkeypatch: pytest.MonkeyPatch, number: int, kind: str
) -> None:
    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fails)
    text = f"evdev:{keys.path}"
    inputs = StopInputs([text]) if kind == "stop" else StopInputs((), [text])
    with pytest.raises(InputError, match=rf"the {kind} input {keys.path}"):
        inputs.open()


def test_what_is_to_be_done_about_a_lost_one_is_said(keys: wire.Keys, tmp_path: Path) -> None:
    other = wire.Keys(tmp_path / "event1")
    inputs = opened(f"evdev:{keys.path}", resets=(f"evdev:{other.path}",))
    keys.unplug()
    other.unplug()
    polled = inputs.poll()
    assert polled.conditions[0].text.endswith("plug it in again, then reset twice")
    assert polled.notes[0].text.endswith("plug it in again, then reset")


def test_each_reset_input_that_is_gone_is_said(keys: wire.Keys, tmp_path: Path) -> None:
    other = wire.Keys(tmp_path / "event1")
    inputs = opened(resets=(f"evdev:{keys.path}", f"evdev:{other.path}"))
    keys.unplug()
    other.unplug()
    assert [str(path) in note.text for path, note in
            zip((keys.path, other.path), inputs.poll().notes, strict=True)] == [True, True]  # fmt: skip


def test_a_reset_that_is_held_down_when_its_device_is_back_is_no_press(keys: wire.Keys) -> None:
    inputs = opened(resets=(f"evdev:{keys.path}",))
    keys.unplug()
    inputs.poll()
    keys.plug()
    keys.tell(down=[ENTER])
    inputs.reopen()
    polled: list[Polled] = []
    wait_for(lambda: polled.append(inputs.poll()) or polled[-1].notes, "an answer", 10.0)
    assert not any(each.reset for each in polled)
    assert not inputs.poll().reset
    keys.release(ENTER)
    assert not inputs.poll().reset
    keys.press(ENTER)
    assert inputs.poll().reset


def test_one_that_vanishes_between_opening_and_the_first_look_is_refused(
    keys: wire.Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> int:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setitem(wire.ANSWERS, wire.evdev.GET_KEYS, gone)
    with pytest.raises(InputError, match="is gone"):
        opened(resets=(f"evdev:{keys.path}",))


def test_a_device_that_is_no_good_any_more_is_closed(keys: wire.Keys) -> None:
    def held() -> int:
        links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        return sum(link.startswith(str(keys.path)) for link in links)

    inputs = opened(f"evdev:{keys.path}")
    keys.unplug()
    inputs.poll()
    reopened(inputs)
    assert held() == 0, "the one that has gone"
    wire.Keys(keys.path, name="Some Keyboard")
    before = held()
    assert "another device" in reopened(inputs)[0].text
    assert held() == before, "another one in its place"


def test_the_thread_that_opens_them_ends_with_them(keys: wire.Keys) -> None:
    before, size = set(threading.enumerate()), threading.stack_size(1 << 19)
    inputs = opened(f"evdev:{keys.path}")
    found = threading.stack_size(size)
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon, "an open that hangs does not keep the process"
    assert found == 1 << 19, "of whatever else is started"
    inputs.close()
    thread.join(10.0)
    opened()
    assert not set(threading.enumerate()) - before, "nothing to open, no thread"


def test_a_device_that_refuses_to_be_closed_is_let_go(
    keys: wire.Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    inputs = opened(f"evdev:{keys.path}")
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", refuses)
        inputs.close()
    assert inputs.poll() == Polled()
