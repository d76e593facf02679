"""The faults that can be asked of the simulated robot, as data, and the state they leave.

`apply_fault` checks a request of the truth channel against `KINDS` and changes `Faults`; the bus, the plant
and the camera only read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


class FaultRequestError(ValueError):
    """A fault was asked for that does not exist, or with arguments that make no sense."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """What is wrong with one motor, as far as the motor itself feels it."""

    error_bits: int = 0
    """Reported in every reply whatever the state; the motor does nothing about them."""
    volts: float | None = None
    """What it measures at its supply."""
    celsius: float | None = None
    """What it measures of its own temperature."""
    stuck: bool = False
    """Its encoder's reading stands still."""
    overloaded: bool = False
    """Its overload protection has tripped and cannot be reset."""


WELL = Ailment()


@dataclass(slots=True)
class Faults:
    """What is broken at the moment. Ids are motor ids."""

    silent: set[int] = field(default_factory=set)
    """Motors that neither listen nor answer (their cable is off); they go on holding."""
    corrupt_every: int = 0
    """Every n-th answered request has one bit flipped in one of its replies; 0: none."""
    drop_byte_every: int = 0
    """Every n-th answered request lacks one byte in one of its replies; 0: none."""
    duplicate_every: int = 0
    """Every n-th answered request has one of its replies twice, one behind the other; 0: none."""
    wrong_id_every: int = 0
    """Every n-th answered request has another motor's id in one of its replies, which is else in order."""
    late_ms: float = 0.0
    """How late the adapter hands over what comes back; then `late_count` requests are left."""
    late_count: int = 0
    error_bits: dict[int, int] = field(default_factory=dict)
    volts: dict[int, float] = field(default_factory=dict)
    celsius: dict[int, float] = field(default_factory=dict)
    stuck: set[int] = field(default_factory=set)
    overloaded: set[int] = field(default_factory=set)
    power_lost: bool = False
    unplugged: bool = False
    jammed: set[int] = field(default_factory=set)
    camera_freeze: bool = False
    camera_repeat: bool = False
    camera_black: bool = False
    camera_drop: bool = False
    camera_unplug: bool = False

    def clear(self) -> None:
        """Mends everything."""
        fresh = Faults()
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))

    def ailment(self, motor: int) -> Ailment:
        """What the motor with that id suffers from."""
        if not (self.error_bits or self.volts or self.celsius or self.stuck or self.overloaded):
            return WELL
        return Ailment(
            self.error_bits.get(motor, 0),
            self.volts.get(motor),
            self.celsius.get(motor),
            motor in self.stuck,
            motor in self.overloaded,
        )


@dataclass(frozen=True, slots=True)
class Argument:
    """One number in a fault request: its range, and its default (None: it must be given)."""

    low: float
    high: float
    default: float | None = None


ALL = 254
"""In place of a motor's id: all of them."""
ID = Argument(0, 253)
ID_OR_ALL = Argument(0, ALL, ALL)
ON = Argument(0, 1, 1)
EVERY = Argument(0, 1_000_000)

KINDS: dict[str, dict[str, Argument]] = {
    "servo_silent": {"id": ID, "on": ON},
    "corrupt": {"every": EVERY},
    "drop_byte": {"every": EVERY},
    "duplicate": {"every": EVERY},
    "wrong_id": {"every": EVERY},
    "late": {"ms": Argument(0, 60_000), "count": Argument(1, 1_000_000, 1)},
    "error_bits": {"id": ID, "bits": Argument(0, 255)},
    "voltage": {"id": ID_OR_ALL, "volts": Argument(0, 25.5)},
    "temperature": {"id": ID_OR_ALL, "celsius": Argument(0, 255)},
    "overload": {"id": ID, "on": ON},
    "stuck_encoder": {"id": ID, "on": ON},
    "power_loss": {},
    "power_back": {},
    "unplug": {},
    "replug": {},
    "camera_freeze": {"on": ON},
    "camera_repeat": {"on": ON},
    "camera_black": {"on": ON},
    "camera_drop": {"on": ON},
    "camera_unplug": {"on": ON},
    "jam": {"id": ID, "on": ON},
    "clear": {},
}
"""Kind of fault -> its arguments. A truth value counts as 0 or 1."""


def check_fault(kind: object, arguments: Mapping[str, object]) -> dict[str, float]:
    """The complete arguments of a request; raises `FaultRequestError` saying what would be right."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise FaultRequestError(f"no fault {kind!r}; known: {', '.join(KINDS)}")
    wanted = KINDS[kind]
    unknown = sorted(set(arguments) - set(wanted))
    if unknown:
        raise FaultRequestError(f"fault {kind} takes {sorted(wanted) or 'nothing'}, not {unknown}")
    values: dict[str, float] = {}
    for name, rule in wanted.items():
        value = arguments.get(name, rule.default)
        if not isinstance(value, (int, float)) or not rule.low <= value <= rule.high:
            raise FaultRequestError(
                f"fault {kind} needs {name} as a number in [{rule.low:g}, {rule.high:g}], got {value!r}"
            )
        values[name] = float(value)
    return values


def apply_fault(faults: Faults, kind: object, arguments: Mapping[str, object], ids: frozenset[int]) -> None:
    """Changes `faults` as asked; raises `FaultRequestError` (also for a motor id not among `ids`)."""
    values = check_fault(kind, arguments)
    motors, on = _motors(values, ids), bool(values.get("on", 1))
    match kind:
        case "servo_silent":
            _members(faults.silent, motors, on)
        case "jam":
            _members(faults.jammed, motors, on)
        case "stuck_encoder":
            _members(faults.stuck, motors, on)
        case "overload":
            _members(faults.overloaded, motors, on)
        case "corrupt" | "drop_byte" | "duplicate" | "wrong_id":
            setattr(faults, f"{kind}_every", int(values["every"]))
        case "late":
            faults.late_ms, faults.late_count = values["ms"], int(values["count"])
        case "error_bits":
            _values(faults.error_bits, motors, int(values["bits"]))
        case "voltage":
            _values(faults.volts, motors, values["volts"])
        case "temperature":
            _values(faults.celsius, motors, values["celsius"])
        case "power_loss" | "power_back":
            faults.power_lost = kind == "power_loss"
        case "unplug" | "replug":
            faults.unplugged = kind == "unplug"
        case "camera_freeze" | "camera_repeat" | "camera_black" | "camera_drop" | "camera_unplug":
            setattr(faults, str(kind), on)
        case _:
            faults.clear()


def _motors(values: Mapping[str, float], ids: frozenset[int]) -> frozenset[int]:
    """The motors that a request means; none where it is not about motors."""
    if "id" not in values:
        return frozenset()
    motor = int(values["id"])
    if motor == ALL:
        return ids
    if motor not in ids:
        raise FaultRequestError(f"no motor has id {motor}; ids: {sorted(ids)}")
    return frozenset((motor,))


def _members(members: set[int], motors: frozenset[int], on: bool) -> None:
    if on:
        members |= motors
    else:
        members -= motors


def _values(values: dict[int, _Number], motors: frozenset[int], value: _Number) -> None:
    """Sets the value of each motor; 0 ends it."""
    for motor in motors:
        if value:
            values[motor] = value
        else:
            values.pop(motor, None)
