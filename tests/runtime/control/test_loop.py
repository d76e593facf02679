"""The loop around the core, where an error of our own or a motor that refuses meets an energised arm."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.arm import CheckRow, MotorInfo
from holdfast.drivers.errors import BusTimeout, Disconnected, MotorFault
from holdfast.drivers.types import JointState
from holdfast.runtime.channel import Channel, channel_pair
from holdfast.runtime.control.arming import Options, Refused
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.gate import FeetechGate
from holdfast.runtime.control.latch import LatchFile
from holdfast.runtime.control.loop import ControlLoop
from holdfast.runtime.control.stop_inputs import StopInputs
from holdfast.runtime.control.watchdog import Watchdog
from holdfast.runtime.messages import Arm as ArmMessage
from holdfast.runtime.messages import Event, Heartbeat, Phase, Quit, Stop
from holdfast.runtime.recorder.in_control import ControlRecorder
from holdfast.runtime.recorder.reading import read_recording
from holdfast.runtime.recorder.replay import replay

from . import wire_devices
from .world import MS, config, joint_state

pytestmark = pytest.mark.real_time


@dataclass
class FakeArm:
    """An arm at the seam `drivers.arm.Arm` that reaches each setpoint, until it is told to misbehave."""

    guard: FeetechGate
    at: tuple[float, ...] = (0.5, 0.4, 10.0)
    on: list[bool] = field(default_factory=lambda: [False] * 3)
    written: list[tuple[float, ...]] = field(default_factory=list)
    releases: int = 0
    read_fails: Exception | None = None
    energise_fails: Exception | None = None
    release_fails: Exception | None = None
    supervisor: Channel | None = None

    def connect(self) -> list[MotorInfo]:
        return []

    def check(self) -> list[CheckRow]:
        return []

    def read(self) -> JointState:
        if self.supervisor is not None:
            self.supervisor.send(Heartbeat())
        if self.read_fails is not None:
            raise self.read_fails
        return joint_state(self.at, time.monotonic_ns())

    def torque(self) -> tuple[bool, ...]:
        return tuple(self.on)

    def prepare(self, *, write_gains: bool = False) -> JointState:
        return self.read()

    def energise(self) -> None:
        self.on[0] = True
        if self.energise_fails is not None:
            raise self.energise_fails
        self.on = [True] * 3

    def command(self, positions: tuple[float, ...]) -> None:
        self.written.append(tuple(positions))
        self.at = tuple(positions)

    def release(self) -> None:
        self.releases += 1
        if self.release_fails is not None:
            raise self.release_fails
        self.on = [False] * 3

    def close(self) -> None:
        pass


@dataclass
class Scene:
    loop: ControlLoop
    arm: FakeArm
    supervisor: Channel
    policy: Channel

    def events(self) -> list[str]:
        return [
            f"{e.message.code}: {e.message.text}"
            for e in self.supervisor.receive_all()
            if isinstance(e.message, Event)
        ]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


def make_scene(
    tmp_path: Path,
    *,
    dry_run: bool = False,
    stop_inputs: StopInputs | None = None,
    watchdog: Watchdog | None = None,
    **changes: object,
) -> Scene:
    """A busy machine may miss as many slots as it likes."""
    ours_s, theirs_s = channel_pair()
    ours_p, theirs_p = channel_pair()
    supervisor = Channel(ours_s, 1)
    gate = FeetechGate()
    arm = FakeArm(gate, supervisor=supervisor)
    patient = config(max_missed_in_a_row=10_000, max_missed_fraction=1.0, **changes)
    options = Options("serial:/dev/fake", dry_run, False, (0.05, 0.05, 5.0), lambda resting: {})
    (tmp_path / "rings").mkdir()
    loop = ControlLoop(
        ControlCore(patient),
        arm,  # pyright: ignore[reportArgumentType]
        gate,
        Channel(theirs_s, 1),
        Channel(theirs_p, 1),
        LatchFile(tmp_path / "latch.json"),
        options,
        flight=ControlRecorder.open(tmp_path / "rings", patient),
        stop_inputs=stop_inputs,
        watchdog=watchdog,
    )
    return Scene(loop, arm, supervisor, Channel(ours_p, 1))


def test_an_error_of_our_own_in_motion_brakes_the_arm_before_the_process_ends(scene: Scene) -> None:
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    read = scene.arm.read

    def breaks_in_motion() -> JointState:
        if len(scene.arm.written) >= 15:
            raise RuntimeError("a bug")
        return read()

    scene.arm.read = breaks_in_motion  # pyright: ignore[reportAttributeAccessIssue]
    assert scene.loop.run() == "hold"
    assert scene.loop.crashed
    path = [point[0] for point in scene.arm.written]
    steps = [abs(b - a) for a, b in pairwise(path)]
    assert max(steps) > 0.002, "it was moving"
    assert steps[-1] < 1e-3, "it came to rest"
    assert "a bug" in (scene.loop.latch.reason() or "")
    assert any(event.startswith("stop: internal") for event in scene.events())


def test_a_motor_that_refuses_torque_has_the_others_let_go(scene: Scene) -> None:
    scene.arm.energise_fails = MotorFault("motor 2 refuses", 2)
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    with pytest.raises(Refused, match="torque is off again"):
        scene.loop.run()
    assert scene.arm.releases == 1
    assert scene.loop.latch.reason() is None


def test_a_failed_arming_leaves_an_older_stop_as_it_stood(scene: Scene) -> None:
    scene.loop.latch.set("stalled", "pan", "serial:/dev/fake")
    scene.arm.energise_fails = MotorFault("motor 2 refuses", 2)
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    with pytest.raises(Refused):
        scene.loop.run()
    assert scene.loop.latch.reason() == "stalled: pan"


def test_an_arm_that_a_former_run_left_holding_is_not_dropped_by_a_failed_arming(scene: Scene) -> None:
    scene.arm.on = [True, True, True]
    scene.arm.energise_fails = MotorFault("motor 2 refuses", 2)
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    with pytest.raises(Refused, match="was being held"):
        scene.loop.run()
    assert scene.arm.releases == 0


def test_motors_that_can_neither_be_armed_nor_released_stay_latched(scene: Scene) -> None:
    scene.arm.energise_fails = scene.arm.release_fails = Disconnected("gone")
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    with pytest.raises(Refused, match="may hold torque"):
        scene.loop.run()
    assert scene.loop.torque.doubtful
    assert scene.loop.latch.reason() is not None


def test_torque_is_not_given_to_who_asks_for_an_end_in_the_same_breath(scene: Scene) -> None:
    scene.arm.release_fails = Disconnected("gone")
    scene.arm.at = (0.0, -0.5, 0.0)
    scene.supervisor.send(ArmMessage(1, False, False, 300 * MS, 300 * MS))
    scene.supervisor.send(Quit(park=True))
    # Armed and asked to end in one breath: no torque is given.
    assert scene.loop.run() == "release"
    assert scene.arm.on == [False] * 3
    assert not scene.arm.written


def test_torque_that_cannot_be_taken_back_at_the_end_is_said_and_latched(scene: Scene) -> None:
    scene.arm.release_fails = Disconnected("gone")
    scene.arm.at = (0.0, -0.5, 0.0)
    scene.supervisor.send(ArmMessage(1, False, False, 300 * MS, 300 * MS))
    energise = scene.arm.energise

    def then_quit() -> None:
        energise()
        scene.supervisor.send(Quit(park=True))

    scene.arm.energise = then_quit  # pyright: ignore[reportAttributeAccessIssue]
    scene.loop.run()
    assert scene.loop.release_failed
    events = scene.events()
    assert any(event.startswith("held") for event in events)
    assert not any(event.startswith("released") for event in events)
    assert "release_failed" in (scene.loop.latch.reason() or "")


def test_an_error_of_our_own_in_a_dry_run_leaves_nothing_for_the_next_start(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, dry_run=True)
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    reads, read = iter(range(1000)), scene.arm.read

    def breaks_in_motion() -> JointState:
        if next(reads) >= 15:
            raise RuntimeError("a bug")
        return read()

    scene.arm.read = breaks_in_motion  # pyright: ignore[reportAttributeAccessIssue]
    assert scene.loop.run() == "hold"
    assert scene.loop.crashed
    assert scene.loop.latch.reason() is None


def test_a_signal_in_the_middle_of_a_tick_is_not_lost(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    step = scene.loop.core.step

    def interrupted(*arguments: Any) -> Any:
        if len(scene.arm.written) == 15:
            scene.loop.terminate()
        return step(*arguments)

    monkeypatch.setattr(scene.loop.core, "step", interrupted)
    assert scene.loop.run() == "hold"
    assert any(event.startswith("stop: requested: control received a signal") for event in scene.events())


# Letting go


def stopped_by_a_person(scene: Scene, at_release: Callable[[int], None]) -> list[str]:
    """Armed and stopped in category 1; `at_release` is called at each try. The events of the run."""
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    read, release = scene.arm.read, scene.arm.release
    stopped = False

    def stops_in_motion() -> JointState:
        nonlocal stopped
        if len(scene.arm.written) >= 15 and not stopped:
            scene.supervisor.send(Stop(True, "a person"))
            stopped = True
        return read()

    def counts() -> None:
        at_release(scene.arm.releases + 1)
        release()

    scene.arm.read = stops_in_motion  # pyright: ignore[reportAttributeAccessIssue]
    scene.arm.release = counts  # pyright: ignore[reportAttributeAccessIssue]
    scene.loop.run()
    return scene.events()


def test_a_release_that_fails_is_tried_again_until_the_motors_answer(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, stop_category=1)
    tried: list[float] = []
    written: list[int] = []

    def at_release(count: int) -> None:
        tried.append(time.monotonic())
        written.append(len(scene.arm.written))
        scene.arm.release_fails = BusTimeout("no answer") if count < 4 else None
        if count == 4:
            scene.supervisor.send(Quit(park=False))

    events = stopped_by_a_person(scene, at_release)
    assert len(tried) == 4
    assert min(b - a for a, b in pairwise(tried)) >= 0.09
    assert len(set(written)) == 1, "nothing is sent to motors that are to let go"
    assert scene.arm.on == [False] * 3
    codes = [event.partition(":")[0] for event in events]
    assert codes.index("stopped") < codes.index("release_failed") < codes.index("released")
    assert codes.count("release_failed") == 1
    assert not scene.loop.release_failed
    assert not scene.loop.torque.doubtful
    assert (scene.loop.latch.reason() or "").startswith("requested")


def test_category_0_lets_go_in_the_tick_that_notices_and_sends_nothing_more(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, stop_category=0)
    written: list[int] = []

    def at_release(count: int) -> None:
        written.append(len(scene.arm.written))
        scene.supervisor.send(Quit(park=False))

    events = stopped_by_a_person(scene, at_release)
    assert written == [len(scene.arm.written)]
    speed = abs(scene.arm.written[-1][0] - scene.arm.written[-2][0])
    assert speed > 1e-3, "it did not brake first"
    assert scene.arm.on == [False] * 3
    assert any(event.startswith("released") for event in events)
    assert (scene.loop.latch.reason() or "").startswith("requested")


def test_a_release_that_never_works_is_said_at_the_end(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, stop_category=1)
    scene.arm.release_fails = Disconnected("gone")
    events = stopped_by_a_person(
        scene, lambda count: (scene.supervisor.send(Quit(park=False)), None)[1] if count == 2 else None
    )
    assert scene.arm.releases >= 3, "once more at the end"
    assert any(event.startswith("held: whether the motors hold is not known") for event in events)
    assert "release_failed" in (scene.loop.latch.reason() or "")
    assert scene.loop.release_failed


def test_an_error_of_our_own_does_not_keep_the_motors_from_letting_go(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, stop_category=1)
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    read = scene.arm.read

    def breaks_in_motion() -> JointState:
        if len(scene.arm.written) >= 15:
            raise RuntimeError("a bug")
        return read()

    scene.arm.read = breaks_in_motion  # pyright: ignore[reportAttributeAccessIssue]
    scene.loop.run()
    assert scene.loop.crashed
    assert scene.arm.on == [False] * 3
    assert scene.loop.state.phase == Phase.RELEASED


def test_one_lost_answer_at_the_end_is_asked_for_again(scene: Scene) -> None:
    scene.arm.at = (0.0, -0.5, 0.0)
    scene.supervisor.send(ArmMessage(1, False, False, 300 * MS, 300 * MS))
    energise, release = scene.arm.energise, scene.arm.release

    def then_quit() -> None:
        energise()
        scene.supervisor.send(Quit(park=True))

    def fails_once() -> None:
        scene.arm.release_fails = BusTimeout("no answer") if scene.arm.releases == 0 else None
        release()

    scene.arm.energise = then_quit  # pyright: ignore[reportAttributeAccessIssue]
    scene.arm.release = fails_once  # pyright: ignore[reportAttributeAccessIssue]
    assert scene.loop.run() == "release"
    assert scene.arm.releases == 2
    assert scene.arm.on == [False] * 3
    assert not scene.loop.release_failed
    assert scene.loop.latch.reason() is None


# The watchdog of the computer


def test_a_watchdog_that_cannot_be_fed_stops_the_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", wire_devices.ioctl)
    dog = wire_devices.Dog(tmp_path / "watchdog")
    scene = make_scene(tmp_path, watchdog=Watchdog(str(dog.path)))
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))

    def fails(now_ns: int) -> None:
        if len(scene.arm.written) == 15:
            raise OSError(5, "Input/output error")
        if scene.loop.state.phase == Phase.STOPPED:
            scene.supervisor.send(Quit(park=False))

    assert scene.loop.watchdog is not None
    monkeypatch.setattr(scene.loop.watchdog, "feed", fails)
    scene.loop.run()
    assert any(e.startswith("stop: internal: the watchdog") for e in scene.events())
    assert dog.eaten() == b"V", "control ended in good order"


def test_control_that_crashed_does_not_stop_the_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", wire_devices.ioctl)
    dog = wire_devices.Dog(tmp_path / "watchdog")
    scene = make_scene(tmp_path, watchdog=Watchdog(str(dog.path)))
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    read = scene.arm.read

    def breaks_in_motion() -> JointState:
        if len(scene.arm.written) >= 15:
            raise RuntimeError("a bug")
        return read()

    scene.arm.read = breaks_in_motion  # pyright: ignore[reportAttributeAccessIssue]
    scene.loop.run()
    assert scene.loop.crashed
    assert b"V" not in dog.eaten()


# The flight recorder


def test_what_is_recorded_repeats_even_where_an_error_of_our_own_ended_it(
    scene: Scene, tmp_path: Path
) -> None:
    scene.supervisor.send(ArmMessage(1, True, False, 300 * MS, 300 * MS))
    read = scene.arm.read

    def breaks_in_motion() -> JointState:
        if len(scene.arm.written) >= 15:
            raise RuntimeError("a bug")
        return read()

    scene.arm.read = breaks_in_motion  # pyright: ignore[reportAttributeAccessIssue]
    assert scene.loop.run() == "hold"
    recording = read_recording(tmp_path / "rings")
    assert replay(recording).identical
    setpoints = [tick.output.setpoint for tick in recording.ticks if tick.output.setpoint is not None]
    assert setpoints == scene.arm.written
    assert any(tick.slot_ns == 0 for tick in recording.ticks), "the steps after the error are there"
    assert recording.ticks[-1].phase == scene.loop.state.phase


def test_a_recorder_that_fails_is_said_and_the_arm_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(kind: int, stamp_ns: int, payload: bytes) -> None:
        raise ValueError("no ring")

    monkeypatch.setattr(scene.loop.flight.writer, "write", fails)
    scene.arm.at = (0.0, -0.5, 0.0)
    scene.supervisor.send(ArmMessage(1, False, False, 300 * MS, 300 * MS))
    energise = scene.arm.energise

    def then_quit() -> None:
        energise()
        scene.supervisor.send(Quit(park=True))

    scene.arm.energise = then_quit  # pyright: ignore[reportAttributeAccessIssue]
    assert scene.loop.run() == "release"
    events = scene.events()
    assert "recorder: nothing more is recorded here: ValueError: no ring" in events
    assert any(event.startswith("released") for event in events)
    assert not scene.loop.crashed
