"""The register map of a Feetech STS3215, as data.

Sources: Feetech's memory table of the STS series; defaults are the values in which LeRobot leaves the motors
of an SO arm (P 16, I 0, D 32, return delay 0, position mode). Two-byte registers are little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 128
"""Bytes in the address space; what no register names reads as zero and cannot be written."""
RAM_START = 40
"""Registers below are EEPROM: they survive a power cycle if written while `lock` was 0."""


@dataclass(frozen=True, slots=True)
class Register:
    """One register: where it lies and what stands in it after power-up (EEPROM: from the factory)."""

    name: str
    address: int
    size: int
    default: int = 0
    writable: bool = True
    sign_bit: int | None = None
    """Sign-magnitude: the bit that means minus."""


TABLE = (
    Register("firmware_major", 0, 1, 3, writable=False),
    Register("firmware_minor", 1, 1, 10, writable=False),
    Register("model", 3, 2, 777, writable=False),
    Register("id", 5, 1, 1),
    Register("baud", 6, 1, 0),
    Register("return_delay", 7, 1, 0),
    Register("response_level", 8, 1, 1),
    Register("min_position", 9, 2, 0),
    Register("max_position", 11, 2, 4095),
    Register("max_temperature", 13, 1, 70),
    Register("max_voltage", 14, 1, 140),
    Register("min_voltage", 15, 1, 40),
    Register("max_torque", 16, 2, 1000),
    Register("phase", 18, 1, 12),
    Register("unloading_condition", 19, 1, 44),
    Register("led_alarm", 20, 1, 47),
    Register("p_gain", 21, 1, 16),
    Register("d_gain", 22, 1, 32),
    Register("i_gain", 23, 1, 0),
    Register("startup_force", 24, 2, 16),
    Register("cw_dead_zone", 26, 1, 1),
    Register("ccw_dead_zone", 27, 1, 1),
    Register("protection_current", 28, 2, 500),
    Register("angular_resolution", 30, 1, 1),
    Register("homing_offset", 31, 2, 0, sign_bit=11),
    Register("mode", 33, 1, 0),
    Register("protective_torque", 34, 1, 20),
    Register("protection_time", 35, 1, 200),
    Register("overload_torque", 36, 1, 80),
    Register("velocity_p_gain", 37, 1, 10),
    Register("overcurrent_time", 38, 1, 200),
    Register("velocity_i_gain", 39, 1, 200),
    Register("torque_enable", 40, 1, 0),
    Register("acceleration", 41, 1, 0),
    Register("goal_position", 42, 2, 0, sign_bit=15),
    Register("goal_time", 44, 2, 0),
    Register("goal_velocity", 46, 2, 0, sign_bit=15),
    Register("torque_limit", 48, 2, 1000),
    Register("lock", 55, 1, 1),
    Register("present_position", 56, 2, writable=False, sign_bit=15),
    Register("present_velocity", 58, 2, writable=False, sign_bit=15),
    Register("present_load", 60, 2, writable=False, sign_bit=10),
    Register("present_voltage", 62, 1, 74, writable=False),
    Register("present_temperature", 63, 1, 30, writable=False),
    Register("status", 65, 1, writable=False),
    Register("moving", 66, 1, writable=False),
    Register("present_current", 69, 2, writable=False, sign_bit=15),
)

BY_NAME = {register.name: register for register in TABLE}
WRITABLE = frozenset(
    address
    for register in TABLE
    if register.writable
    for address in range(register.address, register.address + register.size)
)


def encode(register: Register, value: int) -> bytes:
    """The register's bytes for `value`; magnitudes that do not fit are cut to the largest one."""
    top = (1 << (register.sign_bit if register.sign_bit is not None else 8 * register.size)) - 1
    magnitude = min(abs(value), top)
    raw = magnitude
    if value < 0:
        raw = magnitude | (1 << register.sign_bit) if register.sign_bit is not None else 0
    return raw.to_bytes(register.size, "little")


def decode(register: Register, data: bytes) -> int:
    """The value in a register's bytes."""
    raw = int.from_bytes(data, "little")
    if register.sign_bit is None:
        return raw
    magnitude = raw & ((1 << register.sign_bit) - 1)
    return -magnitude if raw >> register.sign_bit & 1 else magnitude
