"""A servo by itself: registers, memory, drive, protection."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.simulated.faults import WELL, Ailment
from holdfast.drivers.simulated.registers import BY_NAME, TABLE, decode, encode
from holdfast.drivers.simulated.servos import Servo

STEP_S = 0.005
OVERLOAD = 32
VOLTAGE = 1
TEMPERATURE = 4


def write(servo: Servo, name: str, value: int) -> None:
    """Writes as a host does."""
    register = BY_NAME[name]
    servo.write(register.address, encode(register, value))


def energised(offset: int = 0, limits: tuple[int, int] = (0, 4095)) -> Servo:
    servo = Servo(1, offset=offset, limits=limits)
    write(servo, "torque_enable", 1)
    return servo


def test_registers_do_not_overlap() -> None:
    spans = sorted((register.address, register.address + register.size) for register in TABLE)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.parametrize("register", [r for r in TABLE if r.sign_bit], ids=lambda r: r.name)
def test_sign_magnitude_round_trip(register) -> None:
    top = (1 << register.sign_bit) - 1
    for value in (-top, -1, 0, 1, top):
        assert decode(register, encode(register, value)) == value


@given(st.binary(max_size=140), st.integers(0, 255))
def test_any_write_leaves_a_servo_that_works(data: bytes, address: int) -> None:
    servo = Servo(1)
    servo.write(address, data)
    servo.drive(STEP_S)
    servo.feel(2000, -5, 0.1, STEP_S)
    assert len(servo.read(address, 40)) == 40
    assert servo.get("model") == 777


def test_as_it_leaves_the_calibration() -> None:
    servo = Servo(4, offset=-47, limits=(785, 3305))
    names = ("model", "id", "p_gain", "i_gain", "d_gain", "return_delay", "mode", "torque_enable")
    assert [servo.get(name) for name in names] == [777, 4, 16, 0, 32, 0, 0, 0]
    assert [servo.get(name) for name in ("homing_offset", "min_position", "max_position")] == [-47, 785, 3305]


def test_read_only_bytes_are_not_written() -> None:
    servo = Servo(1)
    servo.write(0, bytes(range(40)))
    assert servo.get("model") == 777
    before = servo.read(56, 15)
    servo.write(56, bytes(15 * [9]))
    assert servo.read(56, 15) == before


def test_present_is_actual_less_homing_offset() -> None:
    servo = Servo(1, offset=100)
    servo.feel(2100, -30, -0.5, STEP_S)
    assert servo.get("present_position") == 2000
    assert servo.get("present_velocity") == -30
    assert servo.get("present_load") == -500
    assert servo.get("moving") == 1


def test_goal_is_kept_inside_the_angle_limits() -> None:
    servo = energised(offset=10, limits=(1000, 3000))
    write(servo, "goal_position", 4000)
    assert servo.drive(STEP_S).goal_actual == 3010
    assert servo.get("goal_position") == 4000
    write(servo, "goal_position", -5)
    assert servo.drive(STEP_S).goal_actual == 1010


def test_goal_speed_limits_the_drive() -> None:
    servo = energised()
    write(servo, "goal_velocity", 200)
    write(servo, "goal_position", servo.get("present_position") + 100)
    goals = [servo.drive(0.1).goal_actual - servo.actual for _ in range(7)]
    assert goals == [20, 40, 60, 80, 100, 100, 100]


def test_torque_off_drives_nothing_and_goal_does_not_switch_it_on() -> None:
    servo = Servo(1)
    write(servo, "goal_position", 2500)
    assert not servo.drive(STEP_S).torque


def test_128_in_the_torque_register_makes_the_present_position_the_centre() -> None:
    servo = Servo(1, offset=50)
    servo.feel(2300, 0, 0.0, STEP_S)
    write(servo, "torque_enable", 128)
    assert servo.get("present_position") == 2048
    assert servo.get("homing_offset") == 252
    assert servo.get("torque_enable") == 0
    servo.power_up()
    assert servo.get("homing_offset") == 252


def test_locked_eeprom_writes_are_lost_with_power() -> None:
    servo = Servo(1)
    write(servo, "p_gain", 40)
    assert servo.get("p_gain") == 40
    servo.power_up()
    assert servo.get("p_gain") == 16
    write(servo, "lock", 0)
    write(servo, "p_gain", 40)
    servo.power_up()
    assert servo.get("p_gain") == 40
    assert servo.get("lock") == 1


def test_power_cycle_switches_torque_off_and_resets_ram() -> None:
    servo = energised()
    write(servo, "max_torque", 600)
    write(servo, "goal_position", 1234)
    servo.feel(1300, 0, 0.0, STEP_S)
    servo.power_up()
    assert servo.get("torque_enable") == 0
    assert servo.get("goal_position") == servo.get("present_position") == 1300


def test_reg_write_waits_for_action() -> None:
    servo = Servo(1)
    servo.hold(42, (2200).to_bytes(2, "little"))
    assert servo.get("goal_position") == 2048
    servo.act()
    assert servo.get("goal_position") == 2200
    write(servo, "goal_position", 2000)
    servo.act()
    assert servo.get("goal_position") == 2000


def test_overload_lets_go_until_torque_is_written() -> None:
    servo = energised()
    for _ in range(int(2.1 / STEP_S)):
        servo.feel(2048, 0, 0.9, STEP_S)
    assert servo.status == OVERLOAD
    assert not servo.drive(STEP_S).torque
    write(servo, "torque_enable", 1)
    servo.feel(2048, 0, 0.1, STEP_S)
    assert servo.status == 0
    assert servo.drive(STEP_S).torque


def test_short_or_limited_load_is_no_overload() -> None:
    servo = energised()
    write(servo, "torque_limit", 500)
    for _ in range(int(3 / STEP_S)):
        servo.feel(2048, 0, 1.0, STEP_S)
    assert servo.status == 0
    assert servo.get("present_load") == 500


def test_limits_of_voltage_and_temperature_set_error_bits() -> None:
    servo = Servo(1)
    servo.put("present_voltage", 200)
    servo.feel(2048, 0, 0.0, STEP_S)
    assert servo.status == VOLTAGE
    write(servo, "max_temperature", 20)
    servo.feel(2048, 0, 0.0, STEP_S)
    assert servo.status == VOLTAGE | TEMPERATURE


def block(servo: Servo) -> bytes:
    """Registers 56..70, as the driver reads them."""
    return servo.read(56, 15)


def test_a_stuck_encoder_keeps_position_and_velocity_and_nothing_else() -> None:
    servo = energised(offset=100)
    servo.feel(2100, 30, 0.2, STEP_S)
    servo.suffer(Ailment(stuck=True))
    servo.feel(2300, 400, 0.5, STEP_S)
    assert servo.get("present_position") == 2000
    assert servo.get("present_velocity") == servo.get("moving") == 0
    assert servo.get("present_load") == 500
    assert servo.actual == 2300
    servo.suffer(WELL)
    assert servo.get("present_position") == 2200
    assert servo.get("present_velocity") == 400


def test_an_ailment_shows_at_once_and_goes_without_a_trace() -> None:
    servo = energised()
    before = block(servo)
    servo.suffer(Ailment(error_bits=8, volts=3.9, celsius=70.4))
    assert [servo.get(n) for n in ("present_voltage", "present_temperature", "status")] == [
        39,
        70,
        8 | VOLTAGE,
    ]
    assert servo.drive(STEP_S).torque, "no protection acts on these"
    servo.suffer(WELL)
    assert block(servo) == before


def test_an_ailment_outlasts_a_power_cycle() -> None:
    servo = energised()
    servo.suffer(Ailment(volts=15.0, overloaded=True))
    servo.power_up()
    assert servo.status == VOLTAGE | OVERLOAD
    assert servo.get("present_voltage") == 150
    assert not servo.torque_register


def test_heat_lets_go_and_cooling_does_not_take_hold_again() -> None:
    servo = energised()
    servo.suffer(Ailment(celsius=71))
    assert servo.status == TEMPERATURE
    assert not servo.drive(STEP_S).torque
    assert servo.torque_register
    write(servo, "torque_enable", 1)
    assert not servo.drive(STEP_S).torque, "it is still too hot"
    servo.suffer(WELL)
    assert servo.status == 0
    assert not servo.drive(STEP_S).torque
    write(servo, "torque_enable", 1)
    assert servo.drive(STEP_S).torque


def test_overload_stays_until_torque_is_written_or_power_was_off() -> None:
    for mend in (lambda servo: write(servo, "torque_enable", 0), Servo.power_up):
        servo = energised()
        servo.suffer(Ailment(overloaded=True))
        mend(servo)
        assert servo.status == OVERLOAD, "while its cause lasts"
        servo.suffer(WELL)
        assert servo.status == OVERLOAD
        mend(servo)
        assert servo.status == 0


def test_the_unloading_condition_says_which_errors_let_go() -> None:
    servo = energised()
    write(servo, "unloading_condition", VOLTAGE)
    servo.suffer(Ailment(celsius=90, overloaded=True))
    assert servo.drive(STEP_S).torque
    servo.suffer(Ailment(volts=3))
    assert not servo.drive(STEP_S).torque
