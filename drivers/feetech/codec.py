"""Feetech protocol 0 (STS series), bytes <-> values; no I/O.

A request is `FF FF ID LEN INST params CHK`, an answer has ERR in place of INST; CHK is the complement of the
sum of everything between the header and itself. Two-byte values are little-endian; negative ones are
sign-magnitude. Source: Feetech's memory table of the STS series and its protocol manual.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from ..errors import CorruptReply

HEADER = b"\xff\xff"
BROADCAST = 0xFE
OVERHEAD = 6
"""Bytes of a frame that are not parameters."""
MAX_PARAMETERS = 0xFF - 2
MODELS = {777: "sts3215", 2825: "sts3250"}
AMPERE_PER_UNIT = 0.0065
VOLT_PER_UNIT = 0.1
LOAD_PER_UNIT = 0.001
TORQUE_LIMIT_UNITS = 1000
"""Full torque in the units of the torque registers."""


class Instruction(IntEnum):
    PING = 1
    READ = 2
    WRITE = 3
    REG_WRITE = 4
    ACTION = 5
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class Fault(IntFlag):
    """The error byte of every answer."""

    VOLTAGE = 1
    ENCODER = 2
    OVERHEAT = 4
    OVERCURRENT = 8
    OVERLOAD = 32


@dataclass(frozen=True, slots=True)
class Register:
    """Where a value lies. `sign_bit`: the bit that means minus; `eeprom`: survives power, behind the lock."""

    name: str
    address: int
    length: int
    sign_bit: int | None = None
    writable: bool = True

    @property
    def eeprom(self) -> bool:
        return self.address < 40


REGISTERS = {
    register.name: register
    for register in (
        Register("firmware_major", 0, 1, writable=False),
        Register("firmware_minor", 1, 1, writable=False),
        Register("model", 3, 2, writable=False),
        Register("id", 5, 1),
        Register("baud", 6, 1),
        Register("return_delay", 7, 1),
        Register("response_level", 8, 1),
        Register("min_position", 9, 2),
        Register("max_position", 11, 2),
        Register("max_temperature", 13, 1),
        Register("max_voltage", 14, 1),
        Register("min_voltage", 15, 1),
        Register("max_torque", 16, 2),
        Register("phase", 18, 1),
        Register("unloading_condition", 19, 1),
        Register("p_gain", 21, 1),
        Register("d_gain", 22, 1),
        Register("i_gain", 23, 1),
        Register("protection_current", 28, 2),
        Register("homing_offset", 31, 2, sign_bit=11),
        Register("mode", 33, 1),
        Register("protective_torque", 34, 1),
        Register("protection_time", 35, 1),
        Register("overload_torque", 36, 1),
        Register("torque_enable", 40, 1),
        Register("acceleration", 41, 1),
        Register("goal_position", 42, 2, sign_bit=15),
        Register("goal_time", 44, 2),
        Register("goal_speed", 46, 2, sign_bit=15),
        Register("torque_limit", 48, 2),
        Register("lock", 55, 1),
        Register("present_position", 56, 2, sign_bit=15, writable=False),
        Register("present_velocity", 58, 2, sign_bit=15, writable=False),
        Register("present_load", 60, 2, sign_bit=10, writable=False),
        Register("present_voltage", 62, 1, writable=False),
        Register("present_temperature", 63, 1, writable=False),
        Register("status", 65, 1, writable=False),
        Register("moving", 66, 1, writable=False),
        Register("present_current", 69, 2, sign_bit=15, writable=False),
    )
}
GOAL_ADDRESS = REGISTERS["goal_position"].address
FEEDBACK_ADDRESS, FEEDBACK_LENGTH = 56, 15
"""Present position to present current in one read."""


@dataclass(frozen=True, slots=True)
class Status:
    """A decoded answer."""

    motor_id: int
    faults: int
    parameters: bytes


def checksum(body: bytes) -> int:
    """Complement of the sum of ID, LEN, INST/ERR and parameters."""
    return ~sum(body) & 0xFF


def encode_request(motor_id: int, instruction: int, parameters: bytes = b"") -> bytes:
    """One request. Raises `ValueError` for an id or length that the protocol cannot carry."""
    if not 0 <= motor_id <= BROADCAST:
        raise ValueError(f"motor id {motor_id} is outside 0..254")
    if len(parameters) > MAX_PARAMETERS:
        raise ValueError(f"{len(parameters)} parameters are more than the {MAX_PARAMETERS} of one frame")
    body = bytes((motor_id, len(parameters) + 2, instruction)) + parameters
    return HEADER + body + bytes((checksum(body),))


def decode_status(frame: bytes) -> Status:
    """The answer in exactly one frame. Raises `CorruptReply` for anything else."""
    if len(frame) < OVERHEAD or frame[:2] != HEADER or frame[3] + 4 != len(frame):
        raise CorruptReply(f"not one whole answer: {frame.hex(' ')}")
    if checksum(frame[2:-1]) != frame[-1]:
        raise CorruptReply(f"an answer with a wrong checksum: {frame.hex(' ')}")
    return Status(frame[2], frame[4], frame[5:-1])


def ping(motor_id: int) -> bytes:
    return encode_request(motor_id, Instruction.PING)


def read(motor_id: int, address: int, length: int) -> bytes:
    return encode_request(motor_id, Instruction.READ, bytes((address, length)))


def write(motor_id: int, register: Register, value: int) -> bytes:
    """Raises `ValueError` for a read-only register or a value that does not fit it."""
    if not register.writable:
        raise ValueError(f"register {register.name} is read-only")
    data = bytes((register.address,)) + encode_value(register, value)
    return encode_request(motor_id, Instruction.WRITE, data)


def sync_read(motor_ids: Sequence[int], address: int, length: int) -> bytes:
    """Asks every motor for the same bytes; they answer one after another, in the order of `motor_ids`."""
    return encode_request(BROADCAST, Instruction.SYNC_READ, bytes((address, length, *motor_ids)))


def sync_write(motor_ids: Sequence[int], register: Register, values: Sequence[int]) -> bytes:
    """Sets one register of many motors; nothing answers."""
    data = bytearray((register.address, register.length))
    for motor_id, value in zip(motor_ids, values, strict=True):
        data.append(motor_id)
        data += encode_value(register, value)
    return encode_request(BROADCAST, Instruction.SYNC_WRITE, bytes(data))


def encode_goals(motor_ids: Sequence[int], ticks: Sequence[int]) -> bytes:
    """`sync_write` of goal positions in 0..32767, written out for speed: control sends it at every tick."""
    body = [BROADCAST, 3 * len(ticks) + 4, Instruction.SYNC_WRITE, GOAL_ADDRESS, 2]
    for motor_id, tick in zip(motor_ids, ticks, strict=True):
        if not 0 <= tick < 0x8000:
            raise ValueError(f"{tick} does not fit register goal_position")
        body += (motor_id, tick & 0xFF, tick >> 8)
    body.append(~sum(body) & 0xFF)
    return HEADER + bytes(body)


def encode_value(register: Register, value: int) -> bytes:
    """The register's bytes for `value`. Raises `ValueError` when it does not fit."""
    bits = 8 * register.length if register.sign_bit is None else register.sign_bit
    if abs(value) >= 1 << bits or (value < 0 and register.sign_bit is None):
        raise ValueError(f"{value} does not fit register {register.name}")
    raw = value if value >= 0 else -value | 1 << bits
    return raw.to_bytes(register.length, "little")


def decode_value(register: Register, data: bytes) -> int:
    """The value in a register's bytes; raises `CorruptReply` for a wrong number of them."""
    if len(data) != register.length:
        raise CorruptReply(f"{len(data)} bytes for register {register.name}, expected {register.length}")
    raw = int.from_bytes(data, "little")
    if register.sign_bit is None or not raw >> register.sign_bit & 1:
        return raw
    return -(raw & ((1 << register.sign_bit) - 1))


def fault_names(faults: int) -> str:
    """The error byte in words, for example `overload, overheat`."""
    known = [fault.name.lower() for fault in Fault if faults & fault and fault.name]
    unknown = faults & ~sum(Fault)
    return ", ".join(known + ([f"unknown bits 0x{unknown:02x}"] if unknown else [])) or "none"


def check_answers(data: bytes, motor_ids: Sequence[int], length: int) -> None:
    """Raises `CorruptReply` unless `data` is one whole, valid answer of each motor, in that order."""
    size = OVERHEAD + length
    for at, motor_id in zip(range(0, len(data), size), motor_ids, strict=True):
        if (
            data[at] != 0xFF
            or data[at + 1] != 0xFF
            or data[at + 2] != motor_id
            or data[at + 3] != length + 2
            or sum(data[at + 2 : at + size]) & 0xFF != 0xFF
        ):
            raise CorruptReply(
                f"motor {motor_id} should have answered {size} bytes, got {data[at : at + size].hex(' ')}: "
                "a corrupt answer, or one to an older request; check cable and termination if this repeats"
            )


def answering(data: bytes, motor_ids: Sequence[int], length: int) -> set[int]:
    """Which of the motors have a whole, valid answer somewhere in `data` (to say who is silent)."""
    size = OVERHEAD + length
    found = set()
    for motor_id in motor_ids:
        start = HEADER + bytes((motor_id, length + 2))
        at = data.find(start)
        while at >= 0:
            frame = data[at : at + size]
            if len(frame) == size and sum(frame[2:]) & 0xFF == 0xFF:
                found.add(motor_id)
                break
            at = data.find(start, at + 1)
    return found


# Of one answer with the 15-byte block: faults, position, velocity, load, voltage, temperature, current.
# Byte 64, status (the same bits as the error byte), moving and two reserved bytes are skipped.
_FEEDBACK = struct.Struct("<4xBHHHBB5xHx")
_POSITION = struct.Struct("<4xBHx")


def unpack_positions(data: bytes) -> list[tuple[int, int]]:
    """(position, faults) of every answer in `data` that carries a position alone; `check_answers` first."""
    return [
        (position if position < 0x8000 else 0x8000 - position, faults)
        for faults, position in _POSITION.iter_unpack(data)
    ]


def unpack_feedback(data: bytes) -> list[tuple[int, ...]]:
    """Raw (faults, position, velocity, load, voltage, temperature, current) of every answer in `data`,
    positions, velocities and loads already signed. `data` must have passed `check_answers`."""
    return [
        (
            faults,
            position if position < 0x8000 else 0x8000 - position,
            velocity if velocity < 0x8000 else 0x8000 - velocity,
            load if load < 0x400 else 0x400 - (load & 0x7FF),
            voltage,
            temperature,
            current if current < 0x8000 else 0x8000 - current,
        )
        for faults, position, velocity, load, voltage, temperature, current in _FEEDBACK.iter_unpack(data)
    ]
