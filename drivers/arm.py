"""An arm: complete joint samples in, joint targets out, in robot units and robot joint order.

`Arm` is what control sees. Opening order: `connect` (nothing is written), `check` (rows to show; control
refuses torque unless all are ok), `prepare` (goal := measured, read back), `energise`; then `read` and
`command` at every tick; at last `release` and `close`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .types import JointState


@dataclass(frozen=True, slots=True)
class MotorInfo:
    """What a motor said about itself at connect."""

    motor_id: int
    model: str
    """The name that robot files use (`sts3215`), or `model N` where the number is unknown."""
    firmware: str


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One line of the check before torque."""

    name: str
    expected: str
    actual: str
    ok: bool
    fix: str = ""


class Arm(Protocol):
    """A motor bus with a calibration. Every method raises the errors of `drivers.errors` (`BusError` for the
    bus); none retries silently, none returns an old value."""

    def connect(self) -> list[MotorInfo]:
        """Opens the port, finds every motor, compares model numbers. Raises `PortError`, `BusTimeout`,
        `ConfigError`. May be called again after `close` (a re-plugged port)."""
        ...

    def check(self) -> list[CheckRow]:
        """Compares the motors' registers with robot file and calibration. Reads only."""
        ...

    def read(self) -> JointState:
        """One complete, fresh sample of all joints. Raises `BusTimeout` (with the missing ids),
        `CorruptReply`, `Disconnected`; the next call works again unless the port is gone. Motor fault bits
        are in `JointState.faults`, not raised."""
        ...

    def prepare(self, *, write_gains: bool = False) -> JointState:
        """Torque off assured; accelerations, torque limits; goal := measured; all read back and compared.

        Returns the sample that the goals were set to. Gains (EEPROM) are only written with `write_gains`.
        """
        ...

    def energise(self) -> None:
        """Torque on for every motor, read back. Raises `MotorFault` where one refuses."""
        ...

    def command(self, positions: Sequence[float]) -> None:
        """Sends one target per joint (robot units, joint order). Raises `ValueError` for what cannot be
        encoded; nothing is sent then."""
        ...

    def release(self) -> None:
        """Torque off for every motor, tried for each even if one fails; raises the first error afterwards."""
        ...

    def close(self) -> None:
        """Frees the port, torque as it is. May be called twice."""
        ...
