"""What can go wrong at a device. Every message says what happened, what was expected and what to do."""

from __future__ import annotations


class DriverError(Exception):
    """Root of all errors of cameras, buses, robot files and calibrations."""


class ConfigError(DriverError):
    """A robot file, calibration or URL is missing, malformed or does not fit: refused before torque."""


class BusError(DriverError):
    """Root of the errors of a motor bus."""


class PortError(BusError):
    """The port cannot be opened: missing, busy, no permission, not a serial port."""


class Disconnected(BusError):
    """The port vanished while in use (unplugged)."""


class BusTimeout(BusError):
    """One or more motors did not answer in time; `missing` has their ids."""

    def __init__(self, message: str, missing: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class CorruptReply(BusError):
    """Bytes came back that are no valid reply."""


class MotorFault(BusError):
    """A motor reports a hardware fault or refused a write; `motor_id` has its id."""

    def __init__(self, message: str, motor_id: int) -> None:
        super().__init__(message)
        self.motor_id = motor_id


class CameraError(DriverError):
    """Root of the errors of a camera."""


class CameraOpenError(CameraError):
    """The camera cannot be opened: missing, busy, no permission, unknown URL, no picture."""


class CameraLost(CameraError):
    """The camera stopped delivering (unplugged, stream closed, end of file)."""
