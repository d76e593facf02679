"""What was really sent to the motors, by the bytes on the bus, and whether anybody knows what they did."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from ...drivers.feetech import codec
from ...drivers.types import Direction
from ..messages import Phase
from .records import Recording
from .replay import ReplayResult

_PORT_LOST = frozenset({"bus_lost", "bus_write_failed"})
_TORQUE_ADDRESS = codec.REGISTERS["torque_enable"].address


@dataclass(frozen=True, slots=True)
class Motors:
    """What the motors were told. In a dry run that is nothing."""

    goals: tuple[int, ...]
    """The ticks, oldest first, whose setpoint left for the motors."""
    torque: bool | None
    """The last torque that was switched, on or off; None: no such byte is in the recording."""
    lost: str
    """Why nobody knows what the motors did at the end; empty where they answered."""

    def last_goal(self, after: int = 0, until: int | None = None) -> int | None:
        """The last tick of `after` .. `until` (included; None: the end) whose setpoint was sent."""
        rows = self.goals if until is None else self.goals[: bisect_right(self.goals, until)]
        return rows[-1] if rows and rows[-1] >= after else None


def motors_of(recording: Recording, result: ReplayResult) -> Motors:
    return Motors(goals_sent(recording), _torque(recording), _lost(recording, result))


def goals_sent(recording: Recording) -> tuple[int, ...]:
    """Control records a tick, then writes its setpoint: what is sent before the next tick is of this one."""
    sequences = [tick.sequence for tick in recording.ticks]
    found = {
        bisect_right(sequences, record.sequence) - 1
        for record in recording.bus
        if record.direction == Direction.SENT and _is_goals(record.data)
    }
    return tuple(sorted(i for i in found if i >= 0 and recording.ticks[i].output.setpoint is not None))


def armed(recording: Recording, motors: Motors) -> bool:
    """Whether this run had begun to give torque by the end of the recording."""
    return recording.ticks[-1].phase is not Phase.CONNECT or motors.torque is not None


def _is_goals(frame: bytes) -> bool:
    return _is(frame, codec.Instruction.SYNC_WRITE) and frame[5] == codec.GOAL_ADDRESS


def _is(frame: bytes, instruction: int) -> bool:
    return len(frame) >= codec.OVERHEAD + 2 and frame.startswith(codec.HEADER) and frame[4] == instruction


def _torque(recording: Recording) -> bool | None:
    for record in reversed(recording.bus):
        frame = record.data
        sent = record.direction == Direction.SENT and _is(frame, codec.Instruction.WRITE)
        if sent and frame[5] == _TORQUE_ADDRESS:
            return frame[6] != 0
    return None


def _lost(recording: Recording, result: ReplayResult) -> str:
    codes = {condition.code for tick in recording.ticks for condition in tick.inbox.conditions}
    if codes & _PORT_LOST:
        return "the port to the motors was lost"
    last = recording.ticks[-1]
    replayed = bool(result.steps) and result.steps[-1].index == len(recording.ticks) - 1
    newest = next((tick.joint for tick in reversed(recording.ticks) if tick.joint is not None), None)
    aged = newest is None or last.now_ns - newest.stamp_ns > recording.config.joint_state_max_age_ns
    if aged or (replayed and result.steps[-1].after.silent):
        return "the motors, or some of them, were silent and may have lost power"
    return ""
