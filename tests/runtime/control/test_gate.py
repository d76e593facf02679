"""The gate sees raw bytes: only what the table of the phase lists may pass, whatever the driver encodes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits
from holdfast.runtime.control.gate import FeetechGate, GateDenied, GatePhase, Rule
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


def bare(motor_ids: tuple[int, ...] = (1, 2)) -> FeetechGate:
    """A gate with one rule: the goals of two motors, while running."""
    made = FeetechGate()
    made.load({GatePhase.RUN: (Rule(42, 2, dict.fromkeys(motor_ids, (100, 300))),)})
    made.phase = GatePhase.RUN
    return made


def denied(guard: FeetechGate, request: bytes) -> str:
    with pytest.raises(GateDenied) as refused:
        guard(request)
    return str(refused.value)


def test_what_was_passed_and_denied_is_counted_one_by_one() -> None:
    guard = bare()
    for _ in range(3):
        guard(goal(1, 200))
    denied(guard, goal(1, 99))
    denied(guard, goal(1, 301))
    assert (guard.passed, guard.denied) == (3, 2)


def test_the_phase_may_be_set_before_the_table_and_is_what_it_was_set_to() -> None:
    guard = FeetechGate()
    assert guard.phase is GatePhase.CONNECT
    guard.phase = GatePhase.RUN
    guard.load({GatePhase.RUN: (Rule(42, 2, {1: (100, 300)}),)})
    assert guard.phase is GatePhase.RUN
    guard(goal(1, 100))
    guard(goal(1, 300))
    guard.phase = GatePhase.STOP
    assert "in phase stop" in denied(guard, goal(1, 200))
    guard.phase = GatePhase.RUN
    guard(goal(1, 200))


def test_a_new_table_takes_the_place_of_the_old_one_at_once() -> None:
    guard = bare()
    guard.load({GatePhase.RUN: (Rule(42, 2, {1: (500, 600)}),)})
    guard(goal(1, 550))
    denied(guard, goal(1, 200))


@pytest.mark.parametrize(("phase", "name"), [(phase, phase.name.lower()) for phase in GatePhase])
def test_a_denial_says_what_was_to_be_written_and_what_is_allowed(phase: GatePhase, name: str) -> None:
    guard = bare()
    guard.phase = phase
    assert denied(guard, frame(1, 3, 40, 1)) == (
        f"motor 1: register 40 (1 bytes) may not be written in phase {name}"
    )
    guard.phase = GatePhase.RUN
    assert denied(guard, goal(2, 301)) == "motor 2: 301 to register 42 in phase run; allowed is 100 .. 300"
    assert denied(guard, goal(3, 200)) == "motor 3: 200 to register 42 in phase run; allowed is nothing"


def test_two_bytes_are_the_lower_one_first() -> None:
    guard = bare()
    guard(frame(1, 3, 42, 0x2C, 0x01))
    denied(guard, frame(1, 3, 42, 0x01, 0x2C))


def checked(body: bytes, head: bytes = b"\xff\xff") -> bytes:
    return head + body + bytes([~sum(body) & 0xFF])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (checked(bytes([1, 2, 1]), head=b"\xfe\xff"), "not a Feetech frame"),
        (checked(bytes([1, 2, 1]), head=b"\xff\xfe"), "not a Feetech frame"),
        (checked(bytes([1, 2])), "not a Feetech frame"),
        (checked(bytes([1, 3, 1])), "wrong length or checksum"),
        (checked(bytes([1, 1, 1])), "wrong length or checksum"),
        (checked(bytes([1, 2, 1]))[:-1] + b"\x00", "wrong length or checksum"),
        (frame(1, 3), "instruction 0x03 to motor 1 is not allowed"),
        (frame(1, 3, 42), "instruction 0x03 to motor 1 is not allowed"),
        (frame(0xFE, 3, 42, 200, 0), "instruction 0x03 to motor 254 is not allowed"),
        (frame(1, 0x83, 42, 2, 1, 200, 0), "instruction 0x83 to motor 1 is not allowed"),
        (frame(0xFE, 0x83), "instruction 0x83 to motor 254 is not allowed"),
        (frame(0xFE, 0x83, 42), "instruction 0x83 to motor 254 is not allowed"),
        (frame(0xFE, 0x83, 42, 2), "ragged"),
        (frame(0xFE, 0x83, 42, 0), "ragged"),
        (frame(0xFE, 0x83, 42, 0, 1), "ragged"),
        (frame(0xFE, 0x83, 42, 2, 1, 200), "ragged"),
        (frame(0xFE, 0x83, 42, 2, 1, 200, 0, 2), "ragged"),
        (frame(0xFE, 0x83, 42, 2, 1, 200, 0, 2, 200, 0, 1, 45, 1), "motor 1: 301"),
        (frame(0xFE, 0x83, 42, 2, 1, 200, 0, 2, 99, 0), "motor 2: 99"),
        (frame(1, 3, 42, 200), r"register 42 \(1 bytes\) may not"),
        (frame(0xFE, 0x83, 42, 3, 7, 200, 0, 0), r"motor 7: register 42 \(3 bytes\) may not"),
    ],
)
def test_each_kind_of_frame_is_denied_for_its_own_reason(data: bytes, words: str) -> None:
    guard = bare()
    with pytest.raises(GateDenied, match=words):
        guard(data)
    assert (guard.passed, guard.denied) == (0, 1)


def test_the_start_of_a_frame_that_is_none_is_shown() -> None:
    assert denied(bare(), bytes(range(40))) == f"not a Feetech frame: {bytes(range(16)).hex(' ')}"
    long = checked(bytes([1, 9, 1, *range(40)]))
    assert denied(bare(), long) == f"wrong length or checksum: {long[:16].hex(' ')}"
    ragged = frame(0xFE, 0x83, 42, 2, *range(20))
    assert denied(bare(), ragged) == f"a sync write with ragged blocks: {ragged[:16].hex(' ')}"


def test_every_block_of_a_sync_write_is_looked_at() -> None:
    guard = bare((1, 2, 3))
    guard(frame(0xFE, 0x83, 42, 2, 1, 200, 0, 2, 100, 0, 3, 44, 1))
    for wrong in range(3):
        blocks = [b for i in range(3) for b in (i + 1, 99 if i == wrong else 200, 0)]
        assert f"motor {wrong + 1}: 99" in denied(guard, frame(0xFE, 0x83, 42, 2, *blocks))


def test_shortest_frames_pass_and_a_broadcast_may_read() -> None:
    guard = bare()
    for request in (frame(1, 1), frame(0xFE, 1), frame(1, 2), frame(0xFE, 0x82)):
        guard(request)
    assert guard.passed == 4


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
