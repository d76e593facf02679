"""The gate sees raw bytes: only what the table of the phase lists may pass, whatever the driver encodes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits
from holdfast.runtime.control.gate import FeetechGate, GateDenied, GatePhase
from holdfast.runtime.control.gate_table import SETTLE_TICKS, feetech_table

ROBOT = load_robot("sim_arm")
UNITS = JointUnits(ROBOT, find_calibration(ROBOT))
START = [joint.start for joint in ROBOT.joints]
TICKS = UNITS.to_ticks(START)


def frame(motor_id: int, instruction: int, *parameters: int) -> bytes:
    body = bytes([motor_id, len(parameters) + 2, instruction, *parameters])
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def goal(motor_id: int, ticks: int) -> bytes:
    return frame(motor_id, 3, 42, ticks & 0xFF, ticks >> 8)


def sync_goals(ticks: list[int]) -> bytes:
    blocks = [b for i, t in enumerate(ticks, start=1) for b in (i, t & 0xFF, t >> 8)]
    return frame(0xFE, 0x83, 42, 2, *blocks)


def gate(phase: GatePhase, *, write_gains: bool = False) -> FeetechGate:
    made = FeetechGate()
    made.load(feetech_table(ROBOT, UNITS, START, write_gains=write_gains))
    made.phase = phase
    return made


def test_before_its_table_is_loaded_nothing_may_be_written() -> None:
    closed = FeetechGate()
    closed.phase = GatePhase.RUN
    with pytest.raises(GateDenied):
        closed(sync_goals(TICKS))
    closed(frame(1, 2, 56, 2))


@pytest.mark.parametrize("phase", GatePhase)
def test_reading_is_always_allowed(phase: GatePhase) -> None:
    for request in (frame(1, 1), frame(1, 2, 0, 5), frame(0xFE, 0x82, 56, 15, 1, 2, 3)):
        gate(phase)(request)


def test_goals_inside_the_limits_pass_while_running() -> None:
    gate(GatePhase.RUN)(sync_goals(TICKS))


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("side", [0, 1])
def test_one_tick_beyond_any_limit_is_denied(joint: int, side: int) -> None:
    limits = UNITS.goal_tick_range(joint, *UNITS.reachable(joint))
    ticks = list(TICKS)
    ticks[joint] = limits[side]
    gate(GatePhase.RUN)(sync_goals(ticks))
    ticks[joint] = limits[side] + (1 if side else -1)
    with pytest.raises(GateDenied, match=f"motor {joint + 1}"):
        gate(GatePhase.RUN)(sync_goals(ticks))


@pytest.mark.parametrize(
    ("what", "request_bytes"),
    [
        ("torque 128 would re-zero the servo", frame(1, 3, 40, 128)),
        ("EEPROM: homing offset", frame(1, 3, 31, 0, 0)),
        ("EEPROM: id", frame(1, 3, 5, 2)),
        ("EEPROM: lock", frame(1, 3, 55, 0)),
        ("gains without the flag", frame(1, 3, 21, 16)),
        ("another acceleration than declared", frame(1, 3, 41, 7)),
        ("reg-write", frame(1, 4, 42, 0, 8)),
        ("action", frame(0xFE, 5)),
        ("factory reset", frame(1, 6)),
        ("a goal broadcast to all", frame(0xFE, 3, 42, 0, 8)),
        ("a goal for an unknown motor", goal(9, 2048)),
        ("a goal with its speed in one block", frame(1, 3, 42, 0, 8, 0, 0, 0, 0)),
        ("ragged blocks", frame(0xFE, 0x83, 42, 2, 1, 0)),
        ("no blocks", frame(0xFE, 0x83, 42, 2)),
        ("a wrong checksum", frame(1, 3, 42, 0, 8)[:-1] + b"\x00"),
        ("two frames in one", frame(1, 1) + frame(1, 3, 40, 128)),
        ("no frame", b"hello, servo"),
        ("nothing", b""),
    ],
)
@pytest.mark.parametrize("phase", GatePhase)
def test_what_is_not_listed_is_denied_in_every_phase(
    phase: GatePhase, what: str, request_bytes: bytes
) -> None:
    guard = gate(phase)
    with pytest.raises(GateDenied):
        guard(request_bytes)
    assert guard.denied == 1, what
    assert guard.passed == 0


def test_torque_on_belongs_to_arming_and_off_to_stopping() -> None:
    on, off = frame(1, 3, 40, 1), frame(1, 3, 40, 0)
    gate(GatePhase.ARM)(on)
    gate(GatePhase.STOP)(off)
    for phase, request in (
        (GatePhase.CONNECT, on),
        (GatePhase.RUN, on),
        (GatePhase.RUN, off),
        (GatePhase.STOP, on),
    ):
        with pytest.raises(GateDenied):
            gate(phase)(request)


def test_gains_are_writable_while_arming_on_request_with_the_declared_values() -> None:
    guard = gate(GatePhase.ARM, write_gains=True)
    guard(frame(1, 3, 21, 16))
    with pytest.raises(GateDenied):
        guard(frame(1, 3, 21, 17))


def test_a_joint_that_rests_outside_may_be_held_there_and_no_further() -> None:
    resting = list(START)
    resting[0] = 1.93
    guard = FeetechGate()
    guard.load(feetech_table(ROBOT, UNITS, resting))
    guard.phase = GatePhase.RUN
    rest = UNITS.to_ticks(resting)[0]
    guard(goal(1, rest))
    with pytest.raises(GateDenied):
        guard(goal(1, rest + SETTLE_TICKS + 1))


LIMITS = {j.motor.id: UNITS.goal_tick_range(i, *UNITS.reachable(i)) for i, j in enumerate(ROBOT.joints)}


@given(st.binary(max_size=40), st.sampled_from(list(GatePhase)))
def test_random_bytes_never_crash_the_gate_and_never_write(data: bytes, phase: GatePhase) -> None:
    guard = gate(phase)
    with contextlib.suppress(GateDenied):
        guard(data)
    if guard.passed:
        assert data[4] in (1, 2, 0x82)


@given(st.lists(st.tuples(st.integers(0, 253), st.integers(0, 0xFFFF)), min_size=1, max_size=8))
def test_a_sync_write_passes_exactly_when_every_goal_is_inside(pairs: list[tuple[int, int]]) -> None:
    blocks = [b for motor_id, t in pairs for b in (motor_id, t & 0xFF, t >> 8)]
    inside = all(i in LIMITS and LIMITS[i][0] <= t <= LIMITS[i][1] for i, t in pairs)
    guard = gate(GatePhase.RUN)
    with contextlib.suppress(GateDenied):
        guard(frame(0xFE, 0x83, 42, 2, *blocks))
    assert guard.passed == int(inside)
