"""Which motors sit on a port? Pings and reads only; nothing is written to a motor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .errors import BusTimeout
from .feetech import codec
from .feetech.bus import FeetechBus, allow_all
from .robots.schema import load_robot, robot_names
from .transport import open_port

PROBE_TIMEOUT_MS = 8.0
PROBE_IDS = tuple(range(1, 13))


@dataclass(frozen=True, slots=True)
class FoundMotor:
    motor_id: int
    model: str
    """As robot files name it, or `model N`."""
    firmware: str


def probe(
    url: str,
    baud: int = 1_000_000,
    motor_ids: Sequence[int] = PROBE_IDS,
    clock: Callable[[], int] = time.monotonic_ns,
) -> list[FoundMotor]:
    """The Feetech motors that answer under `motor_ids` (about 10 ms for each that does not).

    Raises `PortError`, `ConfigError` for the port; silence is an empty list.
    """
    port = open_port(url, baud, clock)
    try:
        bus = FeetechBus(port, motor_ids, allow_all, PROBE_TIMEOUT_MS)
        found = (_ask(bus, motor_id) for motor_id in motor_ids)
        return [motor for motor in found if motor is not None]
    finally:
        port.close()


def fitting_robots(found: Sequence[FoundMotor]) -> list[str]:
    """Names of the robots whose file has exactly these motors (SO-100 and SO-101 cannot be told apart)."""
    motors = {(motor.motor_id, motor.model) for motor in found}
    return [
        name
        for name in robot_names()
        if {(joint.motor.id, joint.motor.model) for joint in load_robot(name).joints} == motors
    ]


def _ask(bus: FeetechBus, motor_id: int) -> FoundMotor | None:
    try:
        block = bus.read_block(motor_id, 0, 5)
    except BusTimeout:
        return None
    number = int.from_bytes(block[3:5], "little")
    return FoundMotor(motor_id, codec.MODELS.get(number, f"model {number}"), f"{block[0]}.{block[1]}")
