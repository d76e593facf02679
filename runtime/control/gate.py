"""The final gate: every outgoing frame is decoded again and must be on the list of the present phase.

It stands between the driver and the port, decodes the bytes by itself and shares no code with the smoother
or the driver's encoder, so a mistake in either cannot pass. Reading is always allowed; what may be written
is a table of (register, width) -> allowed range per motor. Everything else is denied, among it the EEPROM,
other instructions, and 128 in the torque register, which would re-zero an STS servo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

BROADCAST = 0xFE
_PING, _READ, _WRITE, _SYNC_READ, _SYNC_WRITE = 0x01, 0x02, 0x03, 0x82, 0x83


class GateDenied(Exception):
    """A write that is not on the list; it has not been sent."""


class GatePhase(Enum):
    CONNECT = "connect"
    """Reading only."""
    ARM = "arm"
    """Torque limits, accelerations, the first goal, torque on."""
    RUN = "run"
    """Goals inside the limits."""
    STOP = "stop"
    """Goals inside the limits, and torque off."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be written to one register: an inclusive range for each motor that may be written to."""

    address: int
    width: int
    allowed: Mapping[int, tuple[int, int]]
    """motor id -> (lowest, highest)"""


GateTable = Mapping[GatePhase, tuple[Rule, ...]]


class FeetechGate:
    """Decides on Feetech protocol-0 frames. `phase` is set by the control process alone."""

    def __init__(self) -> None:
        self._rules: dict[GatePhase, dict[tuple[int, int], Rule]] = {}
        self._phase = GatePhase.CONNECT
        self._present: dict[tuple[int, int], Rule] = {}
        """The rules of the present phase."""
        self.denied = 0
        self.passed = 0

    @property
    def phase(self) -> GatePhase:
        return self._phase

    @phase.setter
    def phase(self, phase: GatePhase) -> None:
        self._phase = phase
        self._present = self._rules.get(phase, {})

    def load(self, table: GateTable) -> None:
        """Sets what may be written. Before that, nothing may: the gate is closed until the arm is known."""
        self._rules = {
            phase: {(rule.address, rule.width): rule for rule in rules} for phase, rules in table.items()
        }
        self.phase = self._phase

    def __call__(self, frame: bytes) -> None:
        """Returns for an allowed frame; raises `GateDenied` for any other."""
        try:
            self._judge(frame)
        except GateDenied:
            self.denied += 1
            raise
        self.passed += 1

    def _judge(self, frame: bytes) -> None:
        if len(frame) < 6 or frame[0] != 0xFF or frame[1] != 0xFF:
            raise GateDenied(f"not a Feetech frame: {frame[:16].hex(' ')}")
        motor_id, length, instruction = frame[2], frame[3], frame[4]
        if len(frame) != length + 4 or frame[-1] != ~sum(frame[2:-1]) & 0xFF:
            raise GateDenied(f"wrong length or checksum: {frame[:16].hex(' ')}")
        parameters = frame[5:-1]
        if instruction in (_PING, _READ, _SYNC_READ):
            return
        if instruction == _WRITE and motor_id != BROADCAST and len(parameters) >= 2:
            data = parameters[1:]
            self._check(self._rule(motor_id, parameters[0], len(data)), motor_id, data)
        elif instruction == _SYNC_WRITE and motor_id == BROADCAST and len(parameters) >= 2:
            address, width = parameters[0], parameters[1]
            blocks = parameters[2:]
            if width == 0 or not blocks or len(blocks) % (width + 1):
                raise GateDenied(f"a sync write with ragged blocks: {frame[:16].hex(' ')}")
            rule = self._rule(blocks[0], address, width)
            for start in range(0, len(blocks), width + 1):
                self._check(rule, blocks[start], blocks[start + 1 : start + 1 + width])
        else:
            raise GateDenied(f"instruction 0x{instruction:02x} to motor {motor_id} is not allowed")

    def _rule(self, motor_id: int, address: int, width: int) -> Rule:
        rule = self._present.get((address, width))
        if rule is None:
            raise GateDenied(
                f"motor {motor_id}: register {address} ({width} bytes) may not be written in phase "
                f"{self.phase.value}"
            )
        return rule

    def _check(self, rule: Rule, motor_id: int, data: bytes) -> None:
        allowed = rule.allowed.get(motor_id)
        value = int.from_bytes(data, "little")
        if allowed is None or not allowed[0] <= value <= allowed[1]:
            limits = "nothing" if allowed is None else f"{allowed[0]} .. {allowed[1]}"
            raise GateDenied(
                f"motor {motor_id}: {value} to register {rule.address} in phase {self.phase.value}; allowed "
                f"is {limits}"
            )
