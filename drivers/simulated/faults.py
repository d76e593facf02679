"""The faults that can be asked of the simulated robot, as data, and the state they leave.

`apply_fault` checks a request of the truth channel against `KINDS` and changes `Faults`; the bus, the plant
and the camera only read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class FaultRequestError(ValueError):
    """A fault was asked for that does not exist, or with arguments that make no sense."""


@dataclass(slots=True)
class Faults:
    """What is broken at the moment. Ids are motor ids."""

    silent: set[int] = field(default_factory=set)
    """Motors that neither listen nor answer (their cable is off); they go on holding."""
    corrupt_every: int = 0
    """Every n-th answered request has one bit flipped in one of its replies; 0: none."""
    drop_byte_every: int = 0
    """Every n-th answered request lacks one byte in one of its replies; 0: none."""
    late_ms: float = 0.0
    """How late the adapter hands over what comes back; then `late_count` requests are left."""
    late_count: int = 0
    error_bits: dict[int, int] = field(default_factory=dict)
    power_lost: bool = False
    unplugged: bool = False
    jammed: set[int] = field(default_factory=set)
    camera_freeze: bool = False
    camera_drop: bool = False
    camera_unplug: bool = False

    def clear(self) -> None:
        """Mends everything."""
        fresh = Faults()
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))


@dataclass(frozen=True, slots=True)
class Argument:
    """One number in a fault request: its range, and its default (None: it must be given)."""

    low: float
    high: float
    default: float | None = None


ID = Argument(0, 253)
ON = Argument(0, 1, 1)
EVERY = Argument(0, 1_000_000)

KINDS: dict[str, dict[str, Argument]] = {
    "servo_silent": {"id": ID, "on": ON},
    "corrupt": {"every": EVERY},
    "drop_byte": {"every": EVERY},
    "late": {"ms": Argument(0, 60_000), "count": Argument(1, 1_000_000, 1)},
    "error_bits": {"id": ID, "bits": Argument(0, 255)},
    "power_loss": {},
    "unplug": {},
    "replug": {},
    "camera_freeze": {"on": ON},
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
    motor, on = int(values.get("id", 0)), bool(values.get("on", 1))
    if "id" in values and motor not in ids:
        raise FaultRequestError(f"no motor has id {motor}; ids: {sorted(ids)}")
    match kind:
        case "servo_silent":
            _member(faults.silent, motor, on)
        case "jam":
            _member(faults.jammed, motor, on)
        case "corrupt":
            faults.corrupt_every = int(values["every"])
        case "drop_byte":
            faults.drop_byte_every = int(values["every"])
        case "late":
            faults.late_ms, faults.late_count = values["ms"], int(values["count"])
        case "error_bits":
            faults.error_bits[motor] = int(values["bits"])
        case "power_loss":
            faults.power_lost = True
        case "unplug" | "replug":
            faults.unplugged = kind == "unplug"
        case "camera_freeze" | "camera_drop" | "camera_unplug":
            setattr(faults, str(kind), on)
        case _:
            faults.clear()


def _member(members: set[int], motor: int, on: bool) -> None:
    if on:
        members.add(motor)
    else:
        members.discard(motor)
