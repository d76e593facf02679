"""A bus of Feetech STS servos: requests out through a guard, complete answers in, or a typed error.

Stale answers are the classic failure of this bus: after one late reply every later one is a cycle old. Four
things prevent it: the input is emptied before each transmission, an error makes the next one wait for an idle
line, an answer sooner than the wire allows is refused, and successive sync reads ask the motors in a rotated
order, so that an answer to an earlier request has the wrong motor first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ..errors import BusTimeout, CorruptReply, MotorFault
from ..transport import PartialReply, Port
from . import codec
from .codec import REGISTERS

Guard = Callable[[bytes], None]

ATTEMPTS = 6
"""How often a request to a single motor is sent before its silence is believed."""
Row = TypeVar("Row")


def allow_all(frame: bytes) -> None:
    """The guard of tools that need none (simulated buses, benchmarks)."""


class FeetechBus:
    """One owner of one port. `guard` sees each complete frame before it is written and raises to deny it."""

    def __init__(self, port: Port, motor_ids: Sequence[int], guard: Guard, reply_timeout_ms: float) -> None:
        self.port = port
        self.motor_ids = tuple(motor_ids)
        self._guard = guard
        self._timeout_ns = int(reply_timeout_ms * 1e6)
        self._turn = 0
        count = len(self.motor_ids)
        self._orders = [self.motor_ids[k:] + self.motor_ids[:k] for k in range(count)]
        self._feedback = self._sync_read_frames(codec.FEEDBACK_ADDRESS, codec.FEEDBACK_LENGTH)
        position = REGISTERS["present_position"]
        self._positions = self._sync_read_frames(position.address, position.length)

    def ping(self, motor_id: int) -> int:
        """The fault bits of a motor that is there; raises `BusTimeout` for one that is not."""
        return self._ask(motor_id, codec.ping(motor_id), 0).faults

    def read_block(self, motor_id: int, address: int, length: int) -> bytes:
        """Raw registers of one motor, whatever its fault bits."""
        return self._ask(motor_id, codec.read(motor_id, address, length), length).parameters

    def read_register(self, motor_id: int, name: str, *, allow_faults: bool = False) -> int:
        """One register by name (`codec.REGISTERS`). Raises `MotorFault` on fault bits unless allowed."""
        register = REGISTERS[name]
        request = codec.read(motor_id, register.address, register.length)
        status = self._ask(motor_id, request, register.length)
        if not allow_faults:
            self._refuse_faults(status, f"reading {name}")
        return codec.decode_value(register, status.parameters)

    def write_register(self, motor_id: int, name: str, value: int, *, allow_faults: bool = False) -> None:
        """Writes one register and waits for the motor's answer. `MotorFault` on fault bits unless allowed."""
        status = self._ask(motor_id, codec.write(motor_id, REGISTERS[name], value), 0)
        if not allow_faults:
            self._refuse_faults(status, f"writing {name} = {value}")

    def sync_read_block(self) -> tuple[list[tuple[int, ...]], int]:
        """Position to current of every motor, complete and fresh or an error: the rows of
        `codec.unpack_feedback` in the order of `motor_ids`, and the stamp of the oldest answer.

        Raises `BusTimeout` (with `missing`), `CorruptReply`, `Disconnected`. The stamp is the earliest time
        at which the answer can have been complete on the wire: never younger than the truth.
        """
        data, sent_ns = self._sync_read(self._feedback, codec.FEEDBACK_LENGTH)
        rows = self._in_order(codec.unpack_feedback(data))
        return rows, sent_ns + (codec.OVERHEAD + codec.FEEDBACK_LENGTH) * self.port.byte_ns

    def sync_read_positions(self) -> list[tuple[int, int]]:
        """(ticks, fault bits) of every motor, in the order of `motor_ids`; errors as `sync_read_block`."""
        data, _ = self._sync_read(self._positions, 2)
        return self._in_order(codec.unpack_positions(data))

    def sync_write_goals(self, ticks: Sequence[int]) -> None:
        """Goal positions of all motors in one frame, in the order of `motor_ids`; nothing answers."""
        self._send(codec.encode_goals(self.motor_ids, ticks))

    def close(self) -> None:
        self.port.close()

    def _sync_read_frames(self, address: int, length: int) -> list[bytes]:
        return [codec.sync_read(order, address, length) for order in self._orders]

    def _sync_read(self, frames: list[bytes], length: int) -> tuple[bytes, int]:
        turn = self._turn = (self._turn + 1) % len(self._orders)
        order = self._orders[turn]
        frame = frames[turn]
        self._guard(frame)
        try:
            data, sent_ns = self.port.exchange(
                frame, len(order) * (codec.OVERHEAD + length), self._timeout_ns
            )
            codec.check_answers(data, order, length)
        except PartialReply as error:
            heard = codec.answering(error.partial, order, length)
            raise self._silent([i for i in self.motor_ids if i not in heard]) from error
        except CorruptReply:
            self.port.distrust()
            raise
        return data, sent_ns

    def _in_order(self, rows: list[Row]) -> list[Row]:
        """Answers of the last sync read, back in the order of `motor_ids`."""
        return rows[-self._turn :] + rows[: -self._turn] if self._turn else rows

    def _ask(self, motor_id: int, frame: bytes, length: int) -> codec.Status:
        """A request to one motor, sent again where the answer was lost or damaged.

        Single requests belong to set-up and release, where nothing depends on their time, all of them can be
        repeated without harm, and a motor that has just got power misses the first.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return self._ask_once(motor_id, frame, length)
            except (BusTimeout, CorruptReply):
                continue
        return self._ask_once(motor_id, frame, length)

    def _ask_once(self, motor_id: int, frame: bytes, length: int) -> codec.Status:
        self._guard(frame)
        try:
            data, _ = self.port.exchange(frame, codec.OVERHEAD + length, self._timeout_ns)
            codec.check_answers(data, (motor_id,), length)
        except PartialReply as error:
            # A motor may answer an error without the data that was asked for.
            if len(error.partial) == codec.OVERHEAD and length:
                self._refuse_faults(codec.decode_status(error.partial), "answering")
            raise self._silent([motor_id]) from error
        except CorruptReply:
            self.port.distrust()
            raise
        return codec.decode_status(data)

    def _send(self, frame: bytes) -> None:
        self._guard(frame)
        self.port.send(frame)

    def _silent(self, missing: Sequence[int]) -> BusTimeout:
        everyone = len(missing) == len(self.motor_ids) > 1
        who = "no motor" if everyone else f"motor {', '.join(map(str, missing))} did not"
        advice = "is the motors' power on?" if everyone else "check its cable"
        verb = "answered" if everyone else "answer"
        return BusTimeout(
            f"{who} {verb} within {self._timeout_ns / 1e6:g} ms on {self.port.name}; {advice}", tuple(missing)
        )

    def _refuse_faults(self, status: codec.Status, doing: str) -> None:
        if status.faults:
            raise MotorFault(
                f"motor {status.motor_id} reports {codec.fault_names(status.faults)} while {doing}; let it "
                "cool, free the joint, check the supply, then power-cycle it",
                status.motor_id,
            )


def write_eeprom(bus: FeetechBus, motor_id: int, values: dict[str, int]) -> None:
    """Writes permanent registers: lock off, write, lock on again (also after an error), read back.

    Only for a person's explicit wish, with torque off. Raises `MotorFault` where a value did not take.
    """
    for name in values:
        if not REGISTERS[name].eeprom:
            raise ValueError(f"register {name} is not in the EEPROM")
    bus.write_register(motor_id, "lock", 0)
    try:
        for name, value in values.items():
            bus.write_register(motor_id, name, value)
    finally:
        bus.write_register(motor_id, "lock", 1)
    for name, value in values.items():
        actual = bus.read_register(motor_id, name)
        if actual != value:
            raise MotorFault(f"motor {motor_id}: {name} reads {actual} after writing {value}", motor_id)
