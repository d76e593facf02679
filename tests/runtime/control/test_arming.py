"""Torque on and off, the gate's phases around it, and the latch file, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.drivers.errors import BusTimeout, Disconnected, MotorFault
from holdfast.drivers.types import JointState
from holdfast.runtime.control.arming import Options, Refused, Torque
from holdfast.runtime.control.gate import FeetechGate, GateDenied, GatePhase, GateTable, Rule
from holdfast.runtime.control.latch import LatchFile

from .test_loop import FakeArm
from .world import config, joint_state

URL = "serial:/dev/fake"
INSIDE = (0.5, 0.4, 10.0)
TABLE: GateTable = {GatePhase.RUN: (Rule(42, 2, {1: (0, 4095)}),)}


class Room:
    """One arm that is to be armed."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self.gate = FeetechGate()
        self.arm = FakeArm(self.gate)
        self.phases: list[GatePhase] = []
        self.rested_at: list[Sequence[float]] = []
        energise, release = self.arm.energise, self.arm.release

        def note_on() -> None:
            self.phases.append(self.gate.phase)
            energise()

        def note_off() -> None:
            self.phases.append(self.gate.phase)
            release()

        self.arm.energise, self.arm.release = note_on, note_off  # pyright: ignore[reportAttributeAccessIssue]
        self.latch = LatchFile(folder / "latch.json")
        options = replace(Options(URL, False, False, (0.05, 0.05, 5.0), self.table), **changes)  # pyright: ignore
        self.torque = Torque(self.arm, self.gate, self.latch, options, config())  # pyright: ignore

    def table(self, resting: Sequence[float]) -> GateTable:
        self.rested_at.append(resting)
        return TABLE

    def switch_on(self, at: tuple[float, ...] = INSIDE) -> JointState:
        return self.torque.switch_on(joint_state(at, 1))


def test_arming_sets_the_latch_loads_the_gate_and_ends_in_run(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.arm.at = (0.1, 0.2, 30.0)
    held = room.switch_on()
    assert held.position == (0.1, 0.2, 30.0), "what is held is what was read when the goals were set"
    assert room.torque.on
    assert room.arm.on == [True] * 3
    assert room.phases == [GatePhase.ARM]
    assert room.gate.phase == GatePhase.RUN
    assert room.rested_at == [INSIDE]
    room.gate(bytes([0xFF, 0xFF, 1, 5, 3, 42, 0, 8, 0xC4]))
    assert (room.latch.reason() or "").startswith("unfinished")


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(("joint", "limit", "slack"), [(0, 1.0, 0.05), (1, 1.5, 0.05)])
def test_an_arm_may_rest_a_little_outside_and_no_further(
    tmp_path: Path, joint: int, limit: float, slack: float, side: int
) -> None:
    def at(value: float) -> tuple[float, ...]:
        return tuple(side * value if i == joint else p for i, p in enumerate(INSIDE))

    Room(tmp_path).switch_on(at(limit + slack * 0.99))
    room = Room(tmp_path)
    with pytest.raises(Refused, match=r"outside its limits .* move it inside by hand"):
        room.switch_on(at(limit + slack * 1.01))
    assert (room.torque.on, room.arm.on, room.phases) == (False, [False] * 3, [])


def test_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    room = Room(tmp_path, dry_run=True)
    assert room.switch_on().position == INSIDE
    assert (room.torque.on, room.arm.on, room.latch.reason()) == (False, [False] * 3, None)
    assert room.gate.phase == GatePhase.CONNECT
    with pytest.raises(Refused):
        room.switch_on((9.0, 0.0, 0.0))


def test_without_a_latch_there_is_no_torque(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    room = Room(tmp_path)
    room.latch = LatchFile(tmp_path / "file" / "latch.json")
    room.torque = Torque(room.arm, room.gate, room.latch, room.torque._options, config())  # pyright: ignore
    with pytest.raises(Refused, match=r"cannot be written .* XDG_STATE_HOME"):
        room.switch_on()
    assert (room.torque.on, room.phases) == (False, [])


@pytest.mark.parametrize("before", [None, "stalled: pan"])
@pytest.mark.parametrize("error", [BusTimeout("no answer"), ValueError("a ratio"), GateDenied("no")])
def test_what_goes_wrong_before_torque_leaves_everything_as_it_was(
    tmp_path: Path, before: str | None, error: Exception
) -> None:
    room = Room(tmp_path)
    if before is not None:
        room.latch.set("stalled", "pan", URL)
    room.arm.read_fails = error
    with pytest.raises(Refused, match="arming failed, no torque was given: "):
        room.switch_on()
    assert (room.torque.on, room.torque.doubtful, room.phases) == (False, False, [])
    assert room.latch.reason() == before


def test_what_goes_wrong_with_torque_takes_it_back(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.arm.energise_fails = MotorFault("motor 2 refuses", 2)
    with pytest.raises(Refused, match="torque is off again: motor 2 refuses"):
        room.switch_on()
    assert (room.torque.on, room.torque.doubtful) == (False, False)
    assert room.phases == [GatePhase.ARM, GatePhase.STOP]
    assert room.latch.reason() is None


@pytest.mark.parametrize("motor", range(3))
def test_an_arm_that_was_held_before_is_not_let_go(tmp_path: Path, motor: int) -> None:
    room = Room(tmp_path)
    room.arm.on[motor] = True
    room.arm.energise_fails = MotorFault("motor 2 refuses", 2)
    with pytest.raises(Refused, match="left as it is, because the arm was being held"):
        room.switch_on()
    assert (room.torque.doubtful, room.arm.releases) == (True, 0)
    assert room.latch.reason() is not None


def test_torque_that_cannot_be_taken_back_is_doubtful_and_stays_latched(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.arm.energise_fails = room.arm.release_fails = Disconnected("gone")
    with pytest.raises(Refused, match=r"some motors may hold torque \(gone\)"):
        room.switch_on()
    assert (room.torque.on, room.torque.doubtful) == (True, True)
    assert room.latch.reason() is not None


def test_a_latch_that_cannot_be_put_back_is_no_other_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path)
    room.arm.read_fails = BusTimeout("no answer")

    def fails(latch: LatchFile) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(LatchFile, "clear", fails)
    with pytest.raises(Refused, match="no answer"):
        room.switch_on()


def test_torque_off_is_asked_for_only_where_it_was_given(tmp_path: Path) -> None:
    room = Room(tmp_path)
    assert room.torque.switch_off() is None
    assert (room.phases, room.gate.phase) == ([], GatePhase.CONNECT)
    room.switch_on()
    assert room.torque.switch_off() is None
    assert (room.torque.on, room.torque.doubtful, room.arm.on) == (False, False, [False] * 3)
    assert room.phases == [GatePhase.ARM, GatePhase.STOP]
    assert room.torque.switch_off() is None
    assert room.arm.releases == 1


@pytest.mark.parametrize("error", [BusTimeout("motor 3 did not answer"), GateDenied("not listed")])
def test_a_release_that_fails_may_be_tried_again(tmp_path: Path, error: Exception) -> None:
    room = Room(tmp_path)
    room.switch_on()
    room.arm.release_fails = error
    assert room.torque.switch_off() == str(error)
    assert (room.torque.on, room.torque.doubtful) == (True, True)
    room.arm.release_fails = None
    assert room.torque.switch_off() is None
    assert (room.torque.on, room.torque.doubtful) == (False, False)


@pytest.mark.parametrize(
    ("tries", "asked", "succeeds"), [(1, 1, False), (2, 2, False), (3, 3, True), (9, 3, True)]
)
def test_a_lost_answer_makes_it_another_try(tmp_path: Path, tries: int, asked: int, succeeds: bool) -> None:
    room = Room(tmp_path)
    room.switch_on()
    room.arm.release_fails = BusTimeout("motor 3 did not answer")
    release = room.arm.release

    def answers_the_third_time() -> None:
        if room.arm.releases == 2:
            room.arm.release_fails = None
        release()

    room.arm.release = answers_the_third_time  # pyright: ignore[reportAttributeAccessIssue]
    assert (room.torque.switch_off(tries) is None) is succeeds
    assert (room.arm.releases, room.torque.on, room.torque.doubtful) == (asked, not succeeds, not succeeds)


def test_a_port_that_is_gone_is_not_asked_again(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.switch_on()
    room.arm.release_fails = Disconnected("gone")
    assert room.torque.switch_off(3) == "gone"
    assert (room.arm.releases, room.torque.on) == (1, True)


# The latch file


def test_a_note_changes_the_reason_and_a_set_makes_its_folder(tmp_path: Path) -> None:
    latch = LatchFile(tmp_path / "a" / "b" / "latch.json")
    latch.set("unfinished", "x", URL)
    latch.note("load", "lift", URL)
    assert latch.reason() == "load: lift"
    assert [path.name for path in latch.path.parent.iterdir()] == ["latch.json"], "no half-written file stays"


def test_an_arm_that_is_on_no_serial_port_is_called_by_its_address(tmp_path: Path) -> None:
    a, b = LatchFile.of(tmp_path, "can:can0"), LatchFile.of(tmp_path, "can:can1")
    assert a.path != b.path
    assert a.path == LatchFile.of(tmp_path, "can:can0").path
