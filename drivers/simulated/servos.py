"""A simulated STS3215: what its registers hold and what it does with them. Pure: no I/O, no clock.

The motor itself (lag, speed, friction) is the physics' business; a servo turns writes into a `Drive` and what
the physics measures into feedback registers and error bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from . import registers
from .faults import WELL, Ailment
from .registers import BY_NAME, RAM_START, WRITABLE, decode, encode

TICKS_PER_REV = 4096
CENTRE_TICKS = 2048
GOAL_ADDRESS = BY_NAME["goal_position"].address
REZERO = 128
"""Written to the torque register: homing offset := such that the present position reads 2048."""

ERROR_VOLTAGE = 1
ERROR_TEMPERATURE = 4
ERROR_OVERLOAD = 32

AMBIENT_C = 30.0
HEATING_C = 25.0
"""Steady rise at full load; the model is a first-order lag, not a measurement."""
HEATING_S = 120.0
STALL_CURRENT_A = 2.7
AMPERE_PER_UNIT = 0.0065
VOLT_PER_UNIT = 0.1
MOVING_TICKS_S = 20


_FEEDBACK = struct.Struct("<HHHBBxBBxxH")
"""Registers 56..70: position, velocity, load, voltage, temperature, status, moving, current."""


@dataclass(frozen=True, slots=True)
class Drive:
    """What a servo does with its motor now."""

    torque: bool
    torque_limit: float
    """Fraction of full torque."""
    goal_actual: int
    """Shaft position (ticks of the encoder, no homing offset) to go to; meaningless without torque."""


@dataclass(slots=True)
class _Settings:
    """The registers that every step needs, decoded; brought up to date after each write."""

    goal: int
    """Within the angle limits, without homing offset."""
    speed: int
    torque: bool
    torque_limit: float
    offset: int
    voltage_ok: bool
    max_temperature: int
    unloads: int
    """The error bits that make the motor let go."""
    overload: float
    overload_after_s: float


class Servo:
    """One servo: registers, their permanent copy, and the states behind its error bits."""

    def __init__(self, servo_id: int, *, offset: int = 0, limits: tuple[int, int] = (0, 4095)) -> None:
        """`offset` and `limits` (ticks) are what a calibration has written to the EEPROM."""
        factory = bytearray(registers.SIZE)
        self._bytes = factory
        for register in registers.TABLE:
            self._store(register.name, register.default)
        self._store("id", servo_id)
        self._store("homing_offset", offset)
        self._store("min_position", limits[0])
        self._store("max_position", limits[1])
        self._permanent = bytes(factory[:RAM_START])
        self.actual = CENTRE_TICKS
        """Shaft position, ticks of the encoder."""
        self._velocity = 0
        self._load = 0.0
        self._pending: tuple[int, bytes] | None = None
        self._temperature_c = AMBIENT_C
        self._overload_s = 0.0
        self._overloaded = False
        self._let_go = False
        """A protection has switched the motor off, whatever the torque register says."""
        self._goal_reached_by_speed: float = CENTRE_TICKS
        self._ailment = WELL
        self._stuck_at: int | None = None
        """What the encoder reads for ever."""
        self._settings = self._decode_settings()
        self.power_up()

    def get(self, name: str) -> int:
        """Value of a register by name."""
        register = BY_NAME[name]
        return decode(register, bytes(self._bytes[register.address : register.address + register.size]))

    def put(self, name: str, value: int) -> None:
        """Sets a register from inside the servo, read-only ones too."""
        self._store(name, value)
        self._settings = self._decode_settings()

    def _store(self, name: str, value: int) -> None:
        register = BY_NAME[name]
        self._bytes[register.address : register.address + register.size] = encode(register, value)

    @property
    def id(self) -> int:
        return self._bytes[5]

    @property
    def status(self) -> int:
        """The error byte of every reply."""
        return self._bytes[65]

    @property
    def torque_register(self) -> bool:
        """Whether torque is switched on; a protection may have let go of the motor all the same."""
        return self._settings.torque

    def suffer(self, ailment: Ailment) -> None:
        """Sets what is wrong with the motor. Its registers and error bits show it at once."""
        before = self._ailment
        if ailment is before or ailment == before:
            return
        self._ailment = ailment
        if ailment.volts != before.volts:
            self._measure_voltage()
        if ailment.stuck != before.stuck:
            self._stuck_at = self.actual if ailment.stuck else None
        self._overloaded = self._overloaded or ailment.overloaded
        self._show()

    def power_up(self) -> None:
        """A power cycle: EEPROM from its permanent copy, RAM to defaults, torque off, goal := present."""
        self._bytes[:RAM_START] = self._permanent
        for register in registers.TABLE:
            if register.address >= RAM_START:
                self._store(register.name, register.default)
        self._store("torque_limit", self.get("max_torque"))
        self._measure_voltage()
        self._pending = None
        self._protect_anew()
        self.feel(self.actual, 0, 0.0, 0.0)
        self.put("goal_position", self.get("present_position"))

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`; zeros beyond the end of the map."""
        return bytes(self._bytes[address : address + length]).ljust(length, b"\0")

    def write(self, address: int, data: bytes) -> None:
        """Writes the writable bytes among `data`; the others are ignored, as the servo does."""
        torque_before = self._bytes[40]
        unlocked = self._bytes[55] == 0
        permanent = bytearray(self._permanent)
        for at, value in enumerate(data, start=address):
            if at in WRITABLE:
                self._bytes[at] = value
                if at < RAM_START and unlocked:
                    permanent[at] = value
        torque_written = address <= 40 < address + len(data)
        if torque_written and self._bytes[40] == REZERO:
            self._rezero()
            self._bytes[40] = torque_before
            permanent[31:33] = self._bytes[31:33]
            torque_written = False
        if address == GOAL_ADDRESS and len(data) <= 2:
            # What a host writes at every tick; nothing else depends on it.
            self._settings.goal = self._goal()
            return
        self._permanent = bytes(permanent)
        self._settings = self._decode_settings()
        if torque_written:
            self._protect_anew()
            self._goal_reached_by_speed = self.actual
            self._show()

    def hold(self, address: int, data: bytes) -> None:
        """Keeps a write until `act` (instruction REG WRITE)."""
        self._pending = (address, data)

    def act(self) -> None:
        """Carries out the write kept by `hold`, if there is one."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.write(*pending)

    def drive(self, dt_s: float) -> Drive:
        """What the motor shall do for the next `dt_s`: the goal within the angle limits, at the goal speed.

        A goal speed of 0 is no speed limit of the servo's. The acceleration register is kept and read back
        but does not shape the motion (at 254, which Holdfast writes, its effect is small).
        """
        settings = self._settings
        goal = settings.goal + settings.offset
        torque = settings.torque and not self._let_go
        if settings.speed and torque:
            reach = settings.speed * dt_s
            way = goal - self._goal_reached_by_speed
            self._goal_reached_by_speed += max(-reach, min(reach, way))
            return Drive(torque, settings.torque_limit, round(self._goal_reached_by_speed))
        self._goal_reached_by_speed = goal
        return Drive(torque, settings.torque_limit, goal)

    def feel(self, actual: int, velocity: int, load: float, dt_s: float) -> None:
        """Takes what the physics measured after `dt_s`: ticks, ticks/s, fraction of full torque (signed)."""
        limit = self._settings.torque_limit
        self.actual, self._velocity = actual, velocity
        self._load = load = max(-limit, min(limit, load))
        self._temperature_c += (AMBIENT_C + HEATING_C * load * load - self._temperature_c) * dt_s / HEATING_S
        self._watch_overload(abs(load), dt_s)
        self._show()

    def _show(self) -> None:
        """Brings feedback registers and error bits up to date; a protection that they call for lets go."""
        errors = self._errors()
        if errors & self._settings.unloads:
            self._let_go = True
        stuck_at, load = self._stuck_at, self._load
        # What does not turn has no velocity: the servo derives it from the encoder.
        actual, velocity = (self.actual, self._velocity) if stuck_at is None else (stuck_at, 0)
        _FEEDBACK.pack_into(
            self._bytes,
            56,
            _sign_magnitude(actual - self._settings.offset, 15),
            _sign_magnitude(velocity, 15),
            _sign_magnitude(round(load * 1000), 10),
            self._bytes[62],
            round(self._celsius),
            errors | self._ailment.error_bits,
            abs(velocity) > MOVING_TICKS_S,
            round(abs(load) * STALL_CURRENT_A / AMPERE_PER_UNIT),
        )

    def _goal(self) -> int:
        low, high = self.get("min_position"), self.get("max_position")
        goal = self.get("goal_position")
        return goal if (low, high) == (0, 0) else max(low, min(high, goal))

    def _decode_settings(self) -> _Settings:
        return _Settings(
            goal=self._goal(),
            speed=abs(self.get("goal_velocity")),
            torque=self._bytes[40] == 1,
            torque_limit=self.get("torque_limit") / 1000,
            offset=self.get("homing_offset"),
            voltage_ok=self.get("min_voltage") <= self.get("present_voltage") <= self.get("max_voltage"),
            max_temperature=self.get("max_temperature"),
            unloads=self.get("unloading_condition"),
            overload=self.get("overload_torque") / 100,
            overload_after_s=self.get("protection_time") * 0.01,
        )

    @property
    def _celsius(self) -> float:
        measured = self._ailment.celsius
        return self._temperature_c if measured is None else measured

    def _measure_voltage(self) -> None:
        volts = self._ailment.volts
        default = BY_NAME["present_voltage"].default
        self.put("present_voltage", default if volts is None else round(volts / VOLT_PER_UNIT))

    def _protect_anew(self) -> None:
        """Forgets that protections have tripped; what still holds trips them again."""
        self._overload_s, self._overloaded, self._let_go = 0.0, self._ailment.overloaded, False

    def _watch_overload(self, load: float, dt_s: float) -> None:
        """Overload protection: too long above `overload_torque` sets the error bit.

        Writing the torque register clears it.
        """
        self._overload_s = self._overload_s + dt_s if load >= self._settings.overload else 0.0
        if self._overload_s > self._settings.overload_after_s:
            self._overloaded = True

    def _errors(self) -> int:
        return (
            ERROR_VOLTAGE * (not self._settings.voltage_ok)
            | ERROR_TEMPERATURE * (round(self._celsius) > self._settings.max_temperature)
            | ERROR_OVERLOAD * self._overloaded
        )

    def _rezero(self) -> None:
        offset = (self.actual - CENTRE_TICKS + TICKS_PER_REV // 2) % TICKS_PER_REV - TICKS_PER_REV // 2
        self.put("homing_offset", offset)
        self._store("present_position", self.actual - self.get("homing_offset"))


def _sign_magnitude(value: int, bit: int) -> int:
    """`value` as Feetech writes it: magnitude, with `bit` set for minus."""
    return min(-value, (1 << bit) - 1) | 1 << bit if value < 0 else min(value, (1 << bit) - 1)
