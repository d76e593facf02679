"""A stop input that is lost and found again, in the loop: no driver that hangs holds up a tick."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from holdfast.drivers.types import JointState
from holdfast.runtime.control import watchdog
from holdfast.runtime.control.stop_inputs import StopInputs
from holdfast.runtime.control.watchdog import Watchdog
from holdfast.runtime.messages import Arm as ArmMessage
from holdfast.runtime.messages import Phase, Quit, Reset

from . import wire_devices as wire
from .test_loop import Scene, make_scene
from .world import MS

pytestmark = pytest.mark.real_time


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> wire.Keys:
    """A device whose driver lets whoever opens it wait, whatever he asks for."""
    keys = wire.Keys(tmp_path / "event0")
    real_open = os.open

    def waits(path: str | Path, flags: int, *more: int) -> int:
        if str(path) != str(keys.path):
            return real_open(path, flags, *more)
        fd = real_open(path, flags & ~os.O_NONBLOCK, *more)
        os.set_blocking(fd, False)
        return fd

    monkeypatch.setattr(fcntl, "ioctl", wire.ioctl)
    monkeypatch.setattr(os, "open", waits)
    return keys


MOST_TICKS = 1500


def play(scene: Scene, script: Iterator[None]) -> None:
    """Goes on with `script` in every tick, to the end of the run. What fails there is not survived."""
    read, ticks = scene.arm.read, count()
    failures: list[AssertionError] = []

    def reads() -> JointState:
        try:
            next(script, None)
            assert next(ticks) < MOST_TICKS, "the script waits in vain"
        except AssertionError as error:
            failures.append(error)
            scene.supervisor.send(Quit(park=False))
        return read()

    scene.arm.read = reads  # pyright: ignore[reportAttributeAccessIssue]
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    scene.loop.run()
    for failure in failures:
        raise failure


def test_an_open_that_hangs_holds_up_no_tick_and_no_reset_is_taken_meanwhile(
    tmp_path: Path, keys: wire.Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "FEED_NS", 0)
    dog = wire.Dog(tmp_path / "watchdog")
    inputs = StopInputs([f"evdev:{keys.path}"])
    inputs.open()
    scene = make_scene(tmp_path, stop_inputs=inputs, watchdog=Watchdog(str(dog.path)))
    events: list[str] = []
    fed: list[int] = []

    def script() -> Iterator[None]:
        while len(scene.arm.written) < 15:
            yield
        keys.unplug()
        while scene.loop.state.phase != Phase.STOPPED:
            yield
        keys.plug_dumb()
        for _ in range(3):
            scene.supervisor.send(Reset())
            dog.eaten()
            for _ in range(10):
                yield
            fed.append(len(dog.eaten()))
            assert scene.loop.state.phase == Phase.STOPPED
        events.extend(scene.events())
        keys.answer()
        while not any(event.startswith("input_back") for event in events):
            events.extend(scene.events())
            yield
        while scene.loop.state.phase != Phase.HOLD:
            scene.supervisor.send(Reset())
            yield
        scene.supervisor.send(Quit(park=False))

    play(scene, script())
    inputs.close()
    assert fed == [10] * 3, "one for each tick"
    assert not scene.loop.crashed
    assert any(event.startswith("stop: stop_input_lost") for event in events)
    assert sum(event.startswith("reset: refused") for event in events) == 3
    missing = [event for event in events if event.startswith("input_missing")]
    assert len(missing) == 2
    assert all("has not come to an end" in event for event in missing)


def test_nothing_is_opened_or_closed_while_the_arm_moves(
    tmp_path: Path, keys: wire.Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = StopInputs([f"evdev:{keys.path}"])
    inputs.open()
    scene = make_scene(tmp_path, stop_inputs=inputs)
    touched: list[Phase] = []
    real_open, real_close = os.open, os.close

    def opens(path: str | Path, *more: int) -> int:
        if str(path) == str(keys.path):
            touched.append(scene.loop.state.phase)
        return real_open(path, *more)

    def closes(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(keys.path)):
            touched.append(scene.loop.state.phase)
        real_close(fd)

    def script() -> Iterator[None]:
        while len(scene.arm.written) < 15:
            yield
        keys.unplug()
        monkeypatch.setattr(os, "open", opens)
        monkeypatch.setattr(os, "close", closes)
        while scene.loop.state.phase != Phase.STOPPED:
            scene.supervisor.send(Reset())
            yield
        while len(touched) < 2:
            scene.supervisor.send(Reset())
            yield
        scene.supervisor.send(Quit(park=False))

    play(scene, script())
    inputs.close()
    assert set(touched) == {Phase.STOPPED}
