"""Recordings made in stepped time: the real core on the bench, every call of it kept as a `Tick`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.drivers.feetech import codec
from holdfast.drivers.types import Direction, JointState
from holdfast.runtime.control.config import CoreConfig
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.state import Condition, CoreState, Inbox, Output
from holdfast.runtime.recorder.records import BusRecord, Recording, Tick

from ..control.world import MS, Bench, chunk, config


class Tape(ControlCore):
    """A core that keeps what it was given and what it gave back, as the recorder does."""

    def __init__(self, config: CoreConfig, state_every: int = 50) -> None:
        super().__init__(config)
        self.ticks: list[Tick] = []
        self.states: list[tuple[int, CoreState]] = []
        self._state_every = state_every

    def step(
        self, state: CoreState, now_ns: int, joint: JointState | None, inbox: Inbox
    ) -> tuple[CoreState, Output]:
        if len(self.ticks) % self._state_every == 0:
            self.states.append((len(self.ticks), state))
        after, output = super().step(state, now_ns, joint, inbox)
        sequence = 2 * len(self.ticks) + 1
        self.ticks.append(Tick(sequence, now_ns, now_ns, 0, joint, inbox, after.phase, output))
        return after, output


@dataclass
class Flight:
    """A run on the bench: a policy that moves the first joint towards `goal`, until something happens."""

    changes: dict[str, Any] = field(default_factory=dict)
    """Of the configuration."""
    goal: float = 0.6

    def __post_init__(self) -> None:
        self.tape = Tape(config(**self.changes))
        self.bench = Bench(core=self.tape)
        self.next_chunk = 1

    def go(self, ticks: int, chunk_every: int = 10) -> Flight:
        """Follows chunks for a while."""
        if self.next_chunk == 1:
            self.bench.start()
        for i in range(ticks):
            self.bench.tick(self._inbox() if i % chunk_every == 0 else None)
        return self

    def stop(self, code: str = "camera_lost", text: str = "the camera is gone") -> Flight:
        self.bench.tick(Inbox(conditions=(Condition(code, text),)))
        return self

    def rest(self, ticks: int = 100) -> Flight:
        self.bench.run(ticks)
        return self

    def _inbox(self) -> Inbox:
        at = self.bench.arm_at
        rows = [(at[0] + (self.goal - at[0]) * i / 7, *at[1:]) for i in range(8)]
        message = chunk(rows, chunk_id=self.next_chunk, observation_ns=self.bench.now_ns - 40 * MS)
        self.next_chunk += 1
        return Inbox(chunk=message)

    def sent(self, until: int | None = None) -> tuple[BusRecord, ...]:
        """The goals of the first `until` ticks, as they leave for the motors."""
        frame = codec.encode_goals((1, 2, 3), (100, 200, 300))
        return tuple(
            BusRecord(tick.sequence + 1, tick.now_ns, Direction.SENT, frame)
            for tick in self.tape.ticks[:until]
            if tick.output.setpoint is not None
        )

    def recording(self, **changes: Any) -> Recording:
        """Everything so far; `changes` replaces fields."""
        chunks = {t.inbox.chunk.chunk_id: t.inbox.chunk for t in self.tape.ticks if t.inbox.chunk}
        nothing = ("frames", "inferences", "faults", "tasks", "events", "stages", "snapshots", "notes")
        whole = Recording(
            path="bench.flight",
            run={},
            config=self.tape.config,
            ticks=tuple(self.tape.ticks),
            states=tuple(self.tape.states),
            gaps=frozenset(),
            chunks=chunks,
            bus=self.sent(),
            **dict.fromkeys(nothing, ()),
        )
        return replace(whole, **changes)
