"""What must stand in a Feetech motor's registers before torque, as rows to show. Reads only."""

from __future__ import annotations

from ..arm import CheckRow
from ..calibration import JointCalibration
from ..robots.schema import Joint, Robot
from ..transport import LATENCY_TIMER_MS, latency_timer_ms
from . import codec
from .bus import FeetechBus

POSITION_MODE = 0
RETURN_DELAY_UNITS = 25
"""50 us (2 us a unit): six motors lose 0.3 ms of a cycle at most."""

_CALIBRATE = "wrong calibration file, or calibrate the arm again"
_GAINS = "run once with --write-gains, or choose the robot file that the gains belong to"
_VENDOR = "set it with the motor vendor's tool, or let LeRobot configure the arm once"


def check_port(url: str) -> list[CheckRow]:
    """The adapter's latency timer, where it has one."""
    timer = latency_timer_ms(url)
    if timer is None:
        return []
    fix = "echo 1 | sudo tee /sys/class/tty/<port>/device/latency_timer (and a udev rule to keep it)"
    return [
        CheckRow(
            "port: latency timer",
            f"<= {LATENCY_TIMER_MS} ms",
            f"{timer} ms",
            timer <= LATENCY_TIMER_MS,
            "" if timer <= LATENCY_TIMER_MS else fix,
        )
    ]


def check_motor(bus: FeetechBus, robot: Robot, joint: Joint, row: JointCalibration) -> list[CheckRow]:
    """Rows of one motor. Raises the errors of the bus; fault bits are a row, not an error."""
    motor = joint.motor

    def value(name: str) -> int:
        return bus.read_register(motor.id, name, allow_faults=True)

    def compare(what: str, register: str, expected: int, fix: str) -> CheckRow:
        actual = value(register)
        ok = actual == expected
        return CheckRow(f"{joint.name}: {what}", str(expected), str(actual), ok, "" if ok else fix)

    rows = [
        compare("homing offset", "homing_offset", row.homing_offset, _CALIBRATE),
        compare("range min", "min_position", row.range_min, _CALIBRATE),
        compare("range max", "max_position", row.range_max, _CALIBRATE),
        compare("mode", "mode", POSITION_MODE, _VENDOR),
        compare("answers to writes", "response_level", 1, _VENDOR),
    ]
    rows += [compare(f"gain {key}", f"{key}_gain", expected, _GAINS) for key, expected in motor.gains.items()]
    delay = value("return_delay")
    low, high = robot.health.voltage_v
    volts = value("present_voltage") * codec.VOLT_PER_UNIT
    faults = bus.ping(motor.id)
    torque = value("torque_enable")
    rows += [
        _limit(
            joint,
            "return delay",
            f"<= {RETURN_DELAY_UNITS}",
            str(delay),
            delay <= RETURN_DELAY_UNITS,
            _VENDOR,
        ),
        _limit(
            joint,
            "voltage",
            f"{low:g}..{high:g} V",
            f"{volts:.1f} V",
            low <= volts <= high,
            "check the supply",
        ),
        _limit(joint, "faults", "none", codec.fault_names(faults), faults == 0, "power-cycle the arm"),
        # Either is fine before arming; who reads the table should know whether the arm holds already.
        _limit(
            joint,
            "torque",
            "off or on",
            {0: "off", 1: "on"}.get(torque, str(torque)),
            torque in (0, 1),
            _VENDOR,
        ),
    ]
    return rows


def _limit(joint: Joint, what: str, expected: str, actual: str, ok: bool, fix: str) -> CheckRow:
    return CheckRow(f"{joint.name}: {what}", expected, actual, ok, "" if ok else fix)
