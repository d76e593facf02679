"""An arm: complete joint samples in, joint targets out, in robot units and robot joint order.

`Arm` is what control sees. Opening order: `connect` (nothing is written), `check` (rows to show; control
refuses torque unless all are ok), `prepare` (goal := measured, read back), `energise`; then `read` and
`command` at every tick; at last `release` and `close`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .calibration import Calibration
from .robots.schema import Robot
from .types import JointState, Tap


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

    @property
    def guard(self) -> Callable[[bytes], None]:
        """What sees every outgoing frame before the port does; control asserts that it is its own gate."""
        ...

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

    def torque(self) -> tuple[bool, ...]:
        """Which motors hold torque now, in joint order; read from them."""
        ...

    def prepare(self, *, write_gains: bool = False) -> JointState:
        """Accelerations, torque limits, goal := measured; all read back and compared.

        Returns the sample that the goals were set to. A motor that already holds stays energised (an arm held
        after a fault would drop). Gains (EEPROM) are only written with `write_gains`, and without torque.
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


def open_arm(
    url: str,
    robot: Robot,
    calibration: Calibration,
    guard: Callable[[bytes], None],
    clock: Callable[[], int] = time.monotonic_ns,
    tap: Tap | None = None,
) -> Arm:
    """The arm of a robot file on `serial:/dev/...` or `socket://host:port`; opens nothing yet.

    `guard` is called with each complete outgoing frame before it is written, and raises to deny it. `tap`
    sees all bytes of both directions.
    """
    from .feetech.arm import FeetechArm

    return FeetechArm(url, robot, calibration, guard, clock, tap)
