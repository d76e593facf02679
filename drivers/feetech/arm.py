"""An arm of Feetech STS servos: `drivers.arm.Arm` over `FeetechBus`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..arm import CheckRow, MotorInfo
from ..calibration import Calibration
from ..errors import BusError, BusTimeout, ConfigError, CorruptReply, MotorFault, PortError
from ..robots.schema import Motor, Robot
from ..transport import open_port
from ..types import JointState, Tap
from ..units import JointUnits
from . import codec
from .bus import ATTEMPTS, FeetechBus, write_eeprom
from .checks import check_motor, check_port

IDENTITY_BYTES = 5
"""Firmware (0, 1) and model number (3, 4)."""
STILL_TICKS = 34
"""A joint that moves more than this (3 degrees) while the arm is prepared is not at rest."""


class FeetechArm:
    """See `drivers.arm.Arm`. Not thread-safe: one owner."""

    def __init__(
        self,
        url: str,
        robot: Robot,
        calibration: Calibration,
        guard: Callable[[bytes], None],
        clock: Callable[[], int] = time.monotonic_ns,
        tap: Tap | None = None,
    ) -> None:
        if robot.bus.watchdog != "none":
            raise ConfigError(
                f"the file of robot {robot.name} says bus.watchdog: {robot.bus.watchdog}, but Feetech motors "
                "have no command time-out: it must be none"
            )
        self.url = url
        self.robot = robot
        self.units = JointUnits(robot, calibration)
        self._calibration = calibration
        self.guard = guard
        self._clock = clock
        self._tap = tap
        self._bus: FeetechBus | None = None

    @property
    def bus(self) -> FeetechBus:
        """The open bus; raises `PortError` before `connect`."""
        if self._bus is None:
            raise PortError(f"{self.url} is not open; call connect() first")
        return self._bus

    def connect(self) -> list[MotorInfo]:
        self.close()
        port = open_port(self.url, self.robot.bus.baud, self._clock)
        port.tap = self._tap
        self._bus = FeetechBus(port, self.robot.motor_ids, self.guard, self.robot.bus.reply_timeout_ms)
        try:
            return [self._identify(joint.motor) for joint in self.robot.joints]
        except (BusError, ConfigError):
            self.close()
            raise

    def check(self) -> list[CheckRow]:
        rows = check_port(self.url)
        for joint, row in zip(self.robot.joints, self._calibration.joints, strict=True):
            rows += check_motor(self.bus, self.robot, joint, row)
        return rows

    def read(self) -> JointState:
        return self._state(*self.bus.sync_read_block())

    def prepare(self, *, write_gains: bool = False) -> JointState:
        if write_gains:
            for joint in self.robot.joints:
                self._write_gains(joint.motor)
        for joint in self.robot.joints:
            limit = round(joint.motor.torque_limit * codec.TORQUE_LIMIT_UNITS)
            self._set(joint.motor.id, "acceleration", joint.motor.acceleration)
            self._set(joint.motor.id, "torque_limit", limit)
            self._set(joint.motor.id, "goal_time", 0)
            self._set(joint.motor.id, "goal_speed", 0)
        rows, stamp_ns = self._sample()
        for joint, (faults, *_) in zip(self.robot.joints, rows, strict=True):
            if faults:
                raise MotorFault(
                    f"joint {joint.name}: motor {joint.motor.id} has {codec.fault_names(faults)}; no torque "
                    "with that (power-cycle the arm)",
                    joint.motor.id,
                )
        ticks = [position for _, position, *_ in rows]
        for motor_id, tick in zip(self.robot.motor_ids, ticks, strict=True):
            self._set(motor_id, "goal_position", tick)
        self._require_still(ticks)
        return self._state(rows, stamp_ns)

    def torque(self) -> tuple[bool, ...]:
        return tuple(
            self.bus.read_register(motor_id, "torque_enable", allow_faults=True) != 0
            for motor_id in self.robot.motor_ids
        )

    def energise(self) -> None:
        for motor_id in self.robot.motor_ids:
            self._set(motor_id, "torque_enable", 1)

    def command(self, positions: Sequence[float]) -> None:
        self.bus.sync_write_goals(self.units.to_ticks(positions))

    def release(self) -> None:
        errors: list[BusError] = []
        for motor_id in self.robot.motor_ids:
            try:
                self._release(motor_id)
            except BusError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def close(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _identify(self, motor: Motor) -> MotorInfo:
        """Model and firmware of one motor; asked a few times. Raises `ConfigError` for another model."""
        block = self.bus.read_block(motor.id, 0, IDENTITY_BYTES)
        number = int.from_bytes(block[3:5], "little")
        model = codec.MODELS.get(number, f"model {number}")
        if model != motor.model:
            raise ConfigError(
                f"motor {motor.id} on {self.url} is a {model}, the file of robot {self.robot.name} expects "
                f"{motor.model}: another robot?"
            )
        return MotorInfo(motor.id, model, f"{block[0]}.{block[1]}")

    def _write_gains(self, motor: Motor) -> None:
        if self.bus.read_register(motor.id, "torque_enable"):
            raise ConfigError(
                f"motor {motor.id} holds torque; gains are only written without it: support the arm, release "
                "it, then try again"
            )
        write_eeprom(self.bus, motor.id, {f"{key}_gain": value for key, value in motor.gains.items()})

    def _set(self, motor_id: int, name: str, value: int) -> None:
        """Writes a register and reads it back; raises `MotorFault` where it did not take."""
        self.bus.write_register(motor_id, name, value)
        actual = self.bus.read_register(motor_id, name)
        if actual != value:
            raise MotorFault(
                f"motor {motor_id}: {name} reads {actual} after writing {value}; power-cycle the arm",
                motor_id,
            )

    def _release(self, motor_id: int) -> None:
        # An overloaded motor answers with its fault bits; letting go must work all the same.
        self.bus.write_register(motor_id, "torque_enable", 0, allow_faults=True)
        if self.bus.read_register(motor_id, "torque_enable", allow_faults=True):
            raise MotorFault(f"motor {motor_id} still holds torque after it was switched off", motor_id)

    def _sample(self) -> tuple[list[tuple[int, ...]], int]:
        """A complete sample during set-up, asked for again where an answer was lost."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self.bus.sync_read_block()
            except (BusTimeout, CorruptReply):
                continue
        return self.bus.sync_read_block()

    def _require_still(self, goals: Sequence[int]) -> None:
        """The goals must still be where the arm is; a limp arm may be sinking or in someone's hand."""
        rows, _ = self._sample()
        for motor_id, goal, (_, position, *_) in zip(self.robot.motor_ids, goals, rows, strict=True):
            if abs(position - goal) > STILL_TICKS:
                raise MotorFault(
                    f"motor {motor_id} moved from tick {goal} to {position} while the arm was prepared: let "
                    "it come to rest, then start again",
                    motor_id,
                )

    def _state(self, rows: Sequence[tuple[int, ...]], stamp_ns: int) -> JointState:
        faults, position, velocity, load, voltage, temperature, current = zip(*rows, strict=True)
        return JointState(
            stamp_ns,
            self.units.to_positions(position),
            self.units.to_velocities(velocity),
            tuple([value * codec.LOAD_PER_UNIT for value in load]),
            tuple([value * codec.VOLT_PER_UNIT for value in voltage]),
            tuple([float(value) for value in temperature]),
            tuple([value * codec.AMPERE_PER_UNIT for value in current]),
            faults,
        )
